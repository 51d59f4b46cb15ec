//! What the targets have in common: a message that arrives.

use outpost_agent::config::{Config, Faults};
use outpost_agent::live::desired::Desired;
use outpost_agent::mqtt::inbound::decode;
use outpost_agent::mqtt::session::Arrival;
use outpost_agent::mqtt::topics::Topics;
use outpost_tools::bus::Nowhere;
use outpost_tools::remote::{RemoteConfig, Switchboard};
use outpost_tools::requests::{Heard, Requests};
use outpost_tools::{PolicyRules, Registry};
use std::sync::Arc;

/// A message arrives below the device's topic. Its first byte decides whether it is retained and wants an answer elsewhere.
pub fn arrive(path: &str, data: &[u8]) {
    let (flags, payload) = data.split_first().map_or((0, data), |(flags, rest)| (*flags, rest));
    let arrival = Arrival {
        topic: format!("outpost/desk/{path}"),
        payload: payload.to_vec(),
        retained: flags & 1 == 1,
        response_topic: (flags & 2 == 2).then(|| String::from_utf8_lossy(payload).into_owned()),
        correlation: (flags & 4 == 4).then(|| payload.to_vec()),
    };
    drop(decode(&arrival, &Topics::new("desk")));
}

/// A document says what is desired of the device. One without a fault can be laid over the file.
pub fn desired(data: &[u8]) {
    let (mut file, mut faults) = (Config::default(), Faults::default());
    let desired = Desired::read(data, &file, &mut faults);
    if faults.is_empty() {
        desired.lay_over(&mut file);
    }
    drop(faults.bounded().to_string());
}

/// A program that offers a tool says something: what the tool is, or else what came of a call.
pub fn of_tools(is_definition: bool, data: &[u8]) {
    let registry = Arc::new(Registry::new(PolicyRules::default()));
    let settings = (RemoteConfig::default(), Vec::new());
    let switchboard = Switchboard::new(registry, Arc::new(Nowhere), settings, Requests::default());
    if is_definition {
        drop(switchboard.define("x", data));
    } else {
        drop(switchboard.result("x", &Heard { payload: data.to_vec(), ..Heard::default() }));
    }
}
