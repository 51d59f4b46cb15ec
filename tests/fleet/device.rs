//! One device of the fleet: the daemon's client, and answers that no model gave.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use outpost_agent_core::config::{MqttConfig, Version};
use outpost_agent_core::event::{EventId, Inbound, Origin};
use outpost_agent_core::heartbeat::Heartbeats;
use outpost_agent_core::report::{AnswerReport, Body, Outcome, Report, ReportId, ToolReport};
use outpost_agent_core::task_group::TaskGroup;
use outpost_mqtt::client;
use outpost_mqtt::client::{LinkStatus, Publisher};
use serde_json::{Map, json};
use tokio::sync::mpsc;

use crate::Options;

/// Questions that wait at a device.
const INBOUND: usize = 16;

pub(crate) struct Device {
    publisher: Publisher,
}

/// The name of a device.
pub(crate) fn name(index: usize) -> String {
    format!("sim-{index:04}")
}

impl Device {
    /// Starts a device that connects by itself; it ends at the disconnect.
    pub(crate) fn start(
        index: usize,
        broker: SocketAddr,
        options: &Options,
        task_group: &TaskGroup,
    ) -> Result<Self> {
        let mut config = MqttConfig {
            device: name(index),
            host: Some(broker.ip().to_string()),
            port: broker.port(),
            ..MqttConfig::default()
        };
        if !options.embedded && options.cluster.is_none() {
            config.version = Version::V5;
            config.group = Some("fleet".into());
        }
        let (inbound, asked) = mpsc::channel(INBOUND);
        let pulse = Heartbeats::default().part("mqtt");
        let publisher = client::connect(&config, None, inbound, task_group, pulse)?;
        task_group.spawn(answer(publisher.clone(), asked));
        Ok(Self { publisher })
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.publisher.status().borrow() == LinkStatus::Up
    }

    /// Reports a tool call, and gives the id of its report.
    pub(crate) fn report(&self, number: usize) -> String {
        let report = Report::now(Body::Tool(ToolReport {
            call: ReportId::new(),
            cause: EventId::new(),
            origin: Origin::Voice,
            name: "set_volume".into(),
            arguments: Map::from_iter([("level".to_owned(), json!(number))]),
            outcome: Outcome::Done(json!({ "ok": true })),
            latency: Duration::from_millis(1),
        }));
        self.publisher.publish(&report);
        report.id.to_string()
    }
}

async fn answer(publisher: Publisher, mut asked: mpsc::Receiver<Inbound>) {
    while let Some(inbound) = asked.recv().await {
        let Inbound::Ask(ask) = inbound else { continue };
        publisher.publish(&Report::now(Body::Answer(AnswerReport {
            event: EventId::new(),
            transaction: ask.transaction,
            respond_to: ask.respond_to,
            text: "Well.".into(),
            error: None,
            ..AnswerReport::refusal(String::new())
        })));
    }
}
