//! What is known of connections that the broker ended without a reason, as MQTT 3.1.1 has it.
//!
//! Either it does not take a message, or another client has the same id. After such an end messages are sent one at a time, so that
//! the one in flight at the next is known; it is set aside after several times. Connections that end one after the other, soon after
//! they began, and without such a message, hint at another client.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::error;

use crate::connection::{Connection, Source, WINDOW};
use crate::outbox::{MAX_ATTEMPTS, Outbox};
use crate::session::{Fault, FaultKind};

/// A connection that lived this long was no victim of another client.
const LASTING: Duration = Duration::from_mins(2);
/// Connections in a row that end early until another client is suspected.
const IN_A_ROW: u32 = 3;
/// Messages that are sent one at a time: those that may have been in flight.
const CAREFUL: usize = WINDOW + 4;
/// Topics of the connection's own messages that are remembered.
const TOPICS: usize = 16;

/// What earlier connections taught.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// How often a message of the connection itself was the suspect, by topic.
    topics: BTreeMap<String, u32>,
    /// Connections in a row that the broker ended early.
    evictions: u32,
    /// How many messages are to be sent one at a time.
    careful: usize,
}

impl Suspicions {
    /// A connection ended. Returns whether that is put down to a message, which is sent a few times at most.
    pub(super) fn learn(
        &mut self,
        outbox: &Outbox,
        connection: &Connection,
        fault: &Fault,
    ) -> bool {
        let lived = connection.lived().filter(|_| fault.kind == FaultKind::Closed);
        let Some(lived) = lived else {
            self.evictions = 0;
            return false;
        };
        self.evictions = if lived < LASTING { self.evictions + 1 } else { 0 };
        let Some((suspect, topic)) = connection.oldest() else { return false };
        self.careful = CAREFUL;
        if !connection.is_careful() {
            return false;
        }
        self.evictions = 0;
        match suspect {
            Source::Row(row) => outbox.fail(*row),
            Source::Connection => self.blame(topic),
            // One that acts is not sent again.
            Source::Order(_) => {}
        }
        true
    }

    /// Maximum messages in flight.
    pub(super) fn window(&self) -> usize {
        if self.careful > 0 { 1 } else { WINDOW }
    }

    /// The broker took a message.
    pub(super) fn acknowledged(&mut self) {
        self.careful = self.careful.saturating_sub(1);
    }

    fn blame(&mut self, topic: &str) {
        if !self.topics.contains_key(topic) && self.topics.len() >= TOPICS {
            return;
        }
        let count = self.topics.entry(topic.to_owned()).or_default();
        *count += 1;
        if *count == MAX_ATTEMPTS {
            error!(topic, "the broker ends the connection at this message: it is no longer sent");
        }
    }

    /// Whether a message of the connection itself may be sent.
    pub(super) fn allows(&self, topic: &str) -> bool {
        self.topics.get(topic).is_none_or(|count| *count < MAX_ATTEMPTS)
    }

    /// A hint at another client of this id, if it looks like one.
    pub(super) fn hint(&self, client: &str) -> Option<String> {
        (self.evictions >= IN_A_ROW).then(|| {
            format!(
                "the broker ended {} connections in a row soon after they began: if another client uses the id {client}, give \
                 each device a name of its own (mqtt.device)",
                self.evictions
            )
        })
    }
}
