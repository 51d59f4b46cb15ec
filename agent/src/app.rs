//! The daemon as a whole: built from a configuration, started, and drained.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outpost_tools::registry::Duplicate;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::agent::{Agent, Eye, Inputs};
use crate::config::Config;
use crate::dispatch::Dispatcher;
use crate::event::Inbound;
use crate::firmware::Firmware;
use crate::memory::{self, MemoryError};
use crate::model_thread::{EngineModel, Model, ModelError, ModelThread};
use crate::mqtt::broker::{Broker, BrokerError};
use crate::mqtt::client::{self, MqttError, Publisher};
use crate::prompting;
use crate::report::Sink;
use crate::senses::gate::Gate;
use crate::senses::{self, SenseError};
use crate::turn::Turns;
use crate::watch::WatchList;

/// Requests that wait for the model at most.
const MODEL_QUEUE: usize = 16;
/// Messages from MQTT that wait for the agent at most; then new ones are refused.
const INBOUND_CAPACITY: usize = 64;

/// Why the daemon cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The memory that the model needs.
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
    /// The tools.
    #[error(transparent)]
    Tools(#[from] Duplicate),
}

/// A daemon with its model loaded and its broker known, not yet at work.
#[derive(Debug)]
pub struct App {
    config: Config,
    model: ModelThread,
    broker: Option<Broker>,
}

impl App {
    /// Loads the packed model in `dir` and starts the embedded broker, if the configuration names no other.
    ///
    /// # Errors
    /// When the model cannot be loaded or the broker not be started.
    pub async fn build(config: Config, dir: &Path) -> Result<Self, AppError> {
        let (dir, options) = (dir.to_owned(), memory::engine_options(dir, &config.model)?);
        let load = move || Ok(Box::new(EngineModel::load(&dir, &options)?) as Box<dyn Model>);
        Self::with_model(config, load).await
    }

    /// As [`App::build`], with the model that `load` gives.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn with_model<L>(config: Config, load: L) -> Result<Self, AppError>
    where
        L: FnOnce() -> outpost_runtime::Result<Box<dyn Model>> + Send + 'static,
    {
        let offered = config.agent.offered();
        let warm_up = prompting::command(prompting::user(None, None, Some("-")), &offered, 1);
        let load_warm = move || {
            let mut model = load()?;
            model.warm_up(&warm_up)?;
            Ok(model)
        };
        let model = ModelThread::start(load_warm, MODEL_QUEUE).await?;
        let broker = match config.mqtt.host {
            Some(_) => None,
            None => Some(Broker::start(config.mqtt.listen.unwrap_or(Broker::ANY))?),
        };
        Ok(Self { config, model, broker })
    }

    /// Where the embedded broker listens, if there is one.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(Broker::address)
    }

    /// Connects, opens the senses and starts the agent.
    ///
    /// # Errors
    /// When a sense cannot be opened or the outbox cannot be used.
    pub fn spawn(self) -> Result<Running, AppError> {
        let Self { config, model, broker } = self;
        let firmware = Firmware::new(&config.firmware);
        let gate = firmware.as_ref().map_or_else(Gate::open, Firmware::gate);
        let microphone = senses::start_microphone(&config.microphone, gate)?;
        let camera = senses::start_camera(&config.camera)?;
        let (tracker, stop, farewell) =
            (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let (inbound_out, inbound) = mpsc::channel::<Inbound>(INBOUND_CAPACITY);
        let address = broker.as_ref().map(Broker::address);
        let told = inbound_out.clone();
        let publisher =
            client::connect(&config.mqtt, address, inbound_out, &tracker, farewell.clone())?;
        let sink: Arc<dyn Sink> = Arc::new(publisher.clone());
        let hands = firmware.as_ref().map(|firmware| firmware.hands(&config.agent));
        let sink = match firmware {
            Some(firmware) => firmware.start(sink, told, (&tracker, farewell.clone())),
            None => sink,
        };

        let eye = Eye::default();
        let dispatcher = Dispatcher::new(
            sink.clone(),
            eye.clone(),
            model.handle.clone(),
            hands.clone(),
            config.agent.tool_timeout,
        )?;
        let turns = Turns::new(
            model.handle.clone(),
            (dispatcher, hands),
            WatchList::new(config.watch.clone()),
            sink.clone(),
            (&config.agent, &config.model),
        );
        let inputs = Inputs {
            microphone: microphone.map(|sense| sense.receiver),
            camera: camera.map(|sense| sense.receiver),
            inbound,
        };
        let agent = Agent::new(inputs, turns, sink, eye, config.camera.watch);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let run = agent.run(stop.clone(), config.agent.grace);
        tracker.spawn(async move {
            let _guard = guard;
            run.await;
        });
        info!(device = config.mqtt.device, "ready");
        Ok(Running { tracker, stop, farewell, ended, publisher, model, broker })
    }
}

/// A daemon at work.
#[derive(Debug)]
pub struct Running {
    tracker: TaskTracker,
    stop: CancellationToken,
    farewell: CancellationToken,
    /// The agent's loop has ended.
    ended: CancellationToken,
    publisher: Publisher,
    model: ModelThread,
    broker: Option<Broker>,
}

impl Running {
    /// Where the embedded broker listens, if there is one.
    pub fn broker(&self) -> Option<SocketAddr> {
        self.broker.as_ref().map(Broker::address)
    }

    /// Ends the daemon: first the agent, then, when the reports are out, the connection, then the model. False if reports were
    /// left in the outbox after `grace`.
    pub async fn drain(self, grace: Duration) -> bool {
        self.stop.cancel();
        if tokio::time::timeout(grace, self.ended.cancelled()).await.is_err() {
            warn!("the agent did not end in time");
        }
        self.model.handle.close();
        let flushed = self.publisher.flushed(grace).await;
        if !flushed {
            warn!("reports are left in the outbox");
        }
        self.farewell.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            warn!("tasks did not end in time");
        }
        drop(tokio::task::spawn_blocking(move || self.model.join()).await);
        flushed
    }
}
