//! What the targets have in common: a message that arrives.

use std::sync::{Arc, LazyLock};
use std::task::{Context as Polled, Poll, Waker};
use std::time::Duration;

use outpost_runtime::media::{image_from_bytes, wav_from_bytes};
use outpost_tools::bus::{Bus, Nowhere, Publication, RemoteCall};
use outpost_tools::remote::{RemoteConfig, Switchboard};
use outpost_tools::requests::{Heard, Requests};
use outpost_tools::tool::BoxFuture;
use outpost_tools::{Context, ToolHost, Origin, PolicyRules, Registry, ToolError};
use serde_json::{Map, Value};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use outpost_agent_core::config::{Config, Faults};
use outpost_agent_core::event::Inbound;
use outpost_agent_core::live::desired::Desired;
use outpost_mqtt::inbound::decode;
use outpost_mqtt::session::Arrival;
use outpost_mqtt::topics::Topics;

/// Calls have time limits.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a clock"));

/// A message arrives below the device's topic, and its media are read. Its first byte decides whether it is retained and wants
/// an answer elsewhere.
pub fn arrive(path: &str, data: &[u8]) {
    let (flags, payload) = flags(data);
    let arrival = Arrival {
        topic: format!("outpost/desk/{path}"),
        payload: payload.to_vec(),
        retained: flags & 1 == 1,
        response_topic: (flags & 2 == 2).then(|| String::from_utf8_lossy(payload).into_owned()),
        correlation: (flags & 4 == 4).then(|| payload.to_vec()),
    };
    if let Ok(Some(Inbound::Ask(ask))) = decode(&arrival, &Topics::new("desk")) {
        ask.images.iter().for_each(|image| drop(image_from_bytes(image)));
        ask.audio.iter().for_each(|audio| drop(wav_from_bytes(audio)));
    }
}

fn flags(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(flags, rest)| (*flags, rest))
}

/// A document says what is desired of the device. One without a fault can be laid over the file.
pub fn desired(data: &[u8]) {
    let mut file = Config::default();
    let mut faults = Faults::default();
    let desired = Desired::read(data, &file, &mut faults);
    if faults.is_empty() {
        desired.lay_over(&mut file);
    }
    drop(faults.bounded().to_string());
}

fn switchboard(bus: Arc<dyn Bus>) -> (Arc<Registry>, Switchboard) {
    let registry = Arc::new(Registry::new(PolicyRules::default()));
    let settings = (RemoteConfig::default(), Vec::new());
    (registry.clone(), Switchboard::new(registry, bus, settings, Requests::default()))
}

/// A program that offers a tool says what it is.
pub fn tool_is_defined(data: &[u8]) {
    let (_, switchboard) = switchboard(Arc::new(Nowhere));
    drop(switchboard.define("x", flags(data).1));
}

/// A program that offers a tool says what came of the call `1`, which waits for that.
pub fn tool_is_called(data: &[u8]) {
    let _clock = CLOCK.enter();
    let (registry, switchboard) = switchboard(Arc::new(There));
    switchboard.define("x", br#"{"description": "x"}"#).expect("a definition");
    let context = Context::new("1", Arc::new(There));
    let limit = Duration::from_secs(1);
    let mut call = Box::pin(registry.call("x", Map::new(), Origin::Voice, &context, limit));
    let mut polled = Polled::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut polled).is_pending(), "it waits for its result");
    let heard = Heard { payload: flags(data).1.to_vec(), ..Heard::default() };
    drop(switchboard.result("x", &heard));
    if let Poll::Ready(Ok(outcome)) = call.as_mut().poll(&mut polled) {
        drop(outcome.for_model());
    }
}

/// A broker and a house where nothing happens.
#[derive(Debug)]
struct There;

impl Bus for There {
    fn is_up(&self) -> bool {
        true
    }
    fn publish(&self, _: Publication, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn call(&self, _: RemoteCall, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn listen(&self, _: &str) {}
}

impl ToolHost for There {
    fn command(&self, _: &str, _: Value, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn start_timer(&self, _: &str, _: Duration) {}
    fn alert(&self, _: &str) {}
}
