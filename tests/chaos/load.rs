//! `outpost run` with the bundled model under load: questions, sound, pictures, tools that come and go, and a broker that is
//! restarted now and then. What it uses at rest after a quarter of the time is compared with what it uses at rest at the end.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use outpost_mqtt::message::Message;
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_tests::broker::{Broker, free_port};
use outpost_tests::process::Usage;
use outpost_tests::root;
use serde_json::{Value, json};

use crate::{judge, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long it takes.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(2..))]
    minutes: u64,
}

/// Memory may differ by so much.
const TOLERANCE: f64 = 0.02;
/// How long the daemon may take to start, to answer, and to end.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long it may take to find the broker again.
const SLOW: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two lines of the table.
const SAMPLE: Duration = Duration::from_secs(30);
/// At rest: until all is quiet (idle threads of the runtime end after ten seconds), then samples once a second.
const QUIET: Duration = Duration::from_secs(15);
const SAMPLES: usize = 11;
/// The broker is restarted so often, if that is not too close together.
const RESTARTS: u32 = 12;
const APART: Duration = Duration::from_mins(1);
/// The tool is withdrawn and offered again after so many questions.
const OFFER_EVERY: u64 = 20;

/// The tool that is offered over MQTT.
const TOOL: &str = "outpost/outpost/tools/count_parcels";

pub(crate) async fn run(options: &Options) -> Result<()> {
    let time = Duration::from_mins(options.minutes);
    let mut load = Load::start((time / RESTARTS).max(APART)).await?;
    say!("minute  memory MiB  descriptors  threads  questions");
    load.go_on(time / 4).await?;
    let quarter = load.rest("after a quarter").await?;
    load.go_on(time).await?;
    let end = load.rest("at the end").await?;
    load.end()?;
    let mut wrong = load.seen.missing();
    let (before, after) = (quarter.resident_kib as f64, end.resident_kib as f64);
    let change = after / before - 1.0;
    if change.abs() > TOLERANCE {
        wrong.push(format!("memory changed by {:.1} %", 100.0 * change));
    }
    if (quarter.descriptors, quarter.threads) != (end.descriptors, end.threads) {
        wrong.push("the number of descriptors or threads changed".into());
    }
    say!("{}, memory changed by {:+.2} %", load.seen.summary(), 100.0 * change);
    for fault in &wrong {
        say!("WRONG: {fault}");
    }
    ensure!(wrong.is_empty(), "{} things are wrong", wrong.len());
    say!("no growth in {} minutes", options.minutes);
    Ok(())
}

/// What was done and seen.
#[derive(Debug, Default)]
struct Seen {
    questions: u64,
    answers: u64,
    utterances: u64,
    pictures: u64,
    /// Calls of the tool that is offered over MQTT.
    calls: u64,
    commands: u64,
    restarts: u64,
}

impl Seen {
    fn summary(&self) -> String {
        let Self { questions, answers, utterances, pictures, calls, commands, restarts } = self;
        format!(
            "{questions} questions, {answers} answers, {utterances} utterances, {pictures} pictures read, {calls} calls of a tool over \
             MQTT, {commands} commands, {restarts} restarts of the broker"
        )
    }

    /// What should have happened and did not.
    fn missing(&self) -> Vec<String> {
        let Self { answers, utterances, pictures, calls, commands, restarts, .. } = self;
        let counts = [
            ("answer", answers),
            ("utterance", utterances),
            ("picture", pictures),
            ("call of a tool over MQTT", calls),
            ("command", commands),
            ("restart of the broker", restarts),
        ];
        let missing = counts.into_iter().filter(|(_, count)| **count == 0);
        missing.map(|(what, _)| format!("there was no {what}")).collect()
    }
}

struct Load {
    folder: tempfile::TempDir,
    broker: Option<Broker>,
    daemon: Child,
    peer: Subscriber,
    seen: Seen,
    began: Instant,
    sampled: Instant,
    /// When the broker was last restarted, and the time from one restart to the next.
    restarted: Instant,
    restart_every: Duration,
}

impl Load {
    async fn start(restart_every: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let broker = Broker::start(folder.path(), port, true)?;
        let config = folder.path().join("outpost.toml");
        fs::write(&config, configuration(port))?;
        let peer = judge(&broker).await?;
        let daemon = start_daemon(&config, folder.path())?;
        let broker = Some(broker);
        let (seen, now) = (Seen::default(), Instant::now());
        let (began, sampled, restarted) = (now, now, now);
        let mut load =
            Self { folder, broker, daemon, peer, seen, began, sampled, restarted, restart_every };
        ensure!(load.comes_up(5 * TIMEOUT).await?, "the daemon does not start: {}", load.tail());
        load.offer().await?;
        load.began = Instant::now();
        Ok(load)
    }

    /// Waits for the daemon to say that it is there.
    async fn comes_up(&mut self, limit: Duration) -> Result<bool> {
        let is_online = |received: &Received| {
            received.topic.ends_with("/status") && received.payload == json!("online")
        };
        self.watch(limit, |received| is_online(received) && !received.retained).await
    }

    /// Goes on with the load until so much time has passed since the start.
    async fn go_on(&mut self, time: Duration) -> Result<()> {
        let kinds = questions()?;
        let mut turn = kinds.iter().cycle();
        while self.began.elapsed() < time {
            ensure!(self.daemon.try_wait()?.is_none(), "the daemon ended: {}", self.tail());
            if let Some(question) = turn.next() {
                self.ask(question).await?;
            }
            if self.seen.questions.is_multiple_of(OFFER_EVERY) {
                self.peer.send(Message { retain: true, ..Message::new(TOOL, "") }).await?;
                self.offer().await?;
            }
            if self.restarted.elapsed() > self.restart_every {
                self.restart_broker().await?;
            }
            if self.sampled.elapsed() > SAMPLE {
                self.sampled = Instant::now();
                self.row(self.usage()?, "");
            }
        }
        Ok(())
    }

    /// Asks, and waits for the answer. One that is swallowed by a restart of the broker does not come.
    async fn ask(&mut self, question: &Message) -> Result<()> {
        self.seen.questions += 1;
        self.peer.send(question.clone()).await?;
        let is_answer = |received: &Received| received.topic.ends_with("/answer");
        if self.watch(Duration::from_secs(20), is_answer).await? {
            self.seen.answers += 1;
        }
        self.watch(PAUSE, |_| false).await?;
        Ok(())
    }

    /// Takes what arrives, and answers calls; true as soon as what is waited for is there.
    async fn watch(&mut self, time: Duration, wanted: impl Fn(&Received) -> bool) -> Result<bool> {
        let end = Instant::now() + time;
        while let Some(received) =
            self.peer.next(end.saturating_duration_since(Instant::now())).await
        {
            self.take(&received).await?;
            if wanted(&received) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take(&mut self, received: &Received) -> Result<()> {
        let (topic, payload) = (&received.topic, &received.payload);
        let below = topic.strip_prefix("outpost/outpost/").unwrap_or(topic);
        match below {
            "event/voice" => self.seen.utterances += 1,
            "event/camera" => self.seen.pictures += 1,
            "tools/count_parcels/call" => {
                self.seen.calls += 1;
                let result = json!({ "call": payload["call"], "data": { "parcels": 3 } });
                self.peer.publish(&format!("{TOOL}/result"), &result.to_string()).await?;
            }
            _ if below.starts_with("command/") => self.seen.commands += 1,
            _ => {}
        }
        Ok(())
    }

    async fn offer(&self) -> Result<()> {
        let definition = json!({ "description": "Count the parcels at the door.", "idempotent": true,
            "parameters": { "type": "object", "properties": {} } });
        let message = Message::new(TOOL, definition.to_string());
        Ok(self.peer.send(Message { retain: true, ..message }).await?)
    }

    async fn restart_broker(&mut self) -> Result<()> {
        self.restarted = Instant::now();
        self.seen.restarts += 1;
        let Some(broker) = self.broker.take() else { bail!("there is no broker") };
        let (folder, port) = broker.end(self.seen.restarts.is_multiple_of(2))?;
        let broker = Broker::start(&folder, port, true)?;
        self.peer = judge(&broker).await?;
        self.broker = Some(broker);
        self.offer().await?;
        // It may have been quicker than the subscription.
        self.comes_up(SLOW).await?;
        Ok(())
    }

    /// What the daemon uses when it has nothing to do.
    async fn rest(&mut self, name: &str) -> Result<Usage> {
        self.senses("ON", "OFF").await?;
        self.watch(QUIET, |_| false).await?;
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(self.usage()?);
            self.watch(Duration::from_secs(1), |_| false).await?;
        }
        self.senses("OFF", "ON").await?;
        let median = |of: fn(&Usage) -> u64| {
            let mut values: Vec<u64> = samples.iter().map(of).collect();
            values.sort_unstable();
            values[SAMPLES / 2]
        };
        let usage = Usage {
            resident_kib: median(|usage| usage.resident_kib),
            descriptors: median(|usage| usage.descriptors),
            threads: median(|usage| usage.threads),
        };
        self.row(usage, &format!("  at rest {name}"));
        Ok(usage)
    }

    async fn senses(&self, mute: &str, camera: &str) -> Result<()> {
        self.peer.publish("outpost/outpost/set/mute", mute).await?;
        Ok(self.peer.publish("outpost/outpost/set/camera", camera).await?)
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.daemon.id()).context("the daemon is gone")
    }

    fn row(&self, usage: Usage, note: &str) {
        let Usage { resident_kib, descriptors, threads } = usage;
        let (minute, mib) =
            (self.began.elapsed().as_secs_f64() / 60.0, resident_kib as f64 / 1024.0);
        let questions = self.seen.questions;
        say!("{minute:6.1}  {mib:10.1}  {descriptors:11}  {threads:7}  {questions:9}{note}");
    }

    /// Ends the daemon politely, which it has to do well.
    fn end(&mut self) -> Result<()> {
        Command::new("kill").arg(self.daemon.id().to_string()).status().context("kill")?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.daemon.try_wait()? {
                ensure!(status.success(), "the daemon ended with {status}: {}", self.tail());
                return Ok(());
            }
            ensure!(asked.elapsed() < TIMEOUT, "the daemon does not end: {}", self.tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of what the daemon said.
    fn tail(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default();
        log.lines().rev().take(10).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn configuration(port: u16) -> String {
    let eval = root().join("models/nano/eval");
    let (sounds, pictures) = (eval.join("wav"), eval.join("ocr_heldout_fonts"));
    format!(
        "[mqtt]\ndevice = 'outpost'\nhost = '127.0.0.1'\nport = {port}\noutbox = 'outbox.redb'\n\
         [agent]\nmetrics_seconds = 5\n[policy]\nper_minute = 100000\n\
         [microphone]\npath = '{}'\nrepeat = true\n\
         [camera]\npath = '{}'\ninterval_ms = 3000\n\
         [audit]\npath = 'audit.jsonl'\nmax_mib = 1\nkeep = 2\n\
         [evidence]\nfolder = 'evidence'\nlimit_mb = 2\n\
         [[watch]]\nname = 'text'\nregex = '[A-Z]'\ncooldown_seconds = 10\n\
         [tools.memory]\npath = 'notes.json'\n\
         [tools.mqtt]\ntrusted = ['count_parcels']\nclass = 'open'\n",
        sounds.display(),
        pictures.display()
    )
}

fn start_daemon(config: &Path, folder: &Path) -> Result<Child> {
    let program = std::env::current_exe()?.with_file_name("outpost");
    let mut command = Command::new(&program);
    command.args(["run", "--config"]).arg(config).current_dir(root());
    command.env_remove("OUTPOST_MODEL").env("OUTPOST_CACHE", folder.join("cache"));
    command.stdout(Stdio::null()).stderr(File::create(folder.join("daemon.log"))?);
    command.spawn().with_context(|| {
        format!("{}: `cargo build --workspace --bins` makes it", program.display())
    })
}

/// What is asked, in turn: in writing, as calls, by sound and by picture.
fn questions() -> Result<Vec<Message>> {
    let eval = root().join("models/nano/eval");
    let ask = |question: Value| Message::new("outpost/outpost/ask", question.to_string());
    let call = |name: &str, arguments: Value| {
        ask(json!({ "call": { "name": name, "arguments": arguments } }))
    };
    let mut questions = Vec::new();
    for line in fs::read_to_string(eval.join("typed.jsonl"))?.lines().take(40) {
        let typed: Value = serde_json::from_str(line)?;
        questions.push(ask(json!({ "prompt": typed["text"], "stream": true })));
        questions.push(call("count_parcels", json!({})));
        questions.push(call("set_volume", json!({ "level": 30 })));
        questions.push(call("read_camera", json!({})));
        questions
            .push(call("remember", json!({ "key": "door", "text": "the key is below the mat" })));
        let file = |topic: &str, file: &str| {
            Ok::<_, std::io::Error>(Message::new(
                format!("outpost/outpost/{topic}"),
                fs::read(eval.join(file))?,
            ))
        };
        questions.push(file("ask/audio", "wav/heldout-espeak-000.wav")?);
        questions.push(file("ask/image", "ocr_heldout_fonts/000.png")?);
    }
    Ok(questions)
}
