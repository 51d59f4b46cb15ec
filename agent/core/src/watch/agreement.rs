//! Agreement: which of several readings of a scene to believe. Pure.

use std::cmp::Reverse;

use crate::config::AgreementConfig;
use crate::pattern::normal;

/// State of the agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Another reading is needed.
    Undecided,
    /// Enough agree. `None`: on no text.
    Agreed(Option<String>),
    /// The maximum was reached without agreement.
    Disagreed,
}

/// Readings of a scene. Similar texts agree; no text agrees with no text.
#[derive(Debug, Clone)]
pub struct Agreement {
    config: AgreementConfig,
    /// Empty if no text was found.
    readings: Vec<String>,
}

impl Agreement {
    /// Starts without readings.
    pub fn new(config: AgreementConfig) -> Self {
        Self { config, readings: Vec::new() }
    }

    /// Adds a reading; `None` without text.
    pub fn add(&mut self, reading: Option<String>) -> Verdict {
        self.readings.push(reading.unwrap_or_default());
        // While more can come, only identical readings decide: two that differ in a digit may both
        // be wrong.
        match self.believed(0) {
            Some(text) => agreed(text),
            None if self.readings.len() < self.config.of => Verdict::Undecided,
            None => self.finish(),
        }
    }

    /// State of the agreement.
    pub fn finish(&self) -> Verdict {
        self.believed(self.config.distance).map_or(Verdict::Disagreed, agreed)
    }

    /// Readings so far.
    pub fn count(&self) -> usize {
        self.readings.len()
    }

    /// Readings that do not agree with the verdict; empty if without text.
    pub fn rejected(&self, verdict: &Verdict) -> Vec<String> {
        let believed = match verdict {
            Verdict::Agreed(text) => text.as_deref().unwrap_or_default(),
            Verdict::Undecided | Verdict::Disagreed => return self.readings.clone(),
        };
        let rejected = |reading: &&String| !alike(reading, believed, self.config.distance);
        self.readings.iter().filter(rejected).cloned().collect()
    }

    /// The reading with most agreement, if it is enough. Ties go to the one closest to all others,
    /// then to the first.
    fn believed(&self, distance: usize) -> Option<&str> {
        let rank = |(index, reading): (usize, &String)| {
            let others = self.readings.iter().filter(|other| alike(reading, other, distance));
            let distances: Vec<usize> = others.map(|other| letters(reading, other)).collect();
            let same = distances.iter().filter(|distance| **distance == 0).count();
            (distances.len(), same, Reverse((distances.iter().sum::<usize>(), index)))
        };
        let best = self.readings.iter().enumerate().max_by_key(|reading| rank(*reading))?;
        (rank(best).0 >= self.config.agree).then_some(best.1)
    }
}

fn agreed(text: &str) -> Verdict {
    Verdict::Agreed((!text.is_empty()).then(|| text.to_owned()))
}

fn alike(one: &str, other: &str, distance: usize) -> bool {
    one.is_empty() == other.is_empty() && letters(one, other) <= distance
}

/// Edit distance, ignoring case and white space.
fn letters(one: &str, other: &str) -> usize {
    strsim::levenshtein(&normal(one), &normal(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict after each reading; an empty text is none.
    fn verdicts(config: (usize, usize, usize), readings: &[&str]) -> (Vec<Verdict>, Vec<String>) {
        let (agree, of, distance) = config;
        let mut agreement = Agreement::new(AgreementConfig { agree, of, distance });
        let read = |text: &&str| (!text.is_empty()).then(|| (*text).to_owned());
        let all: Vec<Verdict> = readings.iter().map(|text| agreement.add(read(text))).collect();
        let rejected = agreement.rejected(all.last().unwrap());
        (all, rejected)
    }

    #[test]
    fn two_of_three() {
        use Verdict::{Disagreed, Undecided};
        let table: [(&[&str], Verdict, &[&str]); 7] = [
            (&["EXIT 4", "exit  4"], agreed("EXIT 4"), &[]),
            (&["EXIT 4", "", "EXIT 4"], agreed("EXIT 4"), &[""]),
            (&["COOD", "EXIT 4", "EXIT 4"], agreed("EXIT 4"), &["COOD"]),
            (&["", ""], Verdict::Agreed(None), &[]),
            (&["EXIT 4", "EX1T 4", "EXIT 7"], agreed("EXIT 4"), &[]),
            (&["ONE", "TWO", "SIX"], Disagreed, &["ONE", "TWO", "SIX"]),
            (&["EXIT 4", "EXIT 5"], Undecided, &["EXIT 4", "EXIT 5"]),
        ];
        for (readings, expected, rejected) in table {
            let (all, refused) = verdicts((2, 3, 1), readings);
            assert_eq!(all.last(), Some(&expected), "{readings:?}");
            assert_eq!(refused, rejected, "{readings:?}");
            assert!(all[..all.len() - 1].iter().all(|verdict| *verdict == Undecided));
        }
    }

    #[test]
    fn one_reading_is_enough_where_one_is_asked_for_and_no_distance_is_none() {
        assert_eq!(verdicts((1, 1, 1), &["EXIT 4"]).0, [agreed("EXIT 4")]);
        assert_eq!(verdicts((2, 2, 0), &["EXIT 4", "EXIT 5"]).0[1], Verdict::Disagreed);
        // Nothing is never like a letter.
        assert_eq!(verdicts((2, 2, 1), &["", "A"]).0[1], Verdict::Disagreed);
    }
}
