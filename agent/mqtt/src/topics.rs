//! Topics of the MQTT contract (`docs/mqtt.md`); spelled out nowhere else.

pub use outpost_agent_core::config::id;
use outpost_agent_core::event::Setting;
use uuid::Uuid;

use crate::desired_config::Scope;

/// The client id of a program that connects for a while beside the agent. Its last digits are random, and it is short: not every
/// broker of MQTT 3.1.1 takes more than 23 characters.
pub fn passing_client(program: &str) -> String {
    let random = Uuid::now_v7().simple().to_string();
    format!("outpost-{program}-{}", &random[24..])
}

/// Maximum length of a response topic in bytes.
const MAX_RESPONSE_TOPIC: usize = 256;

/// Topic of desired configurations.
const DESIRED: &str = "config/desired";

/// Topics of a device, below `outpost/<device>`, and of its group, below `outpost/@<group>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    base: String,
    /// The group and its base.
    group: Option<(String, String)>,
}

/// Meaning of an incoming topic.
#[derive(Debug, Clone, Copy)]
pub enum Incoming {
    /// A question or command.
    Ask(AskForm),
    /// A setting; builds it from on or off.
    Set(fn(bool) -> Setting),
    /// A request for evidence.
    Evidence,
    /// A confirmation.
    Confirm,
}

impl Incoming {
    /// Whether its topic is below `set/`.
    pub fn is_setting(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Confirm)
    }
}

/// A message from a program that offers a tool, with the tool's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolTopic<'a> {
    /// The definition; empty to withdraw it.
    Definition(&'a str),
    /// The result of a call.
    Result(&'a str),
}

/// What is retained of a device or a group, for who looks after a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FleetTopic {
    /// `online` or `offline`.
    Status,
    /// What the device is.
    Info,
    /// The settings that are wanted.
    Desired,
    /// The settings in force.
    Reported,
}

impl FleetTopic {
    const ALL: [(Self, &str); 4] = [
        (Self::Status, "status"),
        (Self::Info, "info"),
        (Self::Desired, DESIRED),
        (Self::Reported, "config/reported"),
    ];

    /// Filters for all devices and groups.
    pub fn filters() -> [String; 4] {
        Self::ALL.map(|(_, path)| format!("outpost/+/{path}"))
    }

    /// Name of the device, or `@` and that of the group, and what the topic is for; `None` for other topics.
    pub fn parse(topic: &str) -> Option<(&str, Self)> {
        let (name, path) = topic.strip_prefix("outpost/")?.split_once('/')?;
        let (kind, _) = Self::ALL.into_iter().find(|(_, known)| *known == path)?;
        Some((name, kind))
    }
}

/// Payload of an ask.
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

    /// The name of the group.
    pub fn group(&self) -> Option<&str> {
        self.group.as_ref().map(|(name, _)| name.as_str())
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

    /// Where the doctor tries whether it may publish.
    pub fn probe(&self) -> String {
        self.below("event/probe")
    }

    /// Whether a message on this topic is a command to a device of the house.
    pub fn is_command(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|path| path.starts_with("command/"))
    }

    /// Whether it is one of the device's own.
    pub fn is_own(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'))
    }

    /// How the outbox fares, retained.
    pub fn outbox(&self) -> String {
        self.below("outbox")
    }

    /// Subscriptions of the agent. An ask to the group goes to one device (shared subscription), a
    /// setting to all.
    pub fn subscriptions(&self) -> Vec<String> {
        let own = ["ask", "ask/+", "set/+", "get/evidence", DESIRED].map(|path| self.below(path));
        let group = self.group.iter().flat_map(|(group, base)| {
            let shared = ["ask", "ask/+"].map(|path| format!("$share/{group}/{base}/{path}"));
            let all = ["set/+", DESIRED].map(|path| format!("{base}/{path}"));
            shared.into_iter().chain(all)
        });
        own.into_iter().chain(group).collect()
    }

    /// Maps an incoming topic; `None` for foreign topics.
    pub fn incoming(&self, topic: &str) -> Option<Incoming> {
        let group = self.group.as_ref().map(|(_, base)| base.as_str());
        let below = |base: &str| topic.strip_prefix(base)?.strip_prefix('/');
        // A group cannot confirm: each call belongs to one device.
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

    /// Scope of a desired configuration; `None` for other topics.
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

    /// The topics of desired configurations, with the scope of each.
    pub fn desired_topics(&self) -> Vec<(String, Scope)> {
        let group = self.group.iter().map(|(_, base)| (format!("{base}/{DESIRED}"), Scope::Group));
        group.chain([(self.below(DESIRED), Scope::Device)]).collect()
    }

    /// Filters for programs that offer tools.
    pub fn of_tools(&self) -> [String; 2] {
        ["tools/+", "tools/+/result"].map(|path| self.below(path))
    }

    /// Parses a tool topic; `None` for others.
    pub fn tool<'a>(&self, topic: &'a str) -> Option<ToolTopic<'a>> {
        let rest = topic.strip_prefix(&self.base)?.strip_prefix("/tools/")?;
        match rest.split_once('/') {
            None => Some(ToolTopic::Definition(rest)),
            Some((name, "result")) => Some(ToolTopic::Result(name)),
            Some(_) => None,
        }
    }

    /// Whether an answer may be sent to this topic: not to one that controls a device, and not to
    /// the broker's own.
    pub fn may_respond(&self, topic: &str) -> bool {
        !topic.is_empty()
            && topic.len() <= MAX_RESPONSE_TOPIC
            && !topic.contains(['+', '#', '\0'])
            && !topic.starts_with('$')
            && !topic.starts_with("outpost/")
    }
}
