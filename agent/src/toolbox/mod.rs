//! Tools beyond the bundled ones: optional built-ins, tools declared in the configuration, tools
//! offered over MQTT, MCP servers. Their logic is in `outpost_tools`; here they meet the broker.

mod bus;
pub mod relay;

use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use outpost_agent_core::config::{LiveSettings, ToolsConfig};
use outpost_agent_core::event::{Ask, Inbound, Origin};
use outpost_agent_core::live::Settings;
use outpost_agent_core::report::{AnswerReport, Body, OfferReport, Report};
use outpost_agent_core::task_group::TaskGroup;
use outpost_mqtt::client::{LinkStatus, Publisher};
use outpost_mqtt::subscriptions::Delivery;
use outpost_mqtt::topics::{ToolTopic, Topics};
use outpost_tools::builtin::{http_request, memory, publish, run_process, schedule};
use outpost_tools::bus::Bus;
use outpost_tools::declared::{DeclareError, Declared};
use outpost_tools::fault::Faults;
use outpost_tools::http::ClientError;
use outpost_tools::json_file::JsonFileError;
use outpost_tools::mcp::McpConfig;
use outpost_tools::mcp::client::attend;
use outpost_tools::remote::Switchboard;
use outpost_tools::requests::{Heard, Requests};
use outpost_tools::scheduled_prompts::{Entry, ScheduledPrompts};
use outpost_tools::{AddError, Registry};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::interval;
use tracing::{info, warn};

/// Interval at which the list of tools is compared.
const LOOK: Duration = Duration::from_secs(2);

/// A tool cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    /// Duplicate name.
    #[error(transparent)]
    Add(#[from] AddError),
    /// HTTP cannot be set up.
    #[error(transparent)]
    Http(#[from] ClientError),
    /// A declared tool.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// A file of notes or scheduled prompts.
    #[error(transparent)]
    Store(#[from] JsonFileError),
}

/// What the toolbox needs.
#[derive(Debug)]
pub struct Site {
    /// Takes the tools.
    pub registry: Arc<Registry>,
    /// The broker.
    pub publisher: Publisher,
    /// Receives due prompts.
    pub inbound: mpsc::Sender<Inbound>,
    /// Runs the tasks.
    pub task_group: TaskGroup,
}

impl Site {
    /// Adds all configured tools and starts their tasks. `offered` returns the tools offered now.
    ///
    /// # Errors
    /// When a tool cannot be offered.
    pub fn open(
        self,
        settings: &Settings<'_>,
        offered: impl Fn() -> OfferReport + Send + 'static,
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
        let stop = &self.task_group.stop;
        for server in &config.mcp {
            let server = (server.clone(), self.registry.clone(), changed.clone());
            self.task_group.supervise("mcp", stop, server, |(config, registry, changed)| {
                Box::pin(attend(config.clone(), registry.clone(), changed.clone()))
            });
        }
        let operator = Operator {
            switchboard: Switchboard::new(self.registry.clone(), bus, others, requests),
            topics: self.publisher.topics().clone(),
            heard: self.publisher.subscriptions().receiver(),
            status: self.publisher.status(),
            publisher: self.publisher.clone(),
            offered: Box::new(offered),
            changed,
            live: live.clone(),
            connection: 0,
            told: None,
        };
        self.task_group.supervise("toolbox", stop, operator, |operator| Box::pin(operator.work()));
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
            let scheduled_prompts =
                ScheduledPrompts::open(path, config.max_entries, &Zoned::now())?;
            registry.add(schedule::Plan(scheduled_prompts.clone()))?;
            registry.add(schedule::ListPlan(scheduled_prompts.clone()))?;
            registry.add(schedule::CancelPlan(scheduled_prompts.clone()))?;
            let stop = &self.task_group.stop;
            let planned = (scheduled_prompts, self.inbound.clone());
            self.task_group.supervise("schedule", stop, planned, |(prompts, inbound)| {
                Box::pin(prompts.run(inbound, scheduled, Zoned::now))
            });
        }
        Ok(())
    }
}

/// The question that a due prompt is.
fn scheduled(Entry { id, prompt, .. }: Entry) -> Inbound {
    info!(id, "a scheduled prompt is due");
    let transaction = Some(format!("schedule/{id}"));
    Inbound::Ask(Ask { transaction, prompt, origin: Origin::Schedule, ..Ask::default() })
}

/// Connects the broker with tools offered over MQTT.
struct Operator {
    switchboard: Switchboard,
    topics: Topics,
    heard: mpsc::Receiver<Delivery>,
    status: watch::Receiver<LinkStatus>,
    publisher: Publisher,
    /// Returns the tools offered now.
    offered: Box<dyn Fn() -> OfferReport + Send>,
    changed: Arc<Notify>,
    live: watch::Receiver<LiveSettings>,
    /// Latest connection number.
    connection: u64,
    /// The last published list of tools.
    told: Option<OfferReport>,
}

impl Operator {
    async fn work(&mut self) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.status.changed() => {
                    if *self.status.borrow_and_update() != LinkStatus::Up {
                        self.switchboard.lose();
                    }
                }
                Some(delivery) = self.heard.recv() => self.hear(delivery),
                () = self.changed.notified() => {}
                Ok(()) = self.live.changed() => {}
                _ = look.tick() => {}
            }
            self.tell((self.offered)());
        }
    }

    fn hear(&mut self, Delivery { arrival, connection, .. }: Delivery) {
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
            warn!(topic = heard.topic, reason, "rejected a message from a tool");
            let refusal = AnswerReport::refusal(format!("{}: {reason}", heard.topic));
            self.publisher.publish(&Report::now(Body::Answer(refusal)));
        }
    }

    /// Publishes the list of tools if it changed.
    fn tell(&mut self, tools: OfferReport) {
        if self.told.as_ref() != Some(&tools) {
            self.publisher.publish(&Report::now(Body::Offered(tools.clone())));
            self.told = Some(tools);
        }
    }
}
