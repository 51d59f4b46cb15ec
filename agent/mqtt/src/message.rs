//! An MQTT message to send.

/// How long a message is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Until it is delivered, across restarts.
    #[default]
    Durable,
    /// Until it is delivered or the agent ends: the next run reports what is the case then.
    Volatile,
    /// As long as there is a connection: it is useless later.
    Fleeting,
}

/// A message to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The topic.
    pub topic: String,
    /// JSON text, or `online` and `offline`.
    pub payload: Vec<u8>,
    /// Retained.
    pub retain: bool,
    /// Whether it overtakes others in the outbox.
    pub urgent: bool,
    /// How long it is kept.
    pub keep: Keep,
    /// Whether it goes last, and is dropped first.
    pub bulky: bool,
    /// Correlation data (MQTT 5).
    pub correlation: Option<Vec<u8>>,
    /// Response topic (MQTT 5).
    pub response_topic: Option<String>,
    /// The call that it settles: once stored, the call is no longer in flight.
    pub settles: Option<String>,
}

impl Message {
    /// A message that is kept until delivered.
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), ..Self::default() }
    }

    /// Whether it is stored across restarts.
    pub fn is_durable(&self) -> bool {
        self.keep == Keep::Durable
    }

    /// How many bytes of a payload a packet of `max_packet` bytes has room for.
    pub fn room(&self, max_packet: usize) -> usize {
        const HEADERS: usize = 32;
        let correlation = self.correlation.as_ref().map_or(0, Vec::len);
        max_packet.saturating_sub(self.topic.len() + correlation + HEADERS)
    }

    /// Whether it can be delivered at all: valid topic, and within `max_packet` bytes.
    pub fn is_deliverable(&self, max_packet: usize) -> bool {
        !self.topic.is_empty()
            && u16::try_from(self.topic.len()).is_ok()
            && !self.topic.contains(['+', '#', '\0'])
            && self.payload.len() <= self.room(max_packet)
    }
}
