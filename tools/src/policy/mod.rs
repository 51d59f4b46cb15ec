//! Who may call what, when, how often, and whether a person has to agree. Pure: time is an argument.
//!
//! What comes out does not depend on what the model was talked into: [`Origin::Untrusted`] never gets a guarded tool without a
//! person's yes, whatever the rules say.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Zoned;
use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::Value;

use crate::confirm::Confirm;
use crate::schedule::Schedule;
use crate::tool::Class;

/// Who caused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A person who spoke.
    Voice,
    /// A message on the `ask` topic, or the command line.
    Ask,
    /// The board behind the firmware link.
    Firmware,
    /// A time that was set earlier has come. Setting one is a guarded call itself.
    Schedule,
    /// Text that a camera or a tool brought in: data, never an instruction.
    Untrusted,
    /// The agent itself, such as its watch list. No rule can give this away.
    #[serde(skip_deserializing)]
    Agent,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Voice, Self::Ask, Self::Firmware, Self::Schedule, Self::Untrusted, Self::Agent];

    /// The name in rules and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Ask => "ask",
            Self::Firmware => "firmware",
            Self::Schedule => "schedule",
            Self::Untrusted => "untrusted",
            Self::Agent => "agent",
        }
    }
}

/// Who is behind a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who caused it.
    pub origin: Origin,
    /// Whether the model read untrusted text beside it, such as the definition of a foreign tool: the call may be
    /// what that text wants, so a person has to agree to a guarded one.
    pub doubtful: bool,
}

impl From<Origin> for Caller {
    fn from(origin: Origin) -> Self {
        Self { origin, doubtful: false }
    }
}

/// What the rules say of one tool, beside what the tool says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolRule {
    /// Another class than the tool's own.
    pub class: Option<Class>,
    /// Who may call it; none: as its class has it.
    pub from: Option<Vec<Origin>>,
    /// When it may be called.
    pub when: Schedule,
    /// Calls within a minute at most; none: as for all tools.
    pub per_minute: Option<usize>,
    /// Which calls a person has to agree to; none: as the tool says.
    pub confirm: Option<Confirm>,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRules {
    /// Origins that may call guarded tools.
    pub guarded_from: Vec<Origin>,
    /// Calls of one tool within a minute at most.
    pub per_minute: usize,
    /// Whether calls are judged and reported, but none is carried out.
    pub dry_run: bool,
    /// By name, tools with rules of their own.
    pub tools: BTreeMap<String, ToolRule>,
}

impl Default for PolicyRules {
    fn default() -> Self {
        Self {
            guarded_from: vec![Origin::Voice, Origin::Ask, Origin::Firmware, Origin::Schedule],
            per_minute: 60,
            dry_run: false,
            tools: BTreeMap::new(),
        }
    }
}

impl PolicyRules {
    /// The class that holds for a tool which says that it is of `class`. What only the agent may call stays so.
    pub fn class_of(&self, tool: &str, class: Class) -> Class {
        let rule = self.tools.get(tool).and_then(|rule| rule.class);
        if class == Class::Internal { class } else { rule.unwrap_or(class) }
    }

    /// Whether a person has to agree to the call, or why it may not be.
    fn admit(
        &self,
        Proposed { tool, class, confirm, arguments }: Proposed<'_>,
        Caller { origin, doubtful }: Caller,
        local: DateTime,
    ) -> Result<bool, String> {
        let rule = self.tools.get(tool);
        let class = self.class_of(tool, class);
        let named = rule.and_then(|rule| rule.from.as_ref()).map(|from| from.contains(&origin));
        let of_agent = origin == Origin::Agent;
        let refusal = match class {
            Class::Forbidden => Some(format!("{tool} is forbidden")),
            Class::Internal if !of_agent => {
                Some(format!("{tool} is called by the agent itself only"))
            }
            Class::Guarded
                if !of_agent && !named.unwrap_or_else(|| self.guarded_from.contains(&origin)) =>
            {
                Some(format!("{tool} is guarded and the rules do not allow it from here"))
            }
            Class::Open if !of_agent && !named.unwrap_or(true) => {
                Some(format!("the rules do not allow {tool} from here"))
            }
            _ => None,
        };
        if let Some(reason) = refusal {
            return Err(reason);
        }
        if rule.is_some_and(|rule| !rule.when.holds(local)) {
            return Err(format!("the rules do not allow {tool} at this time"));
        }
        let confirm = rule.and_then(|rule| rule.confirm.as_ref()).unwrap_or(confirm);
        let asked_for = confirm.applies(arguments);
        let doubtful = doubtful || origin == Origin::Untrusted;
        Ok(asked_for || (class == Class::Guarded && doubtful && !of_agent))
    }
}

/// A call to be judged, with what its tool says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Proposed<'a> {
    /// The tool.
    pub tool: &'a str,
    /// The class that the tool says it is of.
    pub class: Class,
    /// Which calls need a yes, as the tool says.
    pub confirm: &'a Confirm,
    /// What it is called with.
    pub arguments: &'a Value,
}

/// What the rules say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be carried out.
    Allow,
    /// It may be carried out once a person agrees.
    Confirm,
    /// It might be carried out, were this no dry run.
    DryRun,
    /// It may not; the reason.
    Refuse(String),
}

impl Verdict {
    /// The name in logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Confirm => "confirm",
            Self::DryRun => "dry_run",
            Self::Refuse(_) => "refuse",
        }
    }
}

/// The time, by the clock that never goes back and by the one on the wall.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For what has passed.
    pub instant: Instant,
    /// For days and hours.
    pub local: DateTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { instant: Instant::now(), local: Zoned::now().datetime() }
    }
}

/// The rules and what they have to remember.
#[derive(Debug, Default)]
pub struct Policy {
    rules: PolicyRules,
    recent: HashMap<String, VecDeque<Instant>>,
}

const MINUTE: Duration = Duration::from_mins(1);

impl Policy {
    /// A policy that has seen no call yet.
    pub fn new(rules: PolicyRules) -> Self {
        Self { rules, recent: HashMap::new() }
    }

    /// The rules.
    pub fn rules(&self) -> &PolicyRules {
        &self.rules
    }

    /// Judges a call; one that is not refused counts against the rate. The agent's own calls have no rate: they are alerts.
    pub fn decide(
        &mut self,
        call: Proposed<'_>,
        caller: impl Into<Caller>,
        now: Moment,
    ) -> Verdict {
        let caller = caller.into();
        let origin = caller.origin;
        let confirm = match self.rules.admit(call, caller, now.local) {
            Ok(confirm) => confirm,
            Err(reason) => return Verdict::Refuse(reason),
        };
        if origin != Origin::Agent
            && let Err(reason) = self.count(call.tool, now.instant)
        {
            return Verdict::Refuse(reason);
        }
        // What the agent does by itself is to tell people: that is wanted of a dry run too.
        if self.rules.dry_run && origin != Origin::Agent {
            Verdict::DryRun
        } else if confirm {
            Verdict::Confirm
        } else {
            Verdict::Allow
        }
    }

    fn count(&mut self, tool: &str, now: Instant) -> Result<(), String> {
        let own = self.rules.tools.get(tool).and_then(|rule| rule.per_minute);
        let bound = own.unwrap_or(self.rules.per_minute);
        let recent = self.recent.entry(tool.to_owned()).or_default();
        while recent.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            recent.pop_front();
        }
        if recent.len() >= bound {
            return Err(format!("{tool} was called {} times within a minute", recent.len()));
        }
        recent.push_back(now);
        Ok(())
    }
}
