//! `cargo xtask chaos`: the daemon and mosquitto under random faults. Nothing may be lost, done twice, or out of order.

mod crash;
mod daemon;
mod ledger;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, Proxy, Wire};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::daemon::{CALLS, Daemon};
use crate::ledger::Ledger;

/// Tells whoever runs it; where nobody listens any more, it goes on.
macro_rules! say {
    ($($text:tt)*) => { drop(writeln!(std::io::stdout(), $($text)*)) };
}
pub(crate) use say;

/// How long an answer may take after the last fault.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Parser)]
struct Options {
    /// Tool calls in all.
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
    /// Faults in all.
    #[arg(long, default_value_t = 500)]
    faults: u64,
    /// Of the random faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(clap::Subcommand)]
enum Role {
    /// The daemon under test.
    Daemon {
        /// Where its configuration and journal are.
        folder: PathBuf,
    },
    /// Kills the daemon in the middle of a tool, and looks at what is said and done of that call.
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL for the daemon.
    Kill,
    /// The broker ends politely and comes back with what it had.
    BrokerSaved,
    /// The broker is killed and comes back knowing nothing.
    BrokerBlank,
    /// The connection is cut.
    Cut,
    /// The connection stands, and nothing comes through.
    Stall,
    /// Few bytes at a time come through.
    Slow,
    /// The disk of the outbox is full for a while.
    DiskFull,
    /// The clock on the wall is put forward or back by up to a day, and stays so.
    Clock,
}

const FAULTS: [Fault; 8] = [
    Fault::Kill,
    Fault::BrokerSaved,
    Fault::BrokerBlank,
    Fault::Cut,
    Fault::Stall,
    Fault::Slow,
    Fault::DiskFull,
    Fault::Clock,
];

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.role {
        Some(Role::Daemon { folder }) => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            return daemon::run(&folder).await;
        }
        Some(Role::Crash) => return crash::run().await,
        None => {}
    }
    let mut trial = Trial::start(options.seed).await?;
    let asks = options.calls.div_ceil(CALLS);
    let started = Instant::now();
    let mut done = 0;
    for ask in 0..asks {
        let due = options.faults * (ask + 1) / asks;
        let faults: Vec<Fault> = (done..due).map(|_| trial.choose()).collect();
        done = due;
        trial.ask(ask, &faults).await.with_context(|| format!("question {ask}, {faults:?}"))?;
        if ask % 100 == 99 {
            say!("{} questions, {done} faults, {:?}", ask + 1, started.elapsed());
        }
    }
    trial.finish(done, started.elapsed()).await
}

/// One run: the daemon, the broker, the wire between them, and who watches.
struct Trial {
    folder: tempfile::TempDir,
    disk: Option<Disk>,
    broker: Option<Broker>,
    proxy: Proxy,
    daemon: Daemon,
    judge: Subscriber,
    ledger: Ledger,
    random: StdRng,
    kills: usize,
    unanswered: u64,
}

impl Trial {
    async fn start(seed: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let broker = Broker::start(folder.path(), port, true)?;
        let proxy = Proxy::to(broker.address()).await?;
        let disk = Disk::mount(&folder.path().join("disk"));
        if disk.is_none() {
            say!("no small disk can be mounted here: the fault `disk full` is left out");
        }
        std::fs::create_dir_all(folder.path().join("disk"))?;
        let config = format!(
            "[mqtt]\ndevice = \"outpost\"\nhost = \"127.0.0.1\"\nport = {}\nkeep_alive_seconds = 5\noutbox = \"disk/outbox.redb\"\n",
            proxy.address.port()
        );
        std::fs::write(folder.path().join("outpost.toml"), config)?;
        if daemon::has_clock() {
            daemon::put_clock(folder.path(), 0)?;
        } else {
            say!("the package faketime is not installed: the fault `clock` is left out");
        }
        let judge = judge(&broker).await?;
        let daemon = Daemon::start(folder.path())?;
        let random = StdRng::seed_from_u64(seed);
        let ledger = Ledger::default();
        let broker = Some(broker);
        let (kills, unanswered) = (0, 0);
        Ok(Self { folder, disk, broker, proxy, daemon, judge, ledger, random, kills, unanswered })
    }

    fn choose(&mut self) -> Fault {
        loop {
            let fault = FAULTS.choose(&mut self.random).copied().unwrap_or(Fault::Cut);
            let possible = match fault {
                Fault::DiskFull => self.disk.is_some(),
                Fault::Clock => daemon::has_clock(),
                _ => true,
            };
            if possible {
                return fault;
            }
        }
    }

    /// Asks, lets faults happen meanwhile, and waits for the answer. A question that a fault swallowed is asked again under another
    /// name, as the contract says.
    async fn ask(&mut self, ask: u64, faults: &[Fault]) -> Result<()> {
        let started = Instant::now();
        let mut faults = faults.iter();
        for attempt in 0.. {
            ensure!(started.elapsed() < 3 * TIMEOUT, "no answer: {}", self.tail());
            let transaction = format!("{ask}-{attempt}");
            let question = format!(r#"{{"prompt": "loud", "transaction": "{transaction}"}}"#);
            self.judge.publish("outpost/outpost/ask", &question).await?;
            for fault in faults.by_ref() {
                let moment = self.random.random_range(0..20);
                self.watch(Duration::from_millis(moment), None).await;
                self.suffer(*fault).await?;
            }
            if self.watch(Duration::from_secs(2), Some(&transaction)).await {
                return Ok(());
            }
            self.unanswered += 1;
            ensure!(!self.daemon.has_ended(), "the daemon ended by itself: {}", self.tail());
        }
        Ok(())
    }

    /// Takes what arrives; true as soon as the answer that is waited for is there.
    async fn watch(&mut self, time: Duration, transaction: Option<&str>) -> bool {
        let end = Instant::now() + time;
        while let Some(received) =
            self.judge.next(end.saturating_duration_since(Instant::now())).await
        {
            let answered = self.ledger.take(&received);
            if transaction.is_some() && answered.as_deref() == transaction {
                return true;
            }
        }
        false
    }

    async fn suffer(&mut self, fault: Fault) -> Result<()> {
        let time = Duration::from_millis(self.random.random_range(50..1500));
        match fault {
            Fault::Kill => {
                self.kills += 1;
                self.daemon.kill()?;
                self.daemon = Daemon::start(self.folder.path())?;
            }
            Fault::BrokerSaved | Fault::BrokerBlank => self.restart_broker(fault).await?,
            Fault::Cut | Fault::Stall | Fault::Slow => {
                self.proxy.set(match fault {
                    Fault::Cut => Wire::Cut,
                    Fault::Stall => Wire::Stalled,
                    _ => Wire::Slow,
                });
                self.watch(time, None).await;
                self.proxy.set(Wire::Whole);
            }
            Fault::Clock => {
                let offset = self.random.random_range(-86_400..86_400);
                daemon::put_clock(self.folder.path(), offset)?;
                self.ledger.clock_was_put();
            }
            Fault::DiskFull => {
                self.disk.as_ref().map(Disk::fill).transpose()?;
                self.watch(time, None).await;
                self.disk.as_ref().map(Disk::empty).transpose()?;
                // Until the file works again, reports are in memory; a kill in that time would rightly lose them.
                self.watch(Duration::from_secs(12), None).await;
            }
        }
        Ok(())
    }

    /// The daemon's connection ends first, and who watches is back before it, so that what the broker has taken is seen.
    async fn restart_broker(&mut self, fault: Fault) -> Result<()> {
        self.proxy.set(Wire::Cut);
        self.watch(Duration::from_millis(100), None).await;
        let Some(broker) = self.broker.take() else { bail!("there is no broker") };
        let saved = fault == Fault::BrokerSaved;
        let (folder, port) = broker.end(saved)?;
        if !saved {
            std::fs::remove_file(folder.join("mosquitto.db")).ok();
        }
        let broker = Broker::start(&folder, port, true)?;
        self.judge = judge(&broker).await?;
        self.broker = Some(broker);
        self.proxy.set(Wire::Whole);
        Ok(())
    }

    /// The end of what the daemon said.
    fn tail(&self) -> String {
        let log =
            std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        lines.join("\n")
    }

    async fn finish(mut self, faults: u64, elapsed: Duration) -> Result<()> {
        self.watch(Duration::from_secs(3), None).await;
        let journal = std::fs::read_to_string(self.folder.path().join("journal"))?;
        let verdict = self.ledger.verdict(self.kills, journal.lines().count());
        say!(
            "{} calls reported, {faults} faults, {} of them kills, {} questions asked again, {} reports came twice, {elapsed:.0?}",
            self.ledger.calls(),
            self.kills,
            self.unanswered,
            self.ledger.repeated
        );
        for fault in &verdict {
            say!("WRONG: {fault}");
        }
        ensure!(verdict.is_empty(), "{} things are wrong", verdict.len());
        say!("0 reports lost, 0 calls executed twice, order kept on each topic");
        Ok(())
    }
}

async fn judge(broker: &Broker) -> Result<Subscriber> {
    let name = format!("judge-{}", std::process::id());
    Ok(Subscriber::connect(broker.address(), &name, "outpost/outpost/#").await?)
}

/// A small disk of its own, for the outbox; unmounted on drop.
struct Disk {
    place: PathBuf,
}

impl Disk {
    /// None where that is not allowed.
    fn mount(place: &Path) -> Option<Self> {
        std::fs::create_dir_all(place).ok()?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "chaos"]).arg(place);
        let mounted = mount.stderr(std::process::Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| Self { place: place.to_owned() })
    }

    fn fill(&self) -> Result<()> {
        let ballast = vec![0; 16 << 20];
        // It takes what there is, and fails.
        std::fs::write(self.place.join("ballast"), ballast)
            .err()
            .context("the disk is not full")?;
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.place.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg("-l").arg(&self.place).status().ok();
    }
}
