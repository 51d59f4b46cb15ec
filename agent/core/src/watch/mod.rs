//! The watch list: matches what the camera reads, and tracks ongoing situations. Pure: time is an
//! argument.

pub mod agreement;

use std::time::Instant;

use outpost_tools::Moment;
use outpost_tools::schedule::Schedule;

use crate::config::{Answer, Condition, RuleError, Severity, WatchRule};
use crate::report::ReportId;

/// A match.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The situation's alert.
    pub alert: ReportId,
    /// The rule's name.
    pub rule: String,
    /// The rule's severity.
    pub severity: Severity,
    /// The rule's message.
    pub message: String,
    /// How often it was seen; 1 starts a situation.
    pub count: u64,
}

/// A due question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Index of the rule, for [`WatchList::answer`].
    pub rule: usize,
    /// The rule's name.
    pub name: String,
    /// What it asks.
    pub question: String,
}

/// The watch list and ongoing situations.
#[derive(Debug, Default)]
pub struct WatchList {
    entries: Vec<Entry>,
    /// Situations that are over, until [`WatchList::over`] takes them.
    over: Vec<ReportId>,
}

#[derive(Debug)]
struct Entry {
    rule: WatchRule,
    condition: Condition,
    schedule: Schedule,
    situation: Option<Situation>,
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Situation {
    alert: ReportId,
    count: u64,
    /// Since when it is out of sight.
    away: Option<Instant>,
}

impl WatchList {
    /// Creates a list without situations.
    ///
    /// # Errors
    /// If a rule is invalid; validating the configuration catches that.
    pub fn new(rules: Vec<WatchRule>) -> Result<Self, RuleError> {
        let entry = |rule: WatchRule| {
            let condition = rule.condition()?;
            let schedule = rule.schedule()?;
            Ok(Entry { rule, condition, schedule, situation: None, asked: None })
        };
        let entries = rules.into_iter().map(entry).collect::<Result<_, RuleError>>()?;
        Ok(Self { entries, over: Vec::new() })
    }

    /// Replaces the rules. Unchanged ones keep their situation; the others' are over.
    ///
    /// # Errors
    /// If a rule is invalid; nothing changes.
    pub fn change(&mut self, rules: &[WatchRule]) -> Result<(), RuleError> {
        if self.entries.iter().map(|entry| &entry.rule).eq(rules) {
            return Ok(());
        }
        let mut changed = Self::new(rules.to_vec())?;
        for entry in &mut changed.entries {
            if let Some(at) = self.entries.iter().position(|known| known.rule == entry.rule) {
                *entry = self.entries.swap_remove(at);
            }
        }
        let dropped = self.entries.iter().filter_map(|entry| entry.situation.as_ref());
        changed.over = self.over.drain(..).chain(dropped.map(|known| known.alert)).collect();
        *self = changed;
        Ok(())
    }

    /// Matches a reading; none if there is no text.
    pub fn read(&mut self, text: Option<&str>, now: Moment) -> Vec<Match> {
        self.expire(now);
        let holding = self.entries.iter_mut().filter(|entry| entry.schedule.holds(now.local));
        holding
            .filter_map(|entry| {
                let Condition::Text(pattern) = &entry.condition else { return None };
                let fits = text.is_some_and(|text| pattern.matches(text));
                entry.see(fits, now.instant)
            })
            .collect()
    }

    /// The due questions. Each stays due until it is answered.
    pub fn questions(&self, now: Moment) -> Vec<Question> {
        let due = |(rule, entry): (usize, &Entry)| {
            let Condition::Ask { question, .. } = &entry.condition else { return None };
            let waits = entry.asked.is_some_and(|asked| now.instant < asked + entry.rule.every);
            if waits || !entry.schedule.holds(now.local) {
                return None;
            }
            Some(Question { rule, name: entry.rule.name.clone(), question: question.clone() })
        };
        self.entries.iter().enumerate().filter_map(due).collect()
    }

    /// The rule of a question; `None` if the list changed meanwhile.
    fn of(&mut self, question: &Question) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(question.rule)?;
        let Condition::Ask { question: asks, .. } = &entry.condition else { return None };
        (*asks == question.question && entry.rule.name == question.name).then_some(entry)
    }

    /// Matches the model's answer to a question, which is not due again for a while. One that is neither yes nor no changes nothing
    /// else.
    pub fn answer(
        &mut self,
        question: &Question,
        answer: Option<Answer>,
        now: Moment,
    ) -> Option<Match> {
        self.expire(now);
        let entry = self.of(question)?;
        entry.asked = Some(now.instant);
        let Condition::Ask { expect, .. } = entry.condition else { return None };
        entry.see(answer? == expect, now.instant)
    }

    /// Nobody looks from now on: what was in sight is out of sight.
    pub fn look_away(&mut self, now: Instant) {
        for situation in self.entries.iter_mut().filter_map(|entry| entry.situation.as_mut()) {
            situation.away.get_or_insert(now);
        }
    }

    /// Takes the situations that are over.
    pub fn over(&mut self, now: Moment) -> Vec<ReportId> {
        self.expire(now);
        std::mem::take(&mut self.over)
    }

    /// When the next situation is over if it stays out of sight.
    pub fn next_end(&self) -> Option<Instant> {
        self.entries.iter().filter_map(Entry::end).min()
    }

    /// Ends situations that were out of sight for their cool-down. A rule that does not hold at this hour sees nothing.
    fn expire(&mut self, now: Moment) {
        for entry in &mut self.entries {
            if !entry.schedule.holds(now.local)
                && let Some(situation) = &mut entry.situation
            {
                situation.away.get_or_insert(now.instant);
            }
            if entry.end().is_some_and(|end| end <= now.instant) {
                self.over.extend(entry.situation.take().map(|known| known.alert));
            }
        }
    }
}

impl Entry {
    fn end(&self) -> Option<Instant> {
        let away = self.situation.as_ref()?.away?;
        // `None` for a cool-down that is longer than clocks count.
        away.checked_add(self.rule.cooldown)
    }

    /// A situation continues under its id until it was out of sight for the cool-down.
    fn see(&mut self, fits: bool, now: Instant) -> Option<Match> {
        if !fits {
            if let Some(situation) = &mut self.situation {
                situation.away.get_or_insert(now);
            }
            return None;
        }
        let (alert, count) = match &self.situation {
            Some(known) => (known.alert, known.count + 1),
            None => (ReportId::new(), 1),
        };
        self.situation = Some(Situation { alert, count, away: None });
        let WatchRule { name, severity, message, .. } = &self.rule;
        Some(Match {
            alert,
            rule: name.clone(),
            severity: *severity,
            message: message.clone(),
            count,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outpost_tools::schedule::Day;

    use super::*;

    /// A clock that begins on a Monday at noon.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, seconds: u64) -> Moment {
            let noon = jiff::civil::date(2026, 11, 23).at(12, 0, 0, 0);
            let passed = jiff::SignedDuration::from_secs(seconds as i64);
            Moment {
                instant: self.0 + Duration::from_secs(seconds),
                local: noon.saturating_add(passed),
            }
        }
    }

    fn list(edit: impl FnOnce(&mut WatchRule)) -> (WatchList, Clock) {
        let mut rule = WatchRule { name: "rule".into(), ..WatchRule::default() };
        edit(&mut rule);
        (WatchList::new(vec![rule]).unwrap(), Clock(Instant::now()))
    }

    #[test]
    fn one_situation_is_one_alert_until_it_was_away_for_the_cool_down() {
        let (mut list, clock) = list(|rule| rule.contains = Some("FIRE".into()));
        let mut read = |text: Option<&str>, at: u64| list.read(text, clock.at(at)).pop();
        let first = read(Some("FIRE"), 0).unwrap();
        let again = read(Some("FIRE DOOR"), 59).unwrap();
        assert_eq!((again.alert, again.count), (first.alert, 2));
        // It stands there all the time: nobody is told again.
        assert_eq!(read(Some("FIRE"), 600).map(|found| found.alert), Some(first.alert));
        // A hand before the lens does not end it.
        assert_eq!(read(None, 610), None);
        assert_eq!(read(Some("FIRE"), 620).map(|found| found.alert), Some(first.alert));
        assert_eq!(read(Some("EXIT"), 630), None);
        // A look after a long rest does not end it at once: it was there until just now.
        assert_eq!(read(Some("FIRE"), 689).map(|found| found.alert), Some(first.alert));
        assert_eq!((read(None, 700), read(None, 710)), (None, None));
        let later = read(Some("FIRE"), 760).unwrap();
        assert_ne!(later.alert, first.alert);
        assert_eq!(later.count, 1);
    }

    #[test]
    fn a_situation_ends_by_itself_once_it_was_out_of_sight_for_the_cool_down() {
        let (mut list, clock) = list(|rule| rule.contains = Some("FIRE".into()));
        let over = |list: &mut WatchList, at: u64| list.over(clock.at(at));
        let first = list.read(Some("FIRE"), clock.at(0)).pop().unwrap();
        assert_eq!((list.next_end(), over(&mut list, 3600)), (None, vec![]));
        list.read(None, clock.at(3600));
        // More looks that miss it do not make it longer.
        list.read(None, clock.at(3650));
        assert_eq!(list.next_end(), Some(clock.at(3660).instant));
        assert_eq!(over(&mut list, 3659), []);
        assert_eq!(over(&mut list, 3660), [first.alert]);
        assert_eq!((list.next_end(), over(&mut list, 3661)), (None, vec![]));

        // Seen again just when it is over, it is another; the first ends all the same.
        let second = list.read(Some("FIRE"), clock.at(4000)).pop().unwrap();
        list.look_away(clock.at(4000).instant);
        let third = list.read(Some("FIRE"), clock.at(4060)).pop().unwrap();
        assert!(third.count == 1 && third.alert != second.alert);
        assert_eq!(over(&mut list, 4060), [second.alert]);
        // A rule that goes takes its situation along.
        list.change(&[]).unwrap();
        assert_eq!(over(&mut list, 4061), [third.alert]);
    }

    #[test]
    fn a_situation_ends_after_the_hours_of_its_rule() {
        let (mut list, clock) = list(|rule| {
            rule.contains = Some("FIRE".into());
            rule.hours = Some("12:00-13:00".into());
        });
        let found = list.read(Some("FIRE"), clock.at(3500)).pop().unwrap();
        assert_eq!(list.over(clock.at(3599)), []);
        assert_eq!(list.over(clock.at(3600)), []);
        assert_eq!(list.over(clock.at(3660)), [found.alert]);
    }

    #[test]
    fn a_list_that_changes_keeps_what_is_under_way() {
        let rule = |text: &str| WatchRule {
            name: text.to_lowercase(),
            contains: Some(text.into()),
            ..WatchRule::default()
        };
        let (mut list, clock) = list(|first| *first = rule("FIRE"));
        let fire = list.read(Some("FIRE"), clock.at(0)).pop().unwrap();
        list.change(&[rule("EXIT"), rule("FIRE")]).unwrap();
        let found = list.read(Some("FIRE EXIT"), clock.at(10));
        let seen: Vec<_> = found.iter().map(|found| (found.rule.as_str(), found.count)).collect();
        assert_eq!(seen, [("exit", 1), ("fire", 2)]);
        assert_eq!(found[1].alert, fire.alert);
        let broken = WatchRule { regex: Some("(".into()), ..WatchRule::default() };
        assert!(list.change(&[broken]).is_err());
        assert_eq!(list.read(Some("FIRE"), clock.at(20)).len(), 1, "all is as it was");
        list.change(&[]).unwrap();
        assert!(list.read(Some("FIRE"), clock.at(30)).is_empty());
    }

    #[test]
    fn a_rule_holds_at_its_hours_only() {
        let (mut list, clock) = list(|rule| {
            rule.exact = Some("FIRE".into());
            rule.days = Some(vec![Day::Mon]);
            rule.hours = Some("13:00-14:00".into());
        });
        assert!(list.read(Some("FIRE"), clock.at(0)).is_empty());
        assert_eq!(list.read(Some("FIRE"), clock.at(3600)).len(), 1);
        assert!(list.read(Some("FIRE"), clock.at(7200)).is_empty());
    }

    #[test]
    fn a_question_is_asked_now_and_then_and_only_the_expected_answer_alerts() {
        let (mut list, clock) = list(|rule| {
            rule.ask = Some("Is the gate open?".into());
            rule.every = Duration::from_secs(30);
        });
        let question = list.questions(clock.at(0)).pop().unwrap();
        assert_eq!(question.question, "Is the gate open?");
        // Nobody asked it yet.
        assert_eq!(list.questions(clock.at(0)).len(), 1);
        assert_eq!(list.answer(&question, None, clock.at(0)), None);
        assert!(list.questions(clock.at(29)).is_empty());
        assert_eq!(list.questions(clock.at(30)).len(), 1);
        assert_eq!(list.answer(&question, Answer::read("No, it is closed."), clock.at(31)), None);
        assert_eq!(
            list.answer(&question, Answer::read("I cannot see a gate."), clock.at(32)),
            None
        );
        let open = list.answer(&question, Answer::read(" yes."), clock.at(33)).unwrap();
        // An answer that is neither does not end the situation.
        assert_eq!(list.answer(&question, None, clock.at(40)), None);
        let again = list.answer(&question, Some(Answer::Yes), clock.at(400)).unwrap();
        assert_eq!((again.alert, again.count), (open.alert, 2));
        // Text is not its business.
        assert!(list.read(Some("YES"), clock.at(401)).is_empty());
    }
}
