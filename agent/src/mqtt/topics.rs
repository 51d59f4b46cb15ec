//! The topics of the MQTT contract (`docs/mqtt.md`): the only place where one is spelt.

use crate::event::Setting;

/// Topics of one device, below `outpost/<device>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
}

/// What a message that arrived is about.
#[derive(Debug, Clone, Copy)]
pub enum Incoming {
    /// A question or command.
    Ask,
    /// A setting: builds it from on or off.
    Set(fn(bool) -> Setting),
    /// A picture that was kept is wanted.
    Evidence,
}

impl Topics {
    /// The topics of a device.
    pub fn new(device: &str) -> Self {
        Self { base: format!("outpost/{device}") }
    }

    /// A topic below the base.
    pub fn below(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// `online` or `offline`, retained; the last will.
    pub fn status(&self) -> String {
        self.below("status")
    }

    /// What the device is, retained.
    pub fn info(&self) -> String {
        self.below("info")
    }

    /// What the agent subscribes to.
    pub fn subscriptions(&self) -> [String; 3] {
        [self.below("ask"), self.below("set/+"), self.below("get/evidence")]
    }

    /// What a topic that arrived is for; none where it is nothing of ours.
    pub fn incoming(&self, topic: &str) -> Option<Incoming> {
        match topic.strip_prefix(&self.base)?.strip_prefix('/')? {
            "ask" => Some(Incoming::Ask),
            "get/evidence" => Some(Incoming::Evidence),
            "set/mute" => Some(Incoming::Set(Setting::Mute)),
            "set/camera" => Some(Incoming::Set(Setting::Camera)),
            _ => None,
        }
    }
}
