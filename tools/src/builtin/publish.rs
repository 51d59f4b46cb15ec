//! `publish`, for the topics that the configuration lists.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::bus::{Bus, Publication, fits, is_filter, is_topic};
use crate::confirm::Confirm;
use crate::fault::{ClassName, Faults};
use crate::tool::{
    BoxFuture, Callable, Context, Definition, ErrorKind, Source, Spec, ToolError, ToolOutcome,
};

/// A longer payload is refused, bytes.
const MAX_PAYLOAD: usize = 16 * 1024;
/// What the agents' own topics begin with: through them a device is told what to do.
const OWN: &str = "outpost/";

/// `[tools.publish]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishConfig {
    /// Filters of the topics that may be published to.
    pub topics: Vec<String>,
    /// Who may call it.
    pub class: ClassName,
}

impl PublishConfig {
    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        if self.topics.is_empty() {
            faults.add(
                "tools.publish.topics",
                "[]",
                "list filters of the topics that may be published to",
            );
        }
        for filter in
            self.topics.iter().filter(|filter| !is_filter(filter) || filter.starts_with('$'))
        {
            let remedy = "use a filter such as home/+/set or notify/#; topics of the broker are out of reach";
            faults.add("tools.publish.topics", format!("{filter:?}"), remedy);
        }
    }

    /// A filter lets agents' own topics in only where it names them.
    fn allows(&self, topic: &str) -> bool {
        let names = |filter: &String| !topic.starts_with(OWN) || filter.starts_with(OWN);
        is_topic(topic) && self.topics.iter().any(|filter| names(filter) && fits(filter, topic))
    }
}

/// The tool.
#[derive(Debug)]
pub struct Publish {
    config: PublishConfig,
    bus: Arc<dyn Bus>,
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Topic
    topic: String,
    /// Message
    payload: String,
}

impl Publish {
    /// The tool with its definition.
    pub fn new(config: &PublishConfig, bus: Arc<dyn Bus>) -> (Definition, Self) {
        let filters = config.topics.join(", ");
        let spec = Spec {
            name: "publish".into(),
            description: format!("Publish an MQTT message to one of: {filters}."),
            schema: crate::schema::of::<Arguments>(),
        };
        let class = config.class.into();
        let definition = Definition {
            spec,
            full: None,
            class,
            confirm: Confirm::Never,
            idempotent: false,
            limit: None,
            source: Source::Own,
        };
        (definition, Self { config: config.clone(), bus })
    }

    async fn publish(
        &self,
        Arguments { topic, payload }: Arguments,
        deadline: Instant,
    ) -> Result<ToolOutcome, ToolError> {
        if !self.config.allows(&topic) {
            let text = format!("the topic {topic:?} is not one of those allowed");
            return Err(ToolError::new(ErrorKind::Refused, text));
        }
        if payload.len() > MAX_PAYLOAD {
            let text = format!("the message is longer than {MAX_PAYLOAD} bytes");
            return Err(ToolError::new(ErrorKind::Invalid, text));
        }
        let payload = payload.into_bytes();
        let message = Publication { topic, payload, ..Publication::default() };
        self.bus.publish(message, deadline).await?;
        Ok(ToolOutcome::done())
    }
}

impl Callable for Publish {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        Box::pin(async move {
            let arguments = serde_json::from_value(arguments)
                .map_err(|fault| ToolError::new(ErrorKind::Invalid, fault.to_string()))?;
            self.publish(arguments, context.deadline).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_the_broker_and_of_agents_are_out_of_reach_unless_named() {
        let allows = |filters: &[&str], topic: &str| {
            let topics = filters.iter().map(|&filter| filter.to_owned()).collect();
            PublishConfig { topics, class: ClassName::Open }.allows(topic)
        };
        assert!(allows(&["home/+/set"], "home/lamp/set") && !allows(&["home/+/set"], "home/lamp"));
        assert!(allows(&["#"], "a/b"));
        for topic in ["outpost/desk/set/mute", "$SYS/x", "a/+", "#", "", "a\0"] {
            assert!(!allows(&["#"], topic), "{topic}");
        }
        assert!(allows(&["outpost/desk/set/mute"], "outpost/desk/set/mute"));
        assert!(!allows(&["+/desk/set/mute"], "outpost/desk/set/mute"));
    }
}
