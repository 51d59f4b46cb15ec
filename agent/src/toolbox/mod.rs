//! The tools beyond the bundled ones: built-in ones that a table switches on, those that the configuration declares, those that
//! others offer over MQTT, and those of MCP servers. The logic of each is in `outpost_tools`; here it meets the broker.

mod bus;
pub mod relay;

use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use outpost_agent_core::config::{Live, ToolsConfig};
use outpost_agent_core::event::{Ask, Inbound, Origin};
use outpost_agent_core::lifetime::Lifetime;
use outpost_agent_core::live::Settings;
use outpost_agent_core::report::{AnswerReport, Body, Report};
use outpost_mqtt::client::{LinkStatus, Publisher};
use outpost_mqtt::ears::Overheard;
use outpost_mqtt::topics::{ToolTopic, Topics};
use outpost_runtime::ToolSpec;
use outpost_tools::agenda::{Agenda, Entry};
use outpost_tools::builtin::{http_request, memory, publish, run_process, schedule};
use outpost_tools::bus::Bus;
use outpost_tools::declared::{DeclareError, Declared};
use outpost_tools::fault::Faults;
use outpost_tools::http::ClientError;
use outpost_tools::mcp::McpConfig;
use outpost_tools::mcp::client::attend;
use outpost_tools::remote::Switchboard;
use outpost_tools::requests::{Heard, Requests};
use outpost_tools::store::StoreError;
use outpost_tools::{AddError, Registry};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::interval;
use tracing::{info, warn};

/// Planned prompts that wait at most.
const DUE: usize = 16;
/// How often it is looked whether other tools are offered, beside whenever that is known.
const LOOK: Duration = Duration::from_secs(2);

/// A tool cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    /// There is one of that name.
    #[error(transparent)]
    Add(#[from] AddError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] ClientError),
    /// A declared tool.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// A file of notes or of what is planned.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the toolbox is built from.
#[derive(Debug)]
pub struct Site {
    /// Takes the tools.
    pub registry: Arc<Registry>,
    /// The broker.
    pub publisher: Publisher,
    /// Takes what was planned and is due.
    pub inbound: mpsc::Sender<Inbound>,
    /// Starts and ends what looks after the tools.
    pub lifetime: Lifetime,
}

impl Site {
    /// Adds all tools of the configuration, and starts what looks after them. `offered` gives the tools that are offered now,
    /// which the settings may change.
    ///
    /// # Errors
    /// When a tool cannot be offered.
    pub fn open(
        self,
        settings: &Settings<'_>,
        offered: impl Fn() -> Vec<ToolSpec> + Send + 'static,
    ) -> Result<(), ToolboxError> {
        let Settings { file: config, live } = settings;
        let bus: Arc<dyn Bus> = Arc::new(bus::MqttBus(self.publisher.clone()));
        self.add_built_in(&config.tools, &bus)?;
        let requests = Requests::default();
        let mut faults = Faults::default();
        for tool in &config.tool {
            if let Some(tool) = Declared::read(tool, "tool", &mut faults) {
                tool.listens_to().into_iter().for_each(|topic| bus.listen(topic));
                tool.add_to(&self.registry, Arc::clone(&bus), requests.clone())?;
            }
        }
        let remote = config.tools.mqtt.clone();
        if remote.is_some() {
            self.publisher.topics().of_tools().iter().for_each(|filter| bus.listen(filter));
        }
        let reserved = config.mcp.iter().map(McpConfig::prefix);
        let reserved = reserved.filter(|prefix| !prefix.is_empty()).collect();
        let others = (remote.unwrap_or_default(), reserved);
        let changed = Arc::new(Notify::new());
        for server in &config.mcp {
            let attended = attend(server.clone(), self.registry.clone(), changed.clone());
            self.lifetime.spawn_until_stop(attended);
        }
        let operator = Operator {
            switchboard: Switchboard::new(self.registry.clone(), bus, others, requests),
            topics: self.publisher.topics().clone(),
            publisher: self.publisher.clone(),
            connection: 0,
            told: None,
        };
        self.lifetime.spawn_until_stop(operator.work(offered, changed, live.clone()));
        Ok(())
    }

    fn add_built_in(&self, config: &ToolsConfig, bus: &Arc<dyn Bus>) -> Result<(), ToolboxError> {
        let registry = &self.registry;
        if let Some(config) = &config.http {
            let (definition, tool) = http_request::HttpRequest::new(config)?;
            registry.add_defined(definition, tool)?;
        }
        if let Some(config) = &config.process {
            let (definition, tool) = run_process::RunProcess::new(config);
            registry.add_defined(definition, tool)?;
        }
        if let Some(config) = &config.publish {
            let (definition, tool) = publish::Publish::new(config, Arc::clone(bus));
            registry.add_defined(definition, tool)?;
        }
        if let Some(config) = &config.memory {
            let memory = memory::Memory::open(config)?;
            registry.add(memory::Remember(memory.clone()))?;
            registry.add(memory::Recall(memory))?;
        }
        if let Some(config) = &config.schedule {
            let path = config.path.clone().unwrap_or_default();
            let agenda = Agenda::open(path, config.max_entries, &Zoned::now())?;
            registry.add(schedule::Plan(agenda.clone()))?;
            registry.add(schedule::ListPlan(agenda.clone()))?;
            registry.add(schedule::CancelPlan(agenda.clone()))?;
            let (out, due) = mpsc::channel(DUE);
            self.lifetime.spawn_until_stop(async move { agenda.run(out).await });
            self.lifetime.spawn_until_stop(ask_what_is_due(due, self.inbound.clone()));
        }
        Ok(())
    }
}

/// Has the agent asked what was planned, when it is due.
async fn ask_what_is_due(mut due: mpsc::Receiver<Entry>, inbound: mpsc::Sender<Inbound>) {
    while let Some(Entry { id, prompt, .. }) = due.recv().await {
        info!(id, "something that was planned is due");
        let transaction = Some(format!("schedule/{id}"));
        let ask = Ask { transaction, prompt, origin: Origin::Schedule, ..Ask::default() };
        if inbound.send(Inbound::Ask(ask)).await.is_err() {
            return;
        }
    }
}

/// Sits between the broker and the tools that others offer.
struct Operator {
    switchboard: Switchboard,
    topics: Topics,
    publisher: Publisher,
    /// The latest on which something came.
    connection: u64,
    /// The list of tools that was published last.
    told: Option<Vec<ToolSpec>>,
}

impl Operator {
    async fn work(
        mut self,
        offered: impl Fn() -> Vec<ToolSpec> + Send,
        changed: Arc<Notify>,
        mut live: watch::Receiver<Live>,
    ) {
        let mut heard = self.publisher.ears().lend();
        let mut status = self.publisher.status();
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                biased;
                Ok(()) = status.changed() => {
                    if *status.borrow_and_update() != LinkStatus::Up {
                        self.switchboard.lose();
                    }
                }
                Some(overheard) = heard.recv() => self.hear(overheard),
                () = changed.notified() => {}
                Ok(()) = live.changed() => {}
                _ = look.tick() => {}
            }
            self.tell(offered());
        }
    }

    fn hear(&mut self, Overheard { arrival, connection, .. }: Overheard) {
        if connection > self.connection {
            self.connection = connection;
            self.switchboard.lose();
        }
        let heard = Heard {
            topic: arrival.topic,
            payload: arrival.payload,
            retained: arrival.retained,
            correlation: arrival.correlation,
        };
        let taken = match self.topics.tool(&heard.topic) {
            Some(ToolTopic::Definition(name)) => self.switchboard.define(name, &heard.payload),
            Some(ToolTopic::Result(name)) => self.switchboard.result(name, &heard),
            None => Ok(()),
        };
        self.switchboard.other(&heard);
        if let Err(reason) = taken {
            warn!(topic = heard.topic, reason, "refused what a tool says");
            let refusal = AnswerReport::refusal(format!("{}: {reason}", heard.topic));
            self.publisher.publish(&Report::now(Body::Answer(refusal)));
        }
    }

    /// Publishes the list of tools where it is another.
    fn tell(&mut self, tools: Vec<ToolSpec>) {
        if self.told.as_ref() != Some(&tools) {
            self.publisher.publish(&Report::now(Body::Offered(tools.clone())));
            self.told = Some(tools);
        }
    }
}
