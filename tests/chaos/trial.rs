//! One run: questions are asked and answered while faults happen.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use outpost_agent_core::config::Version;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, Proxy, Wire, free_port};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::daemon::{self, ASKED, Daemon, GO, LATE, LONG, MAX_PACKET, SECRET};
use crate::disk::Disk;
use crate::fault::{Deck, Fault};
use crate::ledger::Ledger;
use crate::{judge, say};

/// How long an answer may take after the last fault, and what is to come of a fault.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The daemon, the broker, the wire between them, and who watches.
pub(crate) struct Trial {
    folder: tempfile::TempDir,
    disk: Option<Disk>,
    broker: Option<Broker>,
    proxy: Proxy,
    version: Version,
    daemon: Daemon,
    judge: Subscriber,
    ledger: Ledger,
    random: StdRng,
    deck: Deck,
    kills: usize,
    unanswered: u64,
    /// Questions that faults ask.
    asked: u64,
}

impl Trial {
    pub(crate) async fn start(seed: u64, faults: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let rules = format!("topic readwrite #\ntopic deny outpost/outpost/tool/{SECRET}\n");
        std::fs::write(folder.path().join("acl"), rules)?;
        let broker = start_broker(folder.path(), port)?;
        let proxy = Proxy::to(broker.address()).await?;
        let mut kinds = Fault::ALL.to_vec();
        let disk = Disk::mount(&folder.path().join("disk"));
        if disk.is_none() {
            say!("no small disk can be mounted here: the fault `disk full` is left out");
            kinds.retain(|kind| *kind != Fault::DiskFull);
        }
        std::fs::create_dir_all(folder.path().join("disk"))?;
        let version = Version::default();
        daemon::configure(folder.path(), proxy.address.port(), version)?;
        if daemon::has_clock() {
            daemon::put_clock(folder.path(), 0)?;
        } else {
            say!("the package faketime is not installed: the fault `clock put` is left out");
            kinds.retain(|kind| *kind != Fault::Clock);
        }
        let deck = Deck::new(kinds);
        ensure!(
            faults >= deck.kinds(),
            "there are {} kinds of faults: give --faults so many, or more",
            deck.kinds()
        );
        let judge = judge(&broker).await?;
        let daemon = Daemon::start(folder.path())?;
        let random = StdRng::seed_from_u64(seed);
        let (ledger, broker) = (Ledger::default(), Some(broker));
        let (kills, unanswered, asked) = (0, 0, 0);
        Ok(Self {
            folder,
            disk,
            broker,
            proxy,
            version,
            daemon,
            judge,
            ledger,
            random,
            deck,
            kills,
            unanswered,
            asked,
        })
    }

    /// The next faults.
    pub(crate) fn deal(&mut self, count: u64) -> Vec<Fault> {
        (0..count).filter_map(|_| self.deck.deal(&mut self.random)).collect()
    }

    /// Asks, lets faults happen meanwhile, and waits for the answer. A question that a fault swallowed is asked again under another
    /// name, as the contract says.
    pub(crate) async fn ask(&mut self, ask: u64, faults: &[Fault]) -> Result<()> {
        let mut faults = faults.iter();
        let mut started = Instant::now();
        for attempt in 0.. {
            ensure!(started.elapsed() < 3 * TIMEOUT, "no answer: {}", self.tail());
            let transaction = format!("{ask}-{attempt}");
            self.put("loud", &transaction).await?;
            for fault in faults.by_ref() {
                let moment = self.random.random_range(0..20);
                self.watch(Duration::from_millis(moment), None).await;
                self.suffer(*fault).await?;
                self.deck.happened(*fault);
                started = Instant::now();
            }
            if self.watch(Duration::from_secs(2), Some(&transaction)).await {
                return Ok(());
            }
            self.unanswered += 1;
            ensure!(!self.daemon.has_ended(), "the daemon ended by itself: {}", self.tail());
        }
        Ok(())
    }

    async fn put(&self, prompt: &str, transaction: &str) -> Result<()> {
        let question = format!(r#"{{"prompt": "{prompt}", "transaction": "{transaction}"}}"#);
        Ok(self.judge.publish("outpost/outpost/ask", &question).await?)
    }

    /// Puts a question of a fault's own; its transaction.
    async fn put_own(&mut self, prompt: &str) -> Result<String> {
        self.asked += 1;
        let transaction = format!("{prompt}-{}", self.asked);
        self.put(prompt, &transaction).await?;
        Ok(transaction)
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
                let version = if self.random.random() { Version::V311 } else { Version::V5 };
                self.restart_daemon(version)?;
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
            Fault::HalfOpen => self.half_open(time).await?,
            Fault::Stale => self.be_late().await?,
            Fault::Oversized => self.send_what_is_never_taken(Version::V311, LONG).await?,
            Fault::Refused => self.send_what_is_never_taken(Version::V5, SECRET).await?,
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

    fn restart_daemon(&mut self, version: Version) -> Result<()> {
        self.kills += 1;
        self.daemon.kill()?;
        self.version = version;
        daemon::configure(self.folder.path(), self.proxy.address.port(), version)?;
        self.ledger.restarted();
        self.daemon = Daemon::start(self.folder.path())?;
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
        let broker = start_broker(&folder, port)?;
        self.judge = judge(&broker).await?;
        self.broker = Some(broker);
        self.proxy.set(Wire::Whole);
        Ok(())
    }

    /// Waits until the daemon has a connection.
    async fn connected(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.proxy.is_used() {
            ensure!(started.elapsed() < TIMEOUT, "the daemon does not connect: {}", self.tail());
            self.watch(Duration::from_millis(20), None).await;
        }
        Ok(())
    }

    /// Nothing comes back from the broker. One time in three this lasts until the daemon gives the connection up.
    async fn half_open(&mut self, time: Duration) -> Result<()> {
        self.connected().await?;
        let before = self.proxy.ended();
        self.proxy.set(Wire::HalfOpen);
        self.watch(time, None).await;
        if self.random.random_ratio(1, 3) {
            let started = Instant::now();
            while self.proxy.ended() == before {
                ensure!(started.elapsed() < TIMEOUT, "a dead connection is kept: {}", self.tail());
                self.watch(Duration::from_millis(100), None).await;
            }
        }
        // What came back meanwhile is lost, as on a real link.
        self.proxy.set(Wire::Cut);
        self.watch(Duration::from_millis(50), None).await;
        self.proxy.set(Wire::Whole);
        Ok(())
    }

    /// The model calls tools when the connection is gone, or silent, and their time passes; none of it may arrive later, which the
    /// ledger sees.
    async fn be_late(&mut self) -> Result<()> {
        let started = Instant::now();
        let before = self.ledger.undelivered();
        let (asked, go) = (self.folder.path().join(ASKED), self.folder.path().join(GO));
        while self.ledger.undelivered() == before {
            ensure!(started.elapsed() < TIMEOUT, "no call was late: {}", self.tail());
            for file in [&asked, &go] {
                std::fs::remove_file(file).ok();
            }
            let transaction = self.put_own(LATE).await?;
            let put = Instant::now();
            while !asked.exists() && put.elapsed() < Duration::from_secs(3) {
                self.watch(Duration::from_millis(20), None).await;
            }
            if !asked.exists() {
                continue;
            }
            self.proxy.set(if self.random.random() { Wire::Cut } else { Wire::Stalled });
            self.watch(Duration::from_millis(100), None).await;
            std::fs::write(&go, "")?;
            // Longer than a tool may take.
            self.watch(Duration::from_millis(2500), None).await;
            self.proxy.set(Wire::Cut);
            self.watch(Duration::from_secs(1), None).await;
            self.proxy.set(Wire::Whole);
            self.watch(Duration::from_secs(10), Some(&transaction)).await;
        }
        Ok(())
    }

    /// Has the daemon report what the broker never takes. What comes after it must get through, and it must be counted as refused or
    /// set aside.
    async fn send_what_is_never_taken(&mut self, version: Version, prompt: &str) -> Result<()> {
        if self.version != version {
            self.restart_daemon(version)?;
        }
        self.connected().await?;
        let started = Instant::now();
        let before = self.ledger.never_taken();
        let mut is_answered = false;
        while !is_answered || self.ledger.never_taken() <= before {
            let missing = if is_answered { "not set aside" } else { "in the way" };
            ensure!(
                started.elapsed() < 2 * TIMEOUT,
                "what is never taken is {missing}: {}",
                self.tail()
            );
            if is_answered {
                self.watch(Duration::from_millis(200), None).await;
            } else {
                let transaction = self.put_own(prompt).await?;
                is_answered = self.watch(Duration::from_secs(5), Some(&transaction)).await;
            }
        }
        Ok(())
    }

    /// The end of what the daemon said.
    fn tail(&self) -> String {
        let log =
            std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(10).collect();
        lines.join("\n")
    }

    pub(crate) async fn finish(mut self, faults: u64, elapsed: Duration) -> Result<()> {
        self.watch(Duration::from_secs(3), None).await;
        let journal = std::fs::read_to_string(self.folder.path().join("journal"))?;
        let mut verdict = self.ledger.verdict(self.kills, journal.lines().count());
        verdict.extend(self.deck.missing());
        say!(
            "{} calls reported ({}), {} questions asked again, {} reports came twice, {elapsed:.0?}",
            self.ledger.calls(),
            self.ledger.outcomes(),
            self.unanswered,
            self.ledger.repeated
        );
        for fault in &verdict {
            say!("WRONG: {fault}");
        }
        ensure!(verdict.is_empty(), "{} things are wrong", verdict.len());
        say!("0 reports lost, 0 calls executed twice, 0 executed late, order kept on each topic");
        say!("{faults} faults: {} ({} kills in all)", self.deck.counts(), self.kills);
        Ok(())
    }
}

fn start_broker(folder: &Path, port: u16) -> Result<Broker> {
    let lines = format!("max_packet_size {MAX_PACKET}\nacl_file {}/acl", folder.display());
    Broker::ruled(folder, port, true, &lines).context("the broker")
}
