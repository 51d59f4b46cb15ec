//! The daemon under test: the whole agent, with a model that calls four tools for each question, or a slow one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use outpost_agent::app::App;
use outpost_agent_core::config::{Config, Version};
use outpost_agent_core::model_thread::Model;
use outpost_runtime::{Error, Finish, Generation, Part, Request, Role, Stop, ToolCall, Usage};
use outpost_tests::tool::TestTool;
use outpost_tools::{Class, ErrorKind, ToolError, ToolOutcome};
use serde_json::{Value, json};

/// Calls for each question: half of them commands of the contract, half messages of the tool `publish`.
pub(crate) const CALLS: u64 = 4;

/// Where `publish` sends its messages.
const LAMP: &str = "outpost/outpost/house/lamp";

/// A question whose calls wait until [`GO`] is there; [`ASKED`] is there from when it is asked.
pub(crate) const LATE: &str = "late";
/// Files in the folder of the daemon.
pub(crate) const ASKED: &str = "asked";
pub(crate) const GO: &str = "go";
/// How long it waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A question, and a tool whose report is longer than the broker's packets. The other calls are made after it.
pub(crate) const LONG: &str = "hoard";
/// A question, and a tool whose report the broker refuses. The other calls are made after it.
pub(crate) const SECRET: &str = "whisper";

/// The longest packet that the broker takes, bytes.
pub(crate) const MAX_PACKET: usize = 32 * 1024;

/// The name of a tool that must not be called twice, takes its time, and is called when the question is its name.
pub(crate) const SLOW: &str = "burn";
/// Where it leaves its mark, in the folder of the daemon.
pub(crate) const BURNT: &str = "burnt";

/// Calls tools; once they are done, notes that in a journal: their reports must then survive whatever comes.
struct Caller {
    folder: PathBuf,
    journal: File,
}

impl Caller {
    /// Says that it was asked, and waits.
    fn wait(&self, stop: &Stop) -> Result<(), Error> {
        std::fs::write(self.folder.join(ASKED), "")
            .map_err(|source| Error::Io { path: self.folder.clone(), source })?;
        let started = Instant::now();
        while !self.folder.join(GO).exists() && started.elapsed() < PATIENCE {
            stop.check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Model for Caller {
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        _say: &mut dyn FnMut(&str),
    ) -> Result<Generation, Error> {
        let called = request.turns.last().is_some_and(|turn| turn.role == Role::ToolResponse);
        let is = |prompt: &str| {
            request.turns.iter().any(|turn| turn.parts == [Part::Text(prompt.into())])
        };
        let calls = if called {
            // A line that cannot be written makes the check weaker, not wrong.
            self.journal.write_all(b"called\n").ok();
            Vec::new()
        } else if is(SLOW) {
            vec![call(SLOW, &json!({}))]
        } else {
            if is(LATE) {
                self.wait(stop)?;
            }
            let long = is(LONG).then(|| call(LONG, &json!({ "text": "a".repeat(2 * MAX_PACKET) })));
            let secret = is(SECRET).then(|| call(SECRET, &json!({})));
            long.into_iter().chain(secret).chain((1..=CALLS).map(step)).collect()
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

fn call(name: &str, arguments: &Value) -> ToolCall {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    ToolCall { name: name.into(), arguments }
}

/// One of the calls that every question makes. A message carries a mark of its own, so that it is known again.
fn step(step: u64) -> ToolCall {
    if step <= CALLS / 2 {
        return call("set_volume", &json!({ "level": 10 * step }));
    }
    let mark = format!("{:016x}", rand::random::<u64>());
    let payload = json!({ "step": step, "mark": mark }).to_string();
    call("publish", &json!({ "topic": LAMP, "payload": payload }))
}

/// The configuration of the daemon: it speaks this version of MQTT over this port.
pub(crate) fn configure(folder: &Path, port: u16, version: Version) -> Result<()> {
    let text = format!(
        "[mqtt]\ndevice = 'outpost'\nhost = '127.0.0.1'\nport = {port}\nversion = '{version}'\nkeep_alive_seconds = 5\n\
         outbox = 'disk/outbox.redb'\n\
         [agent]\nparallel_calls = 1\ntool_timeout_seconds = 2\n[policy]\nper_minute = 1000000\n\
         [tools.publish]\ntopics = ['{LAMP}']\nclass = 'open'\n"
    );
    Ok(std::fs::write(folder.join("outpost.toml"), text)?)
}

/// Runs the daemon until it is killed.
pub(crate) async fn run(folder: &Path) -> Result<()> {
    let config = Config::read(&folder.join("outpost.toml"))?;
    let journal = OpenOptions::new().create(true).append(true).open(folder.join("journal"))?;
    let caller = Caller { folder: folder.to_owned(), journal };
    let app = App::with_model(config, move || Ok(Box::new(caller) as Box<dyn Model>)).await?;
    for name in [LONG, SECRET] {
        let quick = TestTool::new(|_| std::future::ready(Ok(ToolOutcome::done())));
        quick.add_to(app.tools(), name, (Class::Open, true))?;
    }
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
