//! What the tests of tools share: a house, and a broker that writes down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::bus::{Bus, Publication, RemoteCall};
use crate::policy::{Origin, PolicyRules};
use crate::registry::Registry;
use crate::tool::{BoxFuture, Context, ToolError, ToolHost, ToolOutcome};

#[derive(Debug)]
struct Empty;

impl ToolHost for Empty {
    fn command(&self, _: &str, _: Value) {}
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn timer_rang(&self, _: &str, _: Duration) {}
    fn alert(&self, _: &str) {}
}

pub(crate) fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(PolicyRules::default()))
}

pub(crate) async fn call(
    registry: &Registry,
    id: &str,
    name: &str,
    arguments: Value,
) -> Result<ToolOutcome, ToolError> {
    let context = Context { call: id.into(), host: Arc::new(Empty) };
    let arguments = arguments.as_object().unwrap().clone();
    registry.call(name, arguments, Origin::Voice, &context, Duration::from_secs(20)).await
}

/// A connection that writes down what goes over it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) down: std::sync::atomic::AtomicBool,
    pub(crate) published: Mutex<Vec<Publication>>,
    pub(crate) calls: Mutex<Vec<RemoteCall>>,
    pub(crate) listened: Mutex<Vec<String>>,
}

impl Bus for Notes {
    fn is_up(&self) -> bool {
        !self.down.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn publish(&self, message: Publication) {
        self.published.lock().unwrap().push(message);
    }
    fn call(&self, call: RemoteCall) {
        self.calls.lock().unwrap().push(call);
    }
    fn listen(&self, topic: &str) {
        self.listened.lock().unwrap().push(topic.to_owned());
    }
}
