//! A cluster of three NATS servers in place of one broker: devices spread over its nodes, a node that is killed and comes back,
//! and a rolling restart.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outpost_agent_core::task_group::TaskGroup;
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_tests::broker::{Proxy, Server};
use outpost_tests::process::resident_kib;
use tokio::sync::mpsc;

use crate::device::{self, Device};
use crate::tally::Reports;
use crate::{Options, TIMEOUT, all_up};

/// Nodes: the fewest of which one may be missing.
const NODES: usize = 3;
/// How long a node is away.
const AWAY: Duration = Duration::from_secs(5);
/// Messages that wait for the fleet's own look; what finds no room waits at the nodes.
const SEEN: usize = 4096;
/// Between two questions to a device that doesn't answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// One server of the cluster.
struct Node {
    number: usize,
    clients: u16,
    routes: Vec<u16>,
    mqtt: SocketAddr,
    folder: tempfile::TempDir,
    server: Option<Server>,
}

impl Node {
    fn all() -> Result<Vec<Self>> {
        // All are bound at once, so that no two are the same.
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let taken: Vec<_> = (0..3 * NODES).map(|_| listen()).collect::<Result<_, _>>()?;
        let ports: Vec<u16> = taken
            .iter()
            .map(|listener| Ok(listener.local_addr()?.port()))
            .collect::<Result<_>>()?;
        let node = |number: usize| {
            Ok(Self {
                number,
                clients: ports[number],
                routes: ports[NODES..2 * NODES].to_vec(),
                mqtt: SocketAddr::from((Ipv4Addr::LOCALHOST, ports[2 * NODES + number])),
                folder: tempfile::tempdir()?,
                server: None,
            })
        };
        (0..NODES).map(node).collect()
    }

    /// Starts it on what it has kept. All is on all nodes: what a subscription has still to get as well, since a session whose
    /// state is on a node that is away can neither go on nor be ended.
    fn start(&mut self) -> Result<()> {
        let Self { number, clients, routes, mqtt, folder, .. } = self;
        let place = folder.path();
        let others: Vec<_> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let text = format!(
            "server_name: node{number}\nlisten: \"127.0.0.1:{clients}\"\n\
             jetstream {{ store_dir: \"{}\" }}\n\
             cluster {{ name: outpost, listen: \"127.0.0.1:{}\", routes: [{}] }}\n\
             mqtt {{ listen: \"{mqtt}\", stream_replicas: {NODES}, consumer_replicas: {NODES}, consumer_memory_storage: true }}\n",
            place.display(),
            routes[*number],
            others.join(", ")
        );
        std::fs::write(place.join("nats.conf"), text)?;
        self.server = Some(Server::start("nats-server", place, "nats.conf")?);
        Ok(())
    }

    fn stop(&mut self, politely: bool) -> Result<()> {
        self.server.take().map_or(Ok(()), |server| server.end(politely))
    }

    /// Waits until it takes MQTT clients, which needs a leader of the cluster.
    async fn ready(&self) -> Result<()> {
        let began = Instant::now();
        let name = format!("fleet-probe-{}", self.number);
        while let Err(fault) = Subscriber::connect(self.mqtt, &name, "outpost/probe").await {
            ensure!(began.elapsed() < TIMEOUT, "node {} takes no clients: {fault}", self.number);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// Somebody who sees what the devices publish, on whichever nodes there are. What several nodes bring comes several times.
struct Watchers {
    received: mpsc::Receiver<Received>,
}

impl Watchers {
    fn on(nodes: &[Node], filter: &'static str, tasks: &TaskGroup) -> Self {
        let (sender, received) = mpsc::channel(SEEN);
        for node in nodes {
            let (address, sender) = (node.mqtt, sender.clone());
            let name = format!("fleet-watcher-{}-{}", node.number, &filter[filter.len() - 1..]);
            tasks.spawn(async move {
                while !sender.is_closed() {
                    if let Ok(mut watcher) = Subscriber::connect(address, &name, filter).await {
                        while let Some(message) = watcher.received().await {
                            drop(sender.send(message).await);
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        Self { received }
    }

    async fn next(&mut self, limit: Duration) -> Option<Received> {
        tokio::time::timeout(limit, self.received.recv()).await.ok().flatten()
    }
}

/// Devices, and who asks and watches them.
struct Fleet {
    nodes: Vec<Node>,
    devices: Vec<Device>,
    seen: Watchers,
    answers: Watchers,
    reports: Reports,
    questions: usize,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let tasks = TaskGroup::default();
    let mut nodes = Node::all()?;
    nodes.iter_mut().try_for_each(Node::start)?;
    for node in &nodes {
        node.ready().await?;
    }
    let mut ways = Vec::new();
    for first in 0..NODES {
        let order = (0..NODES).map(|step| nodes[(first + step) % NODES].mqtt);
        ways.push(Proxy::to_first_of(order.collect()).await?);
    }
    let seen = Watchers::on(&nodes, "outpost/+/tool/#", &tasks);
    let answers = Watchers::on(&nodes, "outpost/+/answer", &tasks);
    let began = Instant::now();
    let devices: Vec<Device> = (0..options.devices)
        .map(|index| Device::start(index, ways[index % NODES].address, options, &tasks))
        .collect::<Result<_>>()?;
    say!("{NODES} nodes; up: {}", all_up(&devices, began).await?);
    let mut fleet =
        Fleet { nodes, devices, seen, answers, reports: Reports::default(), questions: 0 };

    fleet.report(options.reports, "at rest").await?;
    say!("every device answers within {:.2?}", fleet.ask_all().await?);
    fleet.kill(options.reports).await?;
    fleet.restart_in_turn(options.reports).await?;

    for node in &fleet.nodes {
        let memory = node.server.as_ref().and_then(|server| resident_kib(server.pid()));
        let memory = memory.unwrap_or(0);
        say!("node {}: {} MiB", node.number, memory / 1024);
    }
    tasks.disconnect.cancel();
    ensure!(fleet.reports.faults.is_empty(), "{}", fleet.reports.faults.join("\n"));
    say!("{} reports: 0 lost, order kept on each topic", fleet.reports.arrived());
    Ok(())
}

impl Fleet {
    async fn report(&mut self, each: usize, when: &str) -> Result<()> {
        let (began, sent) = (Instant::now(), self.reports.send(&self.devices, each));
        let Self { reports, seen, .. } = self;
        reports.await_all(async || seen.next(TIMEOUT).await).await?;
        let took = began.elapsed();
        say!("{sent} reports {when}: {took:.2?}, {:.0} a second", sent as f64 / took.as_secs_f64());
        Ok(())
    }

    /// A node dies; the others go on with its devices, and it comes back.
    async fn kill(&mut self, reports: usize) -> Result<()> {
        self.nodes[0].stop(false)?;
        let began = Instant::now();
        let sent = self.reports.send(&self.devices, reports);
        say!("node 0 killed: every device answers within {:.2?}", self.ask_all().await?);
        say!("  up: {}", all_up(&self.devices, began).await?);
        let Self { reports, seen, .. } = self;
        reports.await_all(async || seen.next(TIMEOUT).await).await?;
        say!("  {sent} kept reports after {:.2?}", began.elapsed());
        let began = Instant::now();
        self.nodes[0].start()?;
        self.nodes[0].ready().await?;
        say!("  node 0 takes clients again after {:.2?}", began.elapsed());
        Ok(())
    }

    /// Each node ends politely and starts again, while the devices report.
    async fn restart_in_turn(&mut self, reports: usize) -> Result<()> {
        let began = Instant::now();
        let mut sent = 0;
        for index in 0..NODES {
            self.nodes[index].stop(true)?;
            sent += self.reports.send(&self.devices, reports);
            tokio::time::sleep(AWAY).await;
            self.nodes[index].start()?;
            self.nodes[index].ready().await?;
        }
        say!("rolling restart: {:.2?}", began.elapsed());
        let began = Instant::now();
        say!("  every device answers within {:.2?} of its end", self.ask_all().await?);
        let Self { reports, seen, .. } = self;
        reports.await_all(async || seen.next(TIMEOUT).await).await?;
        say!("  {sent} reports of its time were there {:.2?} after it", began.elapsed());
        Ok(())
    }

    /// Asks every device by name, and those that don't answer again; how long until the last has.
    async fn ask_all(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let mut open: BTreeSet<usize> = (0..self.devices.len()).collect();
        while !open.is_empty() {
            ensure!(began.elapsed() < TIMEOUT, "{} devices do not answer", open.len());
            // Asked where there is a node: the last is never the one that was killed.
            let Ok(asker) =
                Subscriber::connect(self.nodes[NODES - 1].mqtt, "fleet-asker", "outpost/none")
                    .await
            else {
                continue;
            };
            let round = self.questions;
            self.questions += 1;
            for index in &open {
                let topic = format!("outpost/{}/ask", device::name(*index));
                let ask =
                    format!(r#"{{"prompt": "how are you?", "transaction": "{index} {round}"}}"#);
                asker.publish(&topic, &ask).await?;
            }
            let until = Instant::now() + ASK_AGAIN;
            while !open.is_empty()
                && let Some(left) = until.checked_duration_since(Instant::now())
                && let Some(answer) = self.answers.next(left).await
            {
                let transaction = answer.payload["transaction"].as_str().unwrap_or_default();
                let index = transaction.split(' ').next().and_then(|index| index.parse().ok());
                open.remove(&index.unwrap_or(usize::MAX));
            }
        }
        Ok(began.elapsed())
    }
}
