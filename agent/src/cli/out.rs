//! What the commands print. A reader that has seen enough, such as `head`, ends the program quietly.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

/// Prints a line of results.
macro_rules! out {
    ($($part:tt)*) => { $crate::cli::out::line(format_args!($($part)*)) };
}
pub(super) use out;

/// Prints a line of results; see [`out!`].
pub(super) fn line(text: fmt::Arguments<'_>) {
    done(writeln!(io::stdout(), "{text}"));
}

/// Prints a piece of a line at once: an answer is read as it comes.
pub(super) fn piece(text: &str) {
    let mut out = io::stdout().lock();
    done(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Tells a person what is going on, on standard error; nothing comes of nobody reading that.
pub(super) fn tell(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// Without a place for its results, a command is at its end.
#[expect(clippy::exit, reason = "there is nobody left to report to")]
fn done(written: io::Result<()>) {
    match written {
        Err(fault) if fault.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(fault) => {
            tell(&format!("outpost: standard output: {fault}"));
            std::process::exit(1);
        }
        Ok(()) => {}
    }
}
