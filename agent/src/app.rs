//! The daemon: build, spawn, drain.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::agent::{Agent, Inputs};
use outpost_agent_core::audit::{Audit, AuditError};
use outpost_agent_core::camera::Camera;
use outpost_agent_core::config::{Config, LiveSettings, MqttConfig, RuleError};
use outpost_agent_core::confirm::Confirmations;
use outpost_agent_core::dispatch::{Dispatcher, HostParts};
use outpost_agent_core::event::Inbound;
use outpost_agent_core::evidence::{Evidence, EvidenceError};
use outpost_agent_core::heartbeat::{Heartbeats, Pulse};
use outpost_agent_core::live::Settings;
use outpost_agent_core::memory::MemoryError;
use outpost_agent_core::metrics::Gauges;
use outpost_agent_core::microphone::Microphone;
use outpost_agent_core::model_thread::{EngineModel, Model, ModelError, ModelHandle, ModelThread};
use outpost_agent_core::report::{Counts, Intent, Sink};
use outpost_agent_core::scene_reader::SceneReader;
use outpost_agent_core::task_group::TaskGroup;
use outpost_agent_core::turn::Turns;
use outpost_agent_core::watch::WatchList;
use outpost_agent_core::{dispatch, live, memory, metrics, prompting, toolset};
use outpost_broker::{Broker, BrokerError};
use outpost_mqtt::client::{LinkStatus, MqttError, Publisher};
use outpost_mqtt::session::MAX_PACKET;
use outpost_mqtt::{client, transport};
use outpost_runtime::Capabilities;
use outpost_senses::camera::pipeline::Shared;
use outpost_senses::microphone::gate::MicGate;
use outpost_senses::microphone::start_microphone;
use outpost_senses::{SenseError, camera};
use outpost_tools::{AddError, Registry};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::firmware::Firmware;
use crate::toolbox::{Site, ToolboxError};

/// Queue of the model.
const MODEL_QUEUE: usize = 16;
/// Queue from MQTT; when full, new messages are rejected. Each may hold media.
const INBOUND_CAPACITY: usize = 16;

/// How often the embedded broker is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Minimum time to wait for the model at shutdown: a cancelled request stops after a layer.
const LAST_LAYER: Duration = Duration::from_millis(500);

/// Why the daemon cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Not enough memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The MQTT client.
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    /// The microphone or the camera.
    #[error(transparent)]
    Sense(#[from] SenseError),
    /// The watch list.
    #[error(transparent)]
    Watch(#[from] RuleError),
    /// The folder for evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The tools.
    #[error(transparent)]
    Tools(#[from] AddError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The tools of the configuration.
    #[error(transparent)]
    Toolbox(#[from] ToolboxError),
}

impl AppError {
    /// Whether the same would happen at the next start, until a person acts.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Watch(_) | Self::Mqtt(MqttError::Transport(_)))
    }
}

/// A daemon with model and broker, not yet running.
#[derive(Debug)]
pub struct App {
    config: Config,
    started: Instant,
    parts: Heartbeats,
    model: ModelThread,
    tools: Arc<Registry>,
    broker: Option<Broker>,
}

impl App {
    /// Loads the packed model in `dir` and starts the embedded broker if no other is configured.
    ///
    /// # Errors
    /// If the model cannot be loaded or the broker cannot be started.
    pub async fn build(config: Config, dir: &Path) -> Result<Self, AppError> {
        let (dir, options) = (dir.to_owned(), memory::engine_options(dir, &config.model)?);
        let capable = config.model.capabilities;
        let load =
            move || Ok(Box::new(EngineModel::load(&dir, &options, capable)?) as Box<dyn Model>);
        Self::with_model(config, load).await
    }

    /// As [`App::build`], with a model from `load`.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn with_model<L>(config: Config, load: L) -> Result<Self, AppError>
    where
        L: FnOnce() -> outpost_runtime::Result<Box<dyn Model>> + Send + 'static,
    {
        let tools = Arc::new(toolset::registry(config.policy.rules())?);
        let offered = toolset::offered(&tools, config.agent.tools.as_deref());
        let load_warm = move || {
            let mut model = load()?;
            let known = model.capabilities().tools;
            let offered: Vec<_> =
                offered.into_iter().filter(|tool| known.include(&tool.name)).collect();
            let turn = prompting::user(None, None, Some("-"));
            model.warm_up(&prompting::command(turn, &offered, 1))?;
            Ok(model)
        };
        let started = Instant::now();
        let parts = Heartbeats::default();
        let model = ModelThread::start(load_warm, MODEL_QUEUE, parts.part("model")).await?;
        let broker = match config.mqtt.host {
            Some(_) => None,
            None => Some(embedded_broker(&config.mqtt)?),
        };
        Ok(Self { config, started, parts, model, tools, broker })
    }

    /// Address of the embedded broker, if there is one.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(Broker::address)
    }

    /// The tools; more can be added at any time.
    pub fn tools(&self) -> &Arc<Registry> {
        &self.tools
    }

    /// Connects, opens microphone and camera, and starts the agent.
    ///
    /// # Errors
    /// If a source cannot be opened or the outbox cannot be used.
    pub fn spawn(self) -> Result<Running, AppError> {
        let Self { config, started, parts, model, tools, broker } = self;
        let task_group = TaskGroup::default();
        let gate = mic_gate(&config);
        let switch: Arc<dyn Microphone> = Arc::new(gate.clone());
        let firmware = Firmware::new(&config.firmware, switch.clone());
        let microphone = start_microphone(&config.microphone, gate, parts.part("microphone"))?;
        let (inbound_out, inbound) = mpsc::channel::<Inbound>(INBOUND_CAPACITY);
        let address = broker.as_ref().map(|broker| attend(broker, &task_group));
        let told = inbound_out.clone();
        let pulse = parts.part("mqtt");
        let publisher = client::connect(&config.mqtt, address, told.clone(), &task_group, pulse)?;
        let sink: Arc<dyn Sink> = Arc::new(publisher.clone());
        let board = firmware.as_ref().map(Firmware::board_tools);
        let sink = match firmware {
            Some(firmware) => firmware.start(sink, told, &task_group),
            None => sink,
        };
        let capable = model.handle.capabilities();
        let settings = settings((&config, capable), &publisher, sink.clone(), &task_group);
        let (counts, counted) = watch::channel(Counts::default());
        let shared = Shared::new(sink.clone(), settings.live.clone());
        let latest: Arc<dyn Camera> = Arc::new(shared.latest.clone());
        let camera = camera::start(&config.camera, shared.clone(), parts.part("camera"))?;
        let gauges = Gauges {
            camera: shared.counters.clone(),
            counts: counted.clone(),
            model: model.handle.clone(),
            backlog: Arc::new(publisher.clone()),
            parts: parts.clone(),
            task_group: task_group.clone(),
            started,
        };
        let publishing = (gauges, sink.clone(), settings.live.clone());
        task_group.supervise("metrics", &task_group.stop, publishing, |(gauges, sink, live)| {
            Box::pin(metrics::publish(gauges, &**sink, live))
        });

        let reach = HostParts {
            sink: sink.clone(),
            camera: latest.clone(),
            model: model.handle.clone(),
            board,
            task_group: task_group.clone(),
        };
        let dispatcher = dispatcher(&settings, tools, reach, publisher.left())?;
        add_tools(&settings, &dispatcher, &publisher, inbound_out, &task_group)?;
        let turns = turns(&settings, dispatcher, model.handle.clone(), shared)?;
        let inputs = Inputs {
            microphone: microphone.map(|sense| sense.receiver),
            switch,
            frames: camera.map(|sense| sense.receiver),
            camera: latest,
            inbound,
        };
        let agent = Agent::new(inputs, turns, sink, counts, config.agent.limits);
        let grace = config.agent.grace / 2;
        let pulse = parts.part("agent");
        let ended = run_agent(agent, grace, pulse, &task_group);
        Ok(Running {
            task_group,
            ended,
            publisher,
            is_durable: config.mqtt.outbox.is_some(),
            model,
            broker,
            parts,
            counted,
        })
    }
}

/// Starts the embedded broker. It asks for the credentials of the configuration, if there are some.
fn embedded_broker(config: &MqttConfig) -> Result<Broker, AppError> {
    let login = transport::login(config).map_err(MqttError::from)?;
    let start = |listen| Broker::guarded(listen, MAX_PACKET, login.clone());
    let broker = match config.listen {
        Some(listen) => start(listen),
        // Another broker may have the usual port.
        None => start(Broker::USUAL).or_else(|_| start(Broker::ANY)),
    };
    Ok(broker?)
}

/// Has the daemon end when the embedded broker has: without it nobody hears it. Returns where the broker listens.
fn attend(broker: &Broker, task_group: &TaskGroup) -> SocketAddr {
    let attended = (broker.clone(), task_group.broken.clone());
    task_group.supervise("broker", &task_group.disconnect, attended, |(broker, broken)| {
        Box::pin(async move {
            let mut look = interval(LOOK);
            while broker.is_running() {
                look.tick().await;
            }
            error!("the embedded broker ended, and cannot be started again");
            broken.cancel();
        })
    });
    broker.address()
}

/// Starts to follow the desired configuration.
fn settings<'a>(
    (file, model): (&'a Config, &Capabilities),
    publisher: &Publisher,
    sink: Arc<dyn Sink>,
    task_group: &TaskGroup,
) -> Settings<'a> {
    let (live_out, live) = watch::channel(LiveSettings::of(file));
    let keeper = publisher.clone();
    let keep = move |accepted: &live::Documents| keeper.keep_desired(accepted);
    let desired = publisher.desired_config().subscribe();
    let following = (file.clone(), model.clone(), desired, keep, live_out, sink);
    let stop = &task_group.stop;
    task_group.supervise(
        "settings",
        stop,
        following,
        |(file, model, desired, keep, live, sink)| {
            Box::pin(live::follow((&*file, &*model), desired, keep, live, &**sink))
        },
    );
    Settings { file, live }
}

/// The microphone's gate.
fn mic_gate(config: &Config) -> MicGate {
    let has_button = config.firmware.push_to_talk.is_some();
    if config.microphone.is_push_to_talk(has_button) {
        MicGate::push_to_talk()
    } else {
        MicGate::always_open()
    }
}

/// Adds configured tools, and lets others come and go.
fn add_tools(
    settings: &Settings<'_>,
    dispatcher: &Dispatcher,
    publisher: &Publisher,
    inbound: mpsc::Sender<Inbound>,
    task_group: &TaskGroup,
) -> Result<(), ToolboxError> {
    let registry = dispatcher.registry();
    let offering = dispatcher.clone();
    let publisher = publisher.clone();
    let task_group = task_group.clone();
    let site = Site { registry: registry.clone(), publisher, inbound, task_group };
    site.open(settings, move || offering.offer().report)?;
    // A rule for an unknown tool may be a typo, which would leave the intended tool unrestricted.
    for name in registry.rules_without_tool() {
        warn!(name, "policy.tools has a rule for an unknown tool");
    }
    Ok(())
}

/// Creates the dispatcher. Reports calls that a previous run left in flight.
fn dispatcher(
    settings: &Settings<'_>,
    tools: Arc<Registry>,
    reach: HostParts,
    left: Vec<Intent>,
) -> Result<Dispatcher, AppError> {
    let audit = Audit::open(&settings.file.audit)?;
    dispatch::report_left(&*reach.sink, &audit, left);
    let confirmations = Confirmations::new(reach.sink.clone(), settings.file.policy.confirm);
    confirmations.say(None);
    Ok(Dispatcher::new(tools, reach, confirmations, audit, settings))
}

/// Starts the agent loop; the token is cancelled when it ends.
fn run_agent(
    agent: Agent,
    grace: Duration,
    pulse: Pulse,
    task_group: &TaskGroup,
) -> CancellationToken {
    let ended = CancellationToken::new();
    let stop = task_group.stop.clone();
    let guard = ended.clone().drop_guard();
    task_group.spawn(async move {
        let _guard = guard;
        agent.run(stop, grace, pulse).await;
    });
    ended
}

fn turns(
    settings: &Settings<'_>,
    dispatcher: Dispatcher,
    model: ModelHandle,
    camera: Shared,
) -> Result<Turns, AppError> {
    // Invalid rules are reported at startup.
    WatchList::new(settings.file.watch.clone())?;
    let Shared { latest, counters, sink, .. } = camera;
    let evidence = Evidence::open(&settings.file.evidence)?;
    let camera = Arc::new(latest);
    let scene_reader =
        SceneReader::new(model.clone(), camera, counters, evidence, sink.clone(), settings);
    Ok(Turns::new(model, dispatcher, scene_reader, sink, settings))
}

/// A running daemon.
#[derive(Debug)]
pub struct Running {
    task_group: TaskGroup,
    /// Cancelled when the agent loop has ended.
    ended: CancellationToken,
    publisher: Publisher,
    /// Whether the outbox outlives the daemon.
    is_durable: bool,
    model: ModelThread,
    broker: Option<Broker>,
    parts: Heartbeats,
    counted: watch::Receiver<Counts>,
}

impl Running {
    /// Health of the parts.
    pub fn parts(&self) -> &Heartbeats {
        &self.parts
    }

    /// Waits until the daemon is of no use any more, since an essential task has panicked or the model's device is lost: then
    /// drain it, and exit.
    pub async fn broken(&self) {
        tokio::select! {
            () = self.task_group.broken.cancelled() => {}
            () = self.model.handle.lost() => {}
        }
    }

    /// State and counters of the agent.
    pub fn counts(&self) -> watch::Receiver<Counts> {
        self.counted.clone()
    }

    /// Follows the connection to the broker.
    pub fn link(&self) -> watch::Receiver<LinkStatus> {
        self.publisher.status()
    }

    /// Address of the embedded broker, if there is one.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(Broker::address)
    }

    /// Shuts down within `grace` or little more: agent, then (once reports are out) connections,
    /// then the model. Returns false if reports are lost: not delivered, and the outbox is not a
    /// file.
    pub async fn drain(self, grace: Duration) -> bool {
        let end = Instant::now() + grace;
        self.task_group.stop.cancel();
        if timeout_at(end, self.ended.cancelled()).await.is_err() {
            warn!("the agent did not stop in time");
        }
        self.model.handle.close();
        let left = end.saturating_duration_since(Instant::now());
        let flushed = self.publisher.flushed(left / 2).await;
        if !flushed {
            warn!(stored = self.is_durable, "shutting down with undelivered reports");
        }
        self.task_group.disconnect.cancel();
        self.task_group.tracker.close();
        if timeout_at(end, self.task_group.tracker.wait()).await.is_err() {
            warn!("tasks did not stop in time");
        }
        self.publisher.stored(LAST_LAYER).await;
        let join = tokio::task::spawn_blocking(move || self.model.join());
        if timeout_at(end.max(Instant::now() + LAST_LAYER), join).await.is_err() {
            warn!("the model did not stop in time");
        }
        flushed || self.is_durable
    }
}
