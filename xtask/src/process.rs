//! Child processes, none of which outlives the task.
//!
//! Each child leads a process group of its own. A signal to the task ends the whole group, so that a killed build
//! leaves no compiler running. A second signal ends it without mercy.

use anyhow::{Context, Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst},
    thread,
};

/// The signal that asked the task to stop; 0 for none.
static SIGNAL: AtomicU8 = AtomicU8::new(0);
/// The process group of the running child; 0 for none.
static GROUP: AtomicU32 = AtomicU32::new(0);

/// From here on, a signal ends the running child and then the task.
pub(crate) fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot watch signals")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let first = SIGNAL.swap(u8::try_from(signal).unwrap_or(u8::MAX), SeqCst) == 0;
            end_group(if first { "TERM" } else { "KILL" });
        }
    });
    Ok(())
}

/// The number of the signal that asked the task to stop.
pub(crate) fn stopped_by() -> Option<u8> {
    Some(SIGNAL.load(SeqCst)).filter(|&signal| signal != 0)
}

/// Where Cargo's subcommands are installed that the machine does not have.
pub(crate) fn installed(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// Runs a command to its end, its output going where the task's goes.
///
/// # Errors
/// When it cannot be started or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let name = describe(command);
    let status = wait(command, &name)?;
    if !status.success() {
        bail!("`{name}`: {status}");
    }
    Ok(())
}

/// Runs a short command and gives what it printed; `None` when it cannot be started or fails.
pub(crate) fn capture(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this may do all.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Cargo, at the root of the workspace, always with the libtorch that setup put there.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env_remove("LIBTORCH").env_remove("LIBTORCH_USE_PYTORCH");
    // What the outer cargo says of xtask. There are build scripts that would run again for it, and all that depends on them be
    // recompiled on each change between `cargo xtask` and `cargo build`.
    for (name, _) in env::vars_os() {
        let of_xtask = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if of_xtask("CARGO_PKG_") || of_xtask("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let mut path = OsString::from(installed(root).join("bin"));
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    command.env("PATH", path);
    command
}

fn wait(command: &mut Command, name: &str) -> Result<ExitStatus> {
    if stopped_by().is_some() {
        bail!("stopped");
    }
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("cannot run `{name}`"))?;
    GROUP.store(child.id(), SeqCst);
    if stopped_by().is_some() {
        end_group("TERM");
    }
    let status = child.wait();
    GROUP.store(0, SeqCst);
    Ok(status?)
}

fn end_group(signal: &str) {
    let group = GROUP.load(SeqCst);
    if group != 0 {
        // The shell's own `kill`: the system call would be unsafe code.
        let _ = Command::new("sh").arg("-c").arg(format!("kill -{signal} -{group}")).status();
    }
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).take(6).collect();
    format!("{} {}", program.to_string_lossy(), words.join(" "))
}
