//! What tools need of MQTT; the program that runs the client stands behind it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::tool::{BoxFuture, ErrorKind, ToolError};

/// A message for the broker, as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publication {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MQTT 5: where an answer is wanted.
    pub response_topic: Option<String>,
    /// MQTT 5: what the answer has to carry.
    pub correlation: Option<Vec<u8>>,
}

/// A call for the program behind a tool that was offered over MQTT.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteCall {
    /// Names it; the result has to carry it.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// The arguments.
    pub arguments: Map<String, Value>,
    /// A later result is of no use.
    pub limit: Duration,
}

/// A connection to a broker.
///
/// What tools send acts on something, so nothing is kept for a broker that is away, and nothing is sent twice. Sending fails with
/// [`ErrorKind::Unavailable`] if the message was not sent and never will be, and with [`ErrorKind::Unacknowledged`] if it may have
/// arrived.
pub trait Bus: Send + Sync + fmt::Debug {
    /// Whether there is a connection now.
    fn is_up(&self) -> bool;

    /// Sends a message.
    fn publish(
        &self,
        message: Publication,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>>;

    /// Sends a call.
    fn call(&self, call: RemoteCall, deadline: Instant) -> BoxFuture<'_, Result<(), ToolError>>;

    /// Asks for the messages of a topic, from soon on.
    fn listen(&self, topic: &str);
}

/// There is no connection, so nothing was sent.
pub fn unavailable() -> ToolError {
    ToolError::new(ErrorKind::Unavailable, "there is no connection to the MQTT broker")
}

/// The connection was lost after something was sent.
pub fn lost() -> ToolError {
    let text =
        "the connection to the MQTT broker was lost: it may have been done, and is not repeated";
    ToolError::new(ErrorKind::Unacknowledged, text)
}

/// A broker that is never there, for tests.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Bus for Nowhere {
    fn is_up(&self) -> bool {
        false
    }

    fn publish(&self, _: Publication, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Err(unavailable())))
    }

    fn call(&self, _: RemoteCall, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Err(unavailable())))
    }

    fn listen(&self, _: &str) {}
}

/// Whether a topic fits a filter of MQTT.
pub fn fits(filter: &str, topic: &str) -> bool {
    // A filter that begins with a wildcard leaves out the broker's own topics.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether a text is a filter of MQTT.
pub fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let is_level = |(index, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => index + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    is_sized(filter) && levels.iter().enumerate().all(is_level)
}

/// Whether a text names one topic, and none of the broker's own.
pub fn is_topic(topic: &str) -> bool {
    is_sized(topic) && !topic.contains(['+', '#']) && !topic.starts_with('$')
}

/// The longest topic that tools use, bytes.
const MAX_TOPIC: usize = 512;

fn is_sized(topic: &str) -> bool {
    (1..=MAX_TOPIC).contains(&topic.len()) && !topic.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_fit_as_a_broker_has_it() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+/c", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            assert_eq!(fits(filter, topic), expected, "{filter} {topic}");
        }
        for filter in ["", "a/#/b", "a#", "a+/b", "\0"] {
            assert!(!is_filter(filter), "{filter}");
        }
        assert!(is_filter("a/+/b/#") && is_filter("#"));
        assert!(is_topic("a/b") && !is_topic("a/+") && !is_topic("$SYS/a") && !is_topic(""));
    }
}
