//! Who may call what. Pure: time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::tool::Class;

/// Who caused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person who spoke.
    Voice,
    /// A message on the `ask` topic, or the command line.
    Ask,
    /// Text that a camera or a tool brought in: data, never an instruction.
    Untrusted,
    /// The agent itself, such as its watch list.
    Agent,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRules {
    /// Origins that may call guarded tools.
    pub guarded_from: Vec<Origin>,
    /// Calls of one tool within a minute at most.
    pub per_minute: usize,
}

impl Default for PolicyRules {
    fn default() -> Self {
        Self { guarded_from: vec![Origin::Voice, Origin::Ask, Origin::Agent], per_minute: 60 }
    }
}

/// What the rules say of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be carried out.
    Allow,
    /// It may not; the reason.
    Refuse(String),
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

    /// Judges a call at the time `now`; an allowed one counts against the rate.
    pub fn decide(&mut self, tool: &str, class: Class, origin: Origin, now: Instant) -> Verdict {
        if class == Class::Internal && origin != Origin::Agent {
            return Verdict::Refuse(format!("{tool} is called by the agent itself only"));
        }
        if class == Class::Guarded && !self.rules.guarded_from.contains(&origin) {
            return Verdict::Refuse(format!(
                "{tool} is guarded and the rules do not allow it from here"
            ));
        }
        let recent = self.recent.entry(tool.to_owned()).or_default();
        while recent.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            recent.pop_front();
        }
        if recent.len() >= self.rules.per_minute {
            return Verdict::Refuse(format!(
                "{tool} was called {} times within a minute",
                recent.len()
            ));
        }
        recent.push_back(now);
        Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_was_read_never_opens_a_guarded_tool() {
        let mut policy = Policy::default();
        let now = Instant::now();
        assert_eq!(policy.decide("set_lock", Class::Guarded, Origin::Voice, now), Verdict::Allow);
        assert!(matches!(
            policy.decide("set_lock", Class::Guarded, Origin::Untrusted, now),
            Verdict::Refuse(_)
        ));
        assert!(matches!(
            policy.decide("raise_alert", Class::Internal, Origin::Voice, now),
            Verdict::Refuse(_)
        ));
        assert_eq!(policy.decide("set_light", Class::Open, Origin::Untrusted, now), Verdict::Allow);
    }

    #[test]
    fn the_rate_is_bounded_and_recovers() {
        let mut policy = Policy::new(PolicyRules { per_minute: 2, ..PolicyRules::default() });
        let now = Instant::now();
        let mut call = |at: Duration| {
            policy.decide("x", Class::Open, Origin::Voice, now + at) == Verdict::Allow
        };
        let seconds = Duration::from_secs;
        assert!(call(seconds(0)) && call(seconds(1)));
        assert!(!call(seconds(59)));
        assert!(call(seconds(60)));
        assert!(!call(seconds(60)));
    }
}
