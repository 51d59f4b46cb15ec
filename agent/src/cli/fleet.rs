//! `outpost fleet`: what the devices of a broker say of themselves.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outpost_agent_core::config::MqttConfig;
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_mqtt::topics::{self, FleetTopic};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::cli::broker_flags::BrokerFlags;
use crate::cli::out::out;

/// What is retained has arrived once nothing more comes for this long.
const QUIET: Duration = Duration::from_secs(2);
/// Longest wait for that.
const LONGEST: Duration = Duration::from_secs(30);

/// Look after many devices on one broker.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(StatusArgs),
}

/// List the devices: group, version, whether they are online, and whether what is desired is in force.
///
/// Ends with 0 if each of them is online and has everything in force that is desired of it, else with 1.
#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    broker: BrokerFlags,
    /// Only devices of this group, and those of the inventory.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// A file with the names of the devices that there should be, one a line: they are listed also if the broker knows nothing of them.
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Command::Status(args) = &args.command;
    let inventory = args.inventory()?;
    let mqtt = args.broker.mqtt()?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    let retained = runtime.block_on(retained(&mqtt))?;
    let devices = devices(&retained, &inventory, args.group.as_deref());
    if args.json {
        let rows: Vec<Value> = devices.iter().map(Device::as_json).collect();
        out!("{}", serde_json::to_string_pretty(&rows)?);
    } else if devices.is_empty() {
        out!("no device of that kind is known to this broker");
    } else {
        print(&devices);
    }
    let is_done = !devices.is_empty() && devices.iter().all(Device::is_done);
    Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl StatusArgs {
    fn inventory(&self) -> anyhow::Result<Vec<String>> {
        let Some(path) = &self.inventory else { return Ok(Vec::new()) };
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

/// What the broker retains of each device, and of each group under its name with `@`.
type Retained = BTreeMap<String, Known>;

#[derive(Debug, Default)]
struct Known {
    status: Option<Value>,
    info: Option<Value>,
    desired: Option<Value>,
    reported: Option<Value>,
}

async fn retained(mqtt: &MqttConfig) -> anyhow::Result<Retained> {
    let client = topics::passing_client("fleet");
    let broker = || {
        let host = mqtt.host.as_deref().unwrap_or_default();
        format!("the broker at {host}:{}", mqtt.port)
    };
    let filters = FleetTopic::filters();
    let mut subscriber = Subscriber::to_each(mqtt, &client, &filters).await.with_context(broker)?;
    let mut retained = Retained::new();
    let end = Instant::now() + LONGEST;
    loop {
        let next = timeout_at(end.min(Instant::now() + QUIET), subscriber.received());
        match next.await {
            Ok(Some(message)) => keep(&mut retained, message),
            Ok(None) => anyhow::bail!("{} ended the connection", broker()),
            Err(_) => return Ok(retained),
        }
    }
}

fn keep(retained: &mut Retained, message: Received) {
    let Some((name, topic)) = FleetTopic::parse(&message.topic) else { return };
    let known = retained.entry(name.to_owned()).or_default();
    let place = match topic {
        FleetTopic::Status => &mut known.status,
        FleetTopic::Info => &mut known.info,
        FleetTopic::Desired => &mut known.desired,
        FleetTopic::Reported => &mut known.reported,
    };
    // An empty message takes back what was retained.
    *place = Some(message.payload).filter(|payload| payload != "");
}

/// A device, as it is listed.
#[derive(Debug)]
struct Device {
    name: String,
    group: Option<String>,
    version: Option<String>,
    link: Link,
    /// Whether it ever said which settings are in force.
    has_reported: bool,
    /// What is desired of its group and of itself.
    rollouts: Vec<Rollout>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Online,
    Offline,
    /// The broker knows no last will of it: it was never there.
    Never,
}

/// A document that is desired of a device, or that it has although it is desired no more.
#[derive(Debug)]
struct Rollout {
    scope: &'static str,
    /// Its id; `None` if there is no document, `-` if it has none.
    desired: Option<String>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    InForce,
    Refused,
    Waiting,
}

fn devices(retained: &Retained, inventory: &[String], group: Option<&str>) -> Vec<Device> {
    let nothing = Known::default();
    let mut devices: BTreeMap<&str, &Known> =
        inventory.iter().map(|name| (name.as_str(), &nothing)).collect();
    let of_devices = retained.iter().filter(|(name, _)| !name.starts_with('@'));
    devices.extend(of_devices.map(|(name, known)| (name.as_str(), known)));
    let devices = devices.into_iter().map(|(name, known)| Device::new(name, known, retained));
    let is_wanted = |device: &Device| match (group, device.group.as_deref()) {
        (None, _) => true,
        (Some(group), Some(of_device)) => group == of_device,
        (Some(_), None) => inventory.contains(&device.name),
    };
    devices.filter(is_wanted).collect()
}

impl Device {
    fn new(name: &str, known: &Known, retained: &Retained) -> Self {
        let text = |value: &Option<Value>, field: &str| {
            value.as_ref().and_then(|value| value[field].as_str()).map(str::to_owned)
        };
        let group = text(&known.info, "group");
        let of_group =
            group.as_ref().and_then(|group| retained.get(&format!("@{group}"))?.desired.as_ref());
        let reported = |scope: &str| known.reported.as_ref().and_then(|value| value.get(scope));
        let scopes = [("group", of_group), ("device", known.desired.as_ref())];
        Self {
            name: name.to_owned(),
            version: text(&known.info, "version"),
            link: match &known.status {
                Some(status) if status == "online" => Link::Online,
                Some(_) => Link::Offline,
                None => Link::Never,
            },
            has_reported: known.reported.is_some(),
            rollouts: scopes
                .into_iter()
                .filter_map(|(scope, desired)| Rollout::new(scope, desired, reported(scope)))
                .collect(),
            group,
        }
    }

    /// Whether it is there and has in force what is desired of it.
    fn is_done(&self) -> bool {
        let in_force = |rollout: &Rollout| rollout.progress == Progress::InForce;
        self.link == Link::Online && self.has_reported && self.rollouts.iter().all(in_force)
    }

    fn as_json(&self) -> Value {
        let rollout = |rollout: &Rollout| {
            json!({ "scope": rollout.scope, "desired": rollout.desired,
                "progress": rollout.progress.as_str() })
        };
        json!({ "device": self.name, "group": self.group, "version": self.version,
            "link": self.link.as_str(), "reported": self.has_reported,
            "rollouts": self.rollouts.iter().map(rollout).collect::<Vec<_>>(),
            "done": self.is_done() })
    }

    fn row(&self) -> [String; 6] {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let list = |of: &dyn Fn(&Rollout) -> String| {
            let parts: Vec<String> = self.rollouts.iter().map(of).collect();
            if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
        };
        let desired = list(&|rollout| {
            format!("{} {}", rollout.scope, rollout.desired.as_deref().unwrap_or("nothing"))
        });
        let reported = if self.has_reported {
            list(&|rollout| format!("{} {}", rollout.scope, rollout.progress.as_str()))
        } else {
            "never".to_owned()
        };
        let link = self.link.as_str().to_owned();
        [self.name.clone(), or_none(&self.group), or_none(&self.version), link, desired, reported]
    }
}

impl Rollout {
    /// `None` if nothing is desired and nothing is in force.
    fn new(scope: &'static str, desired: Option<&Value>, reported: Option<&Value>) -> Option<Self> {
        let is_applied = reported.is_some_and(|reported| reported["applied"] == true);
        let Some(desired) = desired else {
            let progress = Progress::Waiting;
            return is_applied.then_some(Self { scope, desired: None, progress });
        };
        let id = desired.get("id");
        let is_of = |said: Option<&Value>| said.is_some_and(|said| said.get("desired") == id);
        let refused = reported.and_then(|reported| reported.get("refused"));
        let progress = if is_of(refused) {
            Progress::Refused
        } else if is_applied && is_of(reported) {
            Progress::InForce
        } else {
            Progress::Waiting
        };
        let id = id.and_then(Value::as_str).unwrap_or("-").to_owned();
        Some(Self { scope, desired: Some(id), progress })
    }
}

impl Link {
    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Never => "never seen",
        }
    }
}

impl Progress {
    fn as_str(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
        }
    }
}

fn print(devices: &[Device]) {
    let head = ["DEVICE", "GROUP", "VERSION", "LINK", "DESIRED", "REPORTED"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(devices.iter().map(Device::row)).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        out!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
