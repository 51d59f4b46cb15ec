//! The watch list: texts that raise an alert when the camera reads them. Pure: time is an argument.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::config::{Faults, seconds};
use crate::report::ReportId;

/// A text to watch for. Letters' case and the amount of white space do not matter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchRule {
    /// Names the rule in alerts.
    pub name: String,
    /// The whole text.
    pub exact: Option<String>,
    /// A part of the text.
    pub contains: Option<String>,
    /// The whole text, with `*` for any characters and `?` for one.
    pub wildcard: Option<String>,
    /// What the alert says.
    pub message: String,
    /// The same situation is over when the text was not read for this long; then it raises a new alert.
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
            message: String::new(),
            cooldown: Duration::from_mins(1),
        }
    }
}

impl WatchRule {
    pub(crate) fn check(&self, index: usize, faults: &mut Faults) {
        if self.name.is_empty() {
            faults.add(
                format!("watch[{index}].name"),
                "\"\"",
                "give the rule a name: alerts carry it",
            );
        }
        let patterns = [&self.exact, &self.contains, &self.wildcard];
        let given: Vec<&String> = patterns.into_iter().flatten().collect();
        if given.len() != 1 {
            faults.add(format!("watch[{index}]"), "", "give one of exact, contains or wildcard");
        }
        if given.iter().any(|pattern| pattern.trim().is_empty()) {
            faults.add(
                format!("watch[{index}]"),
                "\"\"",
                "an empty pattern would match every picture",
            );
        }
    }

    /// Whether a text that was read is the one to watch for.
    pub fn matches(&self, text: &str) -> bool {
        let text = normal(text);
        let is = |pattern: &Option<String>, test: &dyn Fn(&str, &str) -> bool| {
            pattern.as_deref().is_some_and(|pattern| test(&normal(pattern), &text))
        };
        is(&self.exact, &|pattern, text| pattern == text)
            || is(&self.contains, &|pattern, text| text.contains(pattern))
            || is(&self.wildcard, &|pattern, text| wildcard(pattern, text))
    }
}

/// Upper case, words separated by one space.
fn normal(text: &str) -> String {
    text.split_whitespace().map(str::to_uppercase).collect::<Vec<_>>().join(" ")
}

/// Whether `text` fits `pattern`, with `*` for any characters and `?` for one. Linear memory, quadratic time at worst.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A rule that fits what was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The situation.
    pub alert: ReportId,
    /// The rule's name.
    pub rule: String,
    /// The rule's message.
    pub message: String,
    /// How often the text was read in this situation; 1 begins a situation.
    pub count: u64,
}

/// The watch list and the situations under way.
#[derive(Debug, Default)]
pub struct WatchList {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    rule: WatchRule,
    situation: Option<Situation>,
}

#[derive(Debug)]
struct Situation {
    alert: ReportId,
    seen: Instant,
    count: u64,
}

impl WatchList {
    /// A list with no situation under way.
    pub fn new(rules: Vec<WatchRule>) -> Self {
        Self { entries: rules.into_iter().map(|rule| Entry { rule, situation: None }).collect() }
    }

    /// The rules that a text fits. A situation goes on, under its first id, as long as its text is read again within the
    /// cool-down.
    pub fn read(&mut self, text: &str, now: Instant) -> Vec<Match> {
        let fitting = self.entries.iter_mut().filter(|entry| entry.rule.matches(text));
        fitting
            .map(|Entry { rule, situation }| {
                let (alert, count) = match situation {
                    Some(known) if now < known.seen + rule.cooldown => {
                        (known.alert, known.count + 1)
                    }
                    _ => (ReportId::new(), 1),
                };
                *situation = Some(Situation { alert, seen: now, count });
                Match { alert, rule: rule.name.clone(), message: rule.message.clone(), count }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(edit: impl FnOnce(&mut WatchRule)) -> WatchRule {
        let mut rule = WatchRule { name: "rule".into(), ..WatchRule::default() };
        edit(&mut rule);
        rule
    }

    #[test]
    fn rules_match_whole_parts_and_patterns() {
        let exact = rule(|rule| rule.exact = Some("Exit 4".into()));
        assert!(exact.matches("EXIT  4"));
        assert!(!exact.matches("EXIT 45"));
        let contains = rule(|rule| rule.contains = Some("danger".into()));
        assert!(contains.matches("HIGH DANGER ZONE"));
        assert!(!contains.matches("HIGH ANGER"));
        let wildcard = rule(|rule| rule.wildcard = Some("b-?? 1*".into()));
        for (text, fits) in [
            ("B-AB 123", true),
            ("B-AB 1", true),
            ("B-ABC 123", false),
            ("XB-AB 123", false),
            ("B-AB 2", false),
        ] {
            assert_eq!(wildcard.matches(text), fits, "{text}");
        }
    }

    #[test]
    fn stars_backtrack() {
        for (pattern, text, fits) in [
            ("*A*B", "XAYAB", true),
            ("A*", "A", true),
            ("*", "", true),
            ("A*C", "ABCD", false),
            ("", "", true),
        ] {
            assert_eq!(wildcard(pattern, text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn one_situation_is_one_alert_until_the_cool_down_passed() {
        let mut list = WatchList::new(vec![rule(|rule| rule.contains = Some("FIRE".into()))]);
        let start = Instant::now();
        let read = |list: &mut WatchList, text: &str, after: u64| {
            list.read(text, start + Duration::from_secs(after))
        };
        let first = read(&mut list, "FIRE", 0).pop().expect("an alert");
        let again = read(&mut list, "FIRE DOOR", 59).pop().expect("the same alert");
        assert_eq!((again.alert, again.count), (first.alert, 2));
        assert!(read(&mut list, "EXIT", 60).is_empty());
        let later = read(&mut list, "FIRE", 119).pop().expect("a new alert");
        assert_ne!(later.alert, first.alert);
        assert_eq!(later.count, 1);
    }
}
