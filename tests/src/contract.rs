//! What a running daemon says, against `docs/asyncapi.yaml`.

use std::sync::LazyLock;

use outpost_mqtt::subscriber::Received;
#[path = "../../agent/mqtt/src/tests/schemas.rs"]
mod schemas;

static CONTRACT: LazyLock<Result<schemas::Contract, String>> =
    LazyLock::new(schemas::Contract::read);

/// Topics below a device's that tests publish to themselves.
const TOLD: [&str; 5] = ["/ask", "/set/", "/get/", "/tools/", "/config/desired"];

/// Whether a topic has a channel in the document.
pub fn knows(topic: &str) -> bool {
    CONTRACT.as_ref().is_ok_and(|contract| contract.validator(topic).is_ok())
}

/// Sees that a message of the daemon is as the document says.
///
/// # Panics
/// When it is not.
#[expect(clippy::panic, reason = "this is the assertion")]
pub fn check(received: &Received) {
    let Received { topic, payload, .. } = received;
    let below = topic.trim_start_matches("outpost/outpost");
    let is_call = below.starts_with("/tools/") && below.ends_with("/call");
    if TOLD.iter().any(|told| below.starts_with(told)) && !is_call {
        return;
    }
    let contract = CONTRACT.as_ref().map_err(Clone::clone);
    match contract.and_then(|contract| contract.faults(topic, payload)) {
        Ok(faults) if faults.is_empty() => {}
        Ok(faults) => panic!("{payload} is not as docs/asyncapi.yaml says: {faults:?}"),
        Err(fault) => panic!("docs/asyncapi.yaml: {fault}"),
    }
}
