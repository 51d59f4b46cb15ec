//! `[[watch]]`: a rule of the watch list.

use std::time::Duration;

use outpost_tools::schedule::{Day, Schedule};
use serde::{Deserialize, Serialize};

use crate::config::Faults;
use crate::config::duration::seconds;
use crate::pattern::Pattern;

/// Upper bound of times.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// What to watch for, and the alert to raise. Case and white space are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchRule {
    /// Names the rule in alerts.
    pub name: String,
    /// The whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// A part of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The whole text, with `*` for any characters and `?` for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wildcard: Option<String>,
    /// A regular expression that matches anywhere in the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The whole text, or a run of as many words, within `distance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuzzy: Option<String>,
    /// Maximum edit distance of `fuzzy`.
    pub distance: usize,
    /// A yes-or-no question about the picture, instead of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// The answer that raises the alert.
    pub expect: Answer,
    /// Minimum interval between two times the question is asked.
    #[serde(with = "seconds", rename = "every_seconds")]
    pub every: Duration,
    /// What the alert says.
    pub message: String,
    /// Severity.
    pub severity: Severity,
    /// Days on which the rule is active; all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<Day>>,
    /// Hours of local time, such as `22:00-06:00`; always if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<String>,
    /// A situation ends when the text has been gone for this long; the next match raises a new
    /// alert.
    #[serde(with = "seconds", rename = "cooldown_seconds")]
    pub cooldown: Duration,
}

impl Default for WatchRule {
    fn default() -> Self {
        Self {
            name: String::new(),
            exact: None,
            contains: None,
            wildcard: None,
            regex: None,
            fuzzy: None,
            distance: 1,
            ask: None,
            expect: Answer::Yes,
            every: Duration::from_secs(30),
            message: String::new(),
            severity: Severity::Warning,
            days: None,
            hours: None,
            cooldown: Duration::from_mins(1),
        }
    }
}

/// Severity of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Info,
    /// Should be looked at.
    Warning,
    /// Needs action.
    Critical,
}

impl Severity {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// An answer to a question of the watch list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not.
    No,
}

impl Answer {
    /// The name in configurations and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
        }
    }

    /// Parses the first word of a text.
    pub fn read(text: &str) -> Option<Self> {
        let first = text.split(|c: char| !c.is_alphabetic()).find(|word| !word.is_empty())?;
        [Self::Yes, Self::No].into_iter().find(|answer| first.eq_ignore_ascii_case(answer.as_str()))
    }
}

/// An invalid rule.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// No pattern, or more than one.
    #[error("give one of exact, contains, wildcard, regex, fuzzy or ask")]
    NotOne,
    /// An empty pattern.
    #[error("an empty pattern would fit every picture")]
    Empty,
    /// Invalid regular expression.
    #[error("regex: {0}")]
    Regex(Box<regex::Error>),
    /// Invalid hours.
    #[error("hours = {0:?}: write them as \"22:00-06:00\"")]
    Hours(String),
}

/// What a rule matches.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// A text that was read.
    Text(Pattern),
    /// The answer to a question.
    Ask { question: String, expect: Answer },
}

impl WatchRule {
    /// What it matches.
    pub(crate) fn condition(&self) -> Result<Condition, RuleError> {
        let texts =
            [&self.exact, &self.contains, &self.wildcard, &self.regex, &self.fuzzy, &self.ask];
        let given: Vec<&String> = texts.into_iter().flatten().collect();
        match given[..] {
            [one] if one.trim().is_empty() => return Err(RuleError::Empty),
            [_] => {}
            _ => return Err(RuleError::NotOne),
        }
        let pattern = if let Some(text) = &self.exact {
            Pattern::exact(text)
        } else if let Some(text) = &self.contains {
            Pattern::contains(text)
        } else if let Some(text) = &self.wildcard {
            Pattern::wildcard(text)
        } else if let Some(text) = &self.regex {
            Pattern::regex(text).map_err(|fault| RuleError::Regex(Box::new(fault)))?
        } else if let Some(text) = &self.fuzzy {
            Pattern::fuzzy(text, self.distance)
        } else {
            let question = self.ask.clone().unwrap_or_default();
            return Ok(Condition::Ask { question, expect: self.expect });
        };
        Ok(Condition::Text(pattern))
    }

    /// When it is active.
    pub(crate) fn schedule(&self) -> Result<Schedule, RuleError> {
        let wrong = || RuleError::Hours(self.hours.clone().unwrap_or_default());
        Schedule::new(self.days.as_deref(), self.hours.as_deref()).ok_or_else(wrong)
    }

    pub(crate) fn check(&self, index: usize, faults: &mut Faults) {
        let key = format!("watch[{index}]");
        if self.name.is_empty() {
            faults.add(format!("{key}.name"), "\"\"", "give the rule a name: alerts carry it");
        }
        if let Err(fault) = self.condition() {
            faults.add(&key, "", fault.to_string());
        }
        if let Err(fault) = self.schedule() {
            faults.add(&key, "", fault.to_string());
        }
        if self.days.as_ref().is_some_and(Vec::is_empty) {
            faults.add(format!("{key}.days"), "[]", "leave it out for all days");
        }
        for (name, time) in [("every", self.every), ("cooldown", self.cooldown)] {
            if time > LONGEST {
                let key = format!("{key}.{name}_seconds");
                let most = LONGEST.as_secs();
                faults.add(key, time.as_secs_f64(), format!("use {most} or less"));
            }
        }
    }
}
