//! `outpost firmware-sim`: a board without hardware, for the agent to connect to.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use outpost_firmware_bridge::simulator::{Bench, CHANNELS, Deed, Seen, Simulator};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::out::out;

/// Simulate a board with a microcontroller, on a serial port of its own.
///
/// Says the port for `firmware.port`, shows what the board does, and takes what you do to it from standard input, a line
/// each: press, release, motion, quiet, temperature CELSIUS, ask TEXT, reset.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make this a link to the port, so that the configuration can name it.
    #[arg(long)]
    link: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    runtime.block_on(simulate(args))
}

async fn simulate(args: &Args) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (simulator, Bench { deeds, mut seen }) =
        Simulator::new().context("opening a pseudo-terminal")?;
    let port = simulator.port.display().to_string();
    if let Some(link) = &args.link {
        std::os::unix::fs::symlink(&simulator.port, link).with_context(|| {
            format!("{}: cannot be made a link; remove what is there", link.display())
        })?;
    }
    print(&format!("port {port}"));
    for (channel, function, name) in CHANNELS {
        print(&format!("channel {channel}: {name} ({function:?})"));
    }
    std::thread::spawn(move || take_deeds(&deeds));
    let board = simulator.run(CancellationToken::new());
    let mut board = std::pin::pin!(board);
    let ended = loop {
        tokio::select! {
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
            ended = &mut board => break ended,
            Some(seen) = seen.recv() => print(&describe(seen)),
        }
    };
    if let Some(link) = &args.link {
        drop(std::fs::remove_file(link));
    }
    ended.context("the simulated line failed")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads deeds from standard input until it ends.
fn take_deeds(deeds: &mpsc::Sender<Deed>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match deed(line.trim()) {
            Some(deed) => {
                if deeds.blocking_send(deed).is_err() {
                    return;
                }
            }
            None if line.trim().is_empty() => {}
            None => super::say(
                "expected press, release, motion, quiet, temperature CELSIUS, ask TEXT or reset",
            ),
        }
    }
}

fn deed(line: &str) -> Option<Deed> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some(match (word, rest.trim()) {
        ("press", "") => Deed::Press,
        ("release", "") => Deed::Release,
        ("motion", "") => Deed::Motion(true),
        ("quiet", "") => Deed::Motion(false),
        ("reset", "") => Deed::Reset,
        ("temperature", celsius) => {
            let celsius: f64 = celsius.parse().ok()?;
            Deed::Temperature((celsius.clamp(-273.0, 1000.0) * 1000.0) as i32)
        }
        ("ask", text) if !text.is_empty() => Deed::Ask(text.to_owned()),
        _ => return None,
    })
}

/// What is seen on the board, for a person.
pub(super) fn describe(seen: Seen) -> String {
    match seen {
        Seen::Linked(true) => "linked".to_owned(),
        Seen::Linked(false) => "not linked".to_owned(),
        Seen::Refused(why) => format!("refused: {why}"),
        Seen::Led(state) => format!("LED {}", format!("{state:?}").to_lowercase()),
        Seen::Cue(cue) => format!("buzzer: {}", format!("{cue:?}").to_lowercase()),
        Seen::Switched(name, level) => match level {
            0 => format!("{name} is off"),
            1000 => format!("{name} is on"),
            level => format!("{name} is at {} %", level / 10),
        },
        Seen::Answered(ok) => format!("answered{}", if ok { "" } else { ", with a failure" }),
    }
}

fn print(line: &str) {
    out!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_are_read_from_lines() {
        assert_eq!(deed("press"), Some(Deed::Press));
        assert_eq!(deed("temperature -3.5"), Some(Deed::Temperature(-3500)));
        assert_eq!(deed("ask what time is it"), Some(Deed::Ask("what time is it".into())));
        for wrong in ["", "ask", "temperature warm", "press hard"] {
            assert_eq!(deed(wrong), None, "{wrong}");
        }
    }
}
