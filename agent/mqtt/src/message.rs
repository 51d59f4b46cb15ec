//! An MQTT message to send.

/// A message that is ready to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON text, or `online` and `offline`.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// Whether it overtakes others that wait for the broker.
    pub urgent: bool,
    /// Whether it is of no use later: it is not kept over a restart.
    pub fleeting: bool,
    /// What an MQTT 5 asker knows its answer by.
    pub correlation: Option<Vec<u8>>,
    /// MQTT 5: where an answer to it is wanted.
    pub response_topic: Option<String>,
    /// The call whose end it tells: once it is kept, the call is known to have ended.
    pub settles: Option<String>,
}

impl Message {
    /// A message that is kept until the broker has it, and not after.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), ..Self::default() }
    }

    /// Whether a broker that takes packets of `max_packet` bytes can take it at all: its topic names one topic, and it fits.
    pub fn is_deliverable(&self, max_packet: usize) -> bool {
        const HEADERS: usize = 32;
        let correlation = self.correlation.as_ref().map_or(0, Vec::len);
        !self.topic.is_empty()
            && u16::try_from(self.topic.len()).is_ok()
            && !self.topic.contains(['+', '#', '\0'])
            && self.topic.len() + self.payload.len() + correlation + HEADERS <= max_packet
    }
}
