//! A call in flight, as stored.

use outpost_agent_core::event::{EventId, Origin};
use outpost_agent_core::report::{Intent, ReportId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A stored call, keyed by its id.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    cause: String,
    origin: String,
    name: String,
    arguments: Map<String, Value>,
    idempotent: bool,
}

/// Encodes a call.
pub(super) fn encode(intent: &Intent) -> Vec<u8> {
    let row = Row {
        cause: intent.cause.to_string(),
        origin: intent.origin.as_str().to_owned(),
        name: intent.name.clone(),
        arguments: intent.arguments.clone(),
        idempotent: intent.idempotent,
    };
    serde_json::to_vec(&row).unwrap_or_default()
}

/// Decodes a call; `None` if invalid.
pub(super) fn decode(call: &str, bytes: &[u8]) -> Option<Intent> {
    let Row { cause, origin, name, arguments, idempotent } = serde_json::from_slice(bytes).ok()?;
    let call = ReportId::read(call)?;
    let cause = EventId::read(&cause)?;
    let origin = Origin::ALL.into_iter().find(|known| known.as_str() == origin)?;
    Some(Intent { call, cause, origin, name, arguments, idempotent })
}
