//! What the targets have in common: a message that arrives.

use outpost_agent::mqtt::inbound::decode;
use outpost_agent::mqtt::session::Arrival;
use outpost_agent::mqtt::topics::Topics;

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
