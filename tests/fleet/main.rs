//! `cargo xtask fleet`: many devices on one broker. Each has the daemon's own MQTT client and outbox, without model and senses.
//!
//! All come up, all report, a group is asked, and the broker is lost and comes back: how long each takes, what it costs, and
//! whether every report arrives.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use outpost_agent_core::task_group::TaskGroup;
use outpost_broker::Broker as Embedded;
use outpost_mqtt::session::MAX_PACKET;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, Proxy, Wire, free_port};
use outpost_tests::process::resident_kib;

use crate::device::Device;
use crate::tally::{Latencies, Reports};

/// Tells whoever runs it; where nobody listens any more, it goes on.
macro_rules! say {
    ($($text:tt)*) => { drop(writeln!(std::io::stdout(), $($text)*)) };
}

mod cluster;
mod device;
mod tally;

/// How long anything may take in which nothing happens.
const TIMEOUT: Duration = Duration::from_mins(2);
/// Questions that are under way at most.
const ASKED: usize = 32;
/// How long the broker is away in a storm.
const AWAY: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Options {
    /// Devices in all.
    #[arg(long, default_value_t = 1000)]
    devices: usize,
    /// Tool calls that each device reports, once at rest and once for each time that the broker is away.
    #[arg(long, default_value_t = 10)]
    reports: usize,
    /// Questions to the group.
    #[arg(long, default_value_t = 2000)]
    asks: usize,
    /// Times that the broker is lost.
    #[arg(long, default_value_t = 3)]
    storms: usize,
    /// A cluster of three nodes in place of mosquitto, which is killed and restarted node by node.
    #[arg(long, value_enum, conflicts_with = "embedded")]
    cluster: Option<Cluster>,
    /// The embedded broker in place of mosquitto; it has no shared subscriptions, so the devices are asked one by one.
    #[arg(long)]
    embedded: bool,
}

/// A clustered broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Cluster {
    /// `nats-server` of Debian, with `JetStream`.
    Nats,
}

/// The broker under test.
enum Server {
    Mosquitto(Broker, tempfile::TempDir),
    Embedded(SocketAddr),
}

impl Server {
    fn start(embedded: bool) -> Result<Self> {
        if embedded {
            return Ok(Self::Embedded(Embedded::start(Embedded::ANY, MAX_PACKET)?.address()));
        }
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        Ok(Self::Mosquitto(Broker::start(folder.path(), port, false)?, folder))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Mosquitto(broker, _) => broker.address(),
            Self::Embedded(address) => *address,
        }
    }

    /// Kills it and starts it again with nothing stored; the embedded one cannot be killed, and only its wires are cut.
    fn restart(self) -> Result<Self> {
        let Self::Mosquitto(broker, folder) = self else { return Ok(self) };
        let (path, port) = broker.end(false)?;
        Ok(Self::Mosquitto(Broker::start(&path, port, false)?, folder))
    }

    /// Memory, where it is a process of its own.
    fn resident_kib(&self) -> Option<u64> {
        match self {
            Self::Mosquitto(broker, _) => resident_kib(broker.pid()),
            Self::Embedded(_) => None,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Cluster::Nats) = options.cluster {
        return cluster::run(&options).await;
    }
    let task_group = TaskGroup::default();
    let mut server = Server::start(options.embedded)?;
    let proxy = Proxy::to(server.address()).await?;
    let mut watcher = watch(server.address()).await?;
    let mut reports = Reports::default();

    let before = resident_kib(std::process::id()).unwrap_or(0);
    let idle = server.resident_kib();
    let began = Instant::now();
    let devices: Vec<Device> = (0..options.devices)
        .map(|index| Device::start(index, proxy.address, &options, &task_group))
        .collect::<Result<_>>()?;
    say!("up: {}", all_up(&devices, began).await?);

    let (began, sent) = (Instant::now(), reports.send(&devices, options.reports));
    reports.await_all(async || watcher.next(TIMEOUT).await).await?;
    let took = began.elapsed();
    say!("{sent} reports: {took:.2?}, {:.0} a second", sent as f64 / took.as_secs_f64());

    say!("{} questions: {}", options.asks, ask(&server, &options).await?);
    let after = resident_kib(std::process::id()).unwrap_or(0);
    let each = after.saturating_sub(before) as f64 / options.devices as f64;
    say!("memory: {each:.0} KiB a device, its wire and its answers included");
    if let (Some(idle), Some(now)) = (idle, server.resident_kib()) {
        let each = now.saturating_sub(idle) as f64 / options.devices as f64;
        say!("memory: {each:.1} KiB a device at the broker");
    }

    for storm in 1..=options.storms {
        proxy.set(Wire::Cut);
        all_down(&devices).await?;
        server = server.restart()?;
        let sent = reports.send(&devices, options.reports);
        tokio::time::sleep(AWAY).await;
        watcher = watch(server.address()).await?;
        let began = Instant::now();
        proxy.set(Wire::Whole);
        // What the watcher has no room for waits at the broker.
        let up = all_up(&devices, began).await?;
        reports.await_all(async || watcher.next(TIMEOUT).await).await?;
        say!("storm {storm}: up {up}; {sent} kept reports after {:.2?}", began.elapsed());
    }

    task_group.disconnect.cancel();
    task_group.tracker.close();
    tokio::time::timeout(TIMEOUT, task_group.tracker.wait())
        .await
        .context("the devices do not end")?;
    ensure!(reports.faults.is_empty(), "{}", reports.faults.join("\n"));
    say!("{} reports: 0 lost, order kept on each topic", reports.arrived());
    Ok(())
}

async fn watch(broker: SocketAddr) -> Result<Subscriber> {
    Ok(Subscriber::connect(broker, "fleet-watcher", "outpost/+/tool/#").await?)
}

/// Waits for all connections; when half, 95 % and all were there.
async fn all_up(devices: &[Device], began: Instant) -> Result<String> {
    let mut marks = Vec::new();
    let wanted = [devices.len().div_ceil(2), devices.len() * 95 / 100, devices.len()];
    while marks.len() < wanted.len() {
        ensure!(began.elapsed() < TIMEOUT, "{} devices are not up", down(devices));
        let up = devices.len() - down(devices);
        while marks.len() < wanted.len() && up >= wanted[marks.len()] {
            marks.push(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(format!("half in {:.2?}, 95 % in {:.2?}, all in {:.2?}", marks[0], marks[1], marks[2]))
}

async fn all_down(devices: &[Device]) -> Result<()> {
    let began = Instant::now();
    while down(devices) < devices.len() {
        ensure!(began.elapsed() < TIMEOUT, "some devices do not see that the broker is gone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn down(devices: &[Device]) -> usize {
    devices.iter().filter(|device| !device.is_up()).count()
}

/// Asks the group, or where there is none each device in turn.
async fn ask(server: &Server, options: &Options) -> Result<String> {
    let mut asker =
        Subscriber::connect(server.address(), "fleet-asker", "outpost/+/answer").await?;
    let mut latencies = Latencies::default();
    let began = Instant::now();
    for question in 0..options.asks {
        while latencies.open() >= ASKED {
            latencies.take(asker.next(TIMEOUT).await.context("no answer")?);
        }
        let topic = if options.embedded {
            format!("outpost/{}/ask", device::name(question % options.devices))
        } else {
            "outpost/@fleet/ask".to_owned()
        };
        let text = format!(r#"{{"prompt": "how are you?", "transaction": "{question}"}}"#);
        latencies.asked(question);
        asker.publish(&topic, &text).await?;
    }
    while latencies.open() > 0 {
        latencies.take(asker.next(TIMEOUT).await.context("no answer")?);
    }
    Ok(latencies.summary(began.elapsed(), options.devices))
}
