//! The daemon under test: the whole agent, with a model that calls four tools for each question, or a slow one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use outpost_agent::app::App;
use outpost_agent_core::config::Config;
use outpost_agent_core::model_thread::Model;
use outpost_runtime::{Error, Finish, Generation, Part, Request, Role, Stop, ToolCall, Usage};
use outpost_tests::tool::TestTool;
use outpost_tools::{Class, ErrorKind, ToolError, ToolOutcome};
use serde_json::{Map, json};

/// Calls for each question.
pub(crate) const CALLS: u64 = 4;

/// The name of a tool that must not be called twice, takes its time, and is called when the question is its name.
pub(crate) const SLOW: &str = "burn";
/// Where it leaves its mark, in the folder of the daemon.
pub(crate) const BURNT: &str = "burnt";

/// Calls tools; once they are done, notes that in a journal: their reports must then survive whatever comes.
struct Caller {
    journal: File,
}

impl Model for Caller {
    fn generate(
        &mut self,
        request: &Request,
        _stop: &Stop,
        _say: &mut dyn FnMut(&str),
    ) -> Result<Generation, Error> {
        let called = request.turns.last().is_some_and(|turn| turn.role == Role::ToolResponse);
        if called {
            // A line that cannot be written makes the check weaker, not wrong.
            self.journal.write_all(b"called\n").ok();
        }
        let call = |level| ToolCall {
            name: "set_volume".into(),
            arguments: Map::from_iter([("level".to_owned(), json!(level))]),
        };
        let is_slow = request.turns.iter().any(|turn| turn.parts == [Part::Text(SLOW.into())]);
        let calls = match (called, is_slow) {
            (true, _) => Vec::new(),
            (false, true) => vec![ToolCall { name: SLOW.into(), arguments: Map::new() }],
            (false, false) => (1..=CALLS).map(call).collect(),
        };
        let text = if called { "Done.".into() } else { String::new() };
        let (finish, usage) = (Finish::EndOfTurn, Usage::default());
        Ok(Generation { text, calls, finish, confidence: None, usage })
    }

    fn warm_up(&mut self, _request: &Request) -> Result<(), Error> {
        Ok(())
    }

    fn forget(&mut self) {}
}

/// Runs the daemon until it is killed.
pub(crate) async fn run(folder: &Path) -> Result<()> {
    let config = Config::read(&folder.join("outpost.toml"))?;
    let journal = OpenOptions::new().create(true).append(true).open(folder.join("journal"))?;
    let load = move || Ok(Box::new(Caller { journal }) as Box<dyn Model>);
    let app = App::with_model(config, load).await?;
    slow(folder.join(BURNT)).add_to(app.tools(), SLOW, (Class::Open, false))?;
    let _running = app.spawn()?;
    std::future::pending().await
}

/// Leaves its mark at once, and takes longer than the daemon lives.
fn slow(mark: PathBuf) -> TestTool {
    TestTool::new(move |_| {
        let mut options = OpenOptions::new();
        let marked = options
            .create(true)
            .append(true)
            .open(&mark)
            .and_then(|mut file| file.write_all(b"burnt\n"))
            .map_err(|fault| ToolError::new(ErrorKind::Failed, fault.to_string()));
        async move {
            marked?;
            tokio::time::sleep(Duration::from_mins(5)).await;
            Ok(ToolOutcome::done())
        }
    })
}

/// The library by which a process can be told another time: Debian's package `faketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// Where the daemon's clock is read from, as an offset in seconds.
const CLOCK: &str = "clock";

/// Whether the daemon's clock can be put.
pub(crate) fn has_clock() -> bool {
    Path::new(FAKETIME).exists()
}

/// Puts the clock on the daemon's wall; the one that never goes back goes on as it was.
pub(crate) fn put_clock(folder: &Path, offset: i64) -> Result<()> {
    // Renamed into place, so that no half number is read.
    let fresh = folder.join("clock.new");
    std::fs::write(&fresh, format!("{offset:+}"))?;
    Ok(std::fs::rename(fresh, folder.join(CLOCK))?)
}

/// The daemon as a process of its own; killed on drop.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it; what it logs goes to `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(folder.join("daemon.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("daemon").arg(folder).stdout(Stdio::null()).stderr(log);
        let clock = folder.join(CLOCK);
        if clock.exists() {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .envs([("FAKETIME_NO_CACHE", "1"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
        }
        Ok(Self { child: command.spawn().context("cannot start the daemon")? })
    }

    /// Kills it: it gets no chance to tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it ended by itself, which it must not.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill().ok();
    }
}
