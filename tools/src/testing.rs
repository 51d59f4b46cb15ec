//! What the tests of tools share: a house, and a broker that writes down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::bus::{Bus, Publication, RemoteCall};
use crate::policy::{Origin, PolicyRules};
use crate::registry::Registry;
use crate::tool::{BoxFuture, Context, ErrorKind, ToolError, ToolHost, ToolOutcome};

#[derive(Debug)]
struct Empty;

impl ToolHost for Empty {
    fn command(&self, _: &str, _: Value, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn start_timer(&self, _: &str, _: Duration) {}
    fn alert(&self, _: &str) {}
}

/// The context of a call in a house without anything.
pub(crate) fn context(id: &str) -> Context {
    Context::new(id, Arc::new(Empty))
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
    let context = context(id);
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
    /// What becomes of each message; none: it arrives.
    pub(crate) fate: Mutex<Option<ErrorKind>>,
}

impl Notes {
    fn fate(&self) -> BoxFuture<'_, Result<(), ToolError>> {
        let fate = self.fate.lock().unwrap().map(|kind| ToolError::new(kind, "not delivered"));
        Box::pin(std::future::ready(fate.map_or(Ok(()), Err)))
    }
}

impl Bus for Notes {
    fn is_up(&self) -> bool {
        !self.down.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn publish(&self, message: Publication, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        self.published.lock().unwrap().push(message);
        self.fate()
    }
    fn call(&self, call: RemoteCall, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        self.calls.lock().unwrap().push(call);
        self.fate()
    }
    fn listen(&self, topic: &str) {
        self.listened.lock().unwrap().push(topic.to_owned());
    }
}
