//! The topics of the MQTT contract (`docs/mqtt.md`): the only place where one is spelt.

use outpost_agent_core::event::Setting;

use crate::wishes::Scope;

/// A longer topic for answers is refused, bytes.
const MAX_RESPONSE_TOPIC: usize = 256;

/// Where it is said what is desired of a device, or of all of a group.
const DESIRED: &str = "config/desired";

/// Topics of one device, below `outpost/<device>`, and of its group, below `outpost/@<group>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
    /// The group and its base.
    group: Option<(String, String)>,
}

/// What a message that arrived is about.
#[derive(Debug, Clone, Copy)]
pub enum Incoming {
    /// A question or command.
    Ask(AskForm),
    /// A setting: builds it from on or off.
    Set(fn(bool) -> Setting),
    /// A picture that was kept is wanted.
    Evidence,
    /// A call may be carried out, or may not.
    Confirm,
}

/// What a program that offers a tool says, with the tool's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolTopic<'a> {
    /// What the tool is; empty: it is no longer offered.
    Definition(&'a str),
    /// What came of a call.
    Result(&'a str),
}

/// What the payload of a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskForm {
    /// JSON or the bare prompt.
    Text,
    /// A WAV file.
    Audio,
    /// A picture file.
    Image,
}

impl Topics {
    /// The topics of a device.
    pub fn new(device: &str) -> Self {
        Self { base: format!("outpost/{device}"), group: None }
    }

    /// The topics of a device that belongs to a group.
    #[must_use]
    pub fn in_group(self, group: Option<&str>) -> Self {
        let group = group.map(|group| (group.to_owned(), format!("outpost/@{group}")));
        Self { group, ..self }
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

    /// How the outbox fares, retained.
    pub fn outbox(&self) -> String {
        self.below("outbox")
    }

    /// What the agent subscribes to. A question to the group goes to one of its devices, a setting to all.
    pub fn subscriptions(&self) -> Vec<String> {
        let own = ["ask", "ask/+", "set/+", "get/evidence", DESIRED].map(|path| self.below(path));
        let group = self.group.iter().flat_map(|(group, base)| {
            let shared = ["ask", "ask/+"].map(|path| format!("$share/{group}/{base}/{path}"));
            let all = ["set/+", DESIRED].map(|path| format!("{base}/{path}"));
            shared.into_iter().chain(all)
        });
        own.into_iter().chain(group).collect()
    }

    /// What a topic that arrived is for; none where it is nothing of ours.
    pub fn incoming(&self, topic: &str) -> Option<Incoming> {
        let group = self.group.as_ref().map(|(_, base)| base.as_str());
        let below = |base: &str| topic.strip_prefix(base)?.strip_prefix('/');
        // A group agrees to nothing: each call is of one device.
        if below(&self.base) == Some("set/confirm") {
            return Some(Incoming::Confirm);
        }
        match below(&self.base).or_else(|| below(group?))? {
            "ask" => Some(Incoming::Ask(AskForm::Text)),
            "ask/audio" => Some(Incoming::Ask(AskForm::Audio)),
            "ask/image" => Some(Incoming::Ask(AskForm::Image)),
            "get/evidence" => Some(Incoming::Evidence),
            "set/mute" => Some(Incoming::Set(Setting::Mute)),
            "set/listen" => Some(Incoming::Set(Setting::Listen)),
            "set/camera" => Some(Incoming::Set(Setting::Camera)),
            _ => None,
        }
    }

    /// Whom a topic says what is desired of; none where it does not.
    pub fn desired(&self, topic: &str) -> Option<Scope> {
        let is_below = |base: &str| {
            topic.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')) == Some(DESIRED)
        };
        if is_below(&self.base) {
            Some(Scope::Device)
        } else {
            self.group.as_ref().filter(|(_, base)| is_below(base)).map(|_| Scope::Group)
        }
    }

    /// What programs that offer tools are listened to on.
    pub fn of_tools(&self) -> [String; 2] {
        ["tools/+", "tools/+/result"].map(|path| self.below(path))
    }

    /// What a program that offers a tool says on a topic; none where it is no topic of tools.
    pub fn tool<'a>(&self, topic: &'a str) -> Option<ToolTopic<'a>> {
        let rest = topic.strip_prefix(&self.base)?.strip_prefix("/tools/")?;
        match rest.split_once('/') {
            None => Some(ToolTopic::Definition(rest)),
            Some((name, "result")) => Some(ToolTopic::Result(name)),
            Some(_) => None,
        }
    }

    /// Whether an answer may go to a topic that an asker chose: to none through which this or another device would be told what
    /// to do, and to none of the broker's own.
    pub fn may_respond(&self, topic: &str) -> bool {
        !topic.is_empty()
            && topic.len() <= MAX_RESPONSE_TOPIC
            && !topic.contains(['+', '#', '\0'])
            && !topic.starts_with('$')
            && !topic.starts_with("outpost/")
    }
}
