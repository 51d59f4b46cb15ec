//! On which days and at which hours a rule holds, by the local clock. Pure.

use jiff::civil::{DateTime, Time, Weekday};
use serde::{Deserialize, Serialize};

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they say it themselves")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// Days and hours. Hours that go past midnight belong to the day on which they begin. The default holds always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    days: Option<Vec<Weekday>>,
    /// From, and to; the end does not belong to it.
    hours: Option<(Time, Time)>,
}

impl Schedule {
    /// On these days at these hours, such as `22:00-06:00`; what is left out is no limit. `None` if the hours cannot be read.
    pub fn new(days: Option<&[Day]>, hours: Option<&str>) -> Option<Self> {
        let days = days.map(|days| days.iter().map(|day| day.weekday()).collect());
        let hours = match hours {
            Some(hours) => {
                let (from, to) = hours.split_once('-')?;
                Some((time(from)?, time(to)?))
            }
            None => None,
        };
        Some(Self { days, hours })
    }

    /// Whether a local time belongs to it.
    pub fn holds(&self, now: DateTime) -> bool {
        let Some((from, to)) = self.hours else { return self.on(now.weekday()) };
        let time = now.time();
        if from < to {
            return (from..to).contains(&time) && self.on(now.weekday());
        }
        (time >= from && self.on(now.weekday())) || (time < to && self.on(now.weekday().previous()))
    }

    fn on(&self, day: Weekday) -> bool {
        self.days.as_ref().is_none_or(|days| days.contains(&day))
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday_night = Schedule::new(Some(&[Day::Fri]), Some("22:00-06:00")).unwrap();
        // 27 November 2026 is a Friday.
        for (day, hour, holds) in [
            (27, 21, false),
            (27, 22, true),
            (28, 5, true),
            (28, 6, false),
            (28, 22, false),
            (27, 5, false),
        ] {
            let now = date(2026, 11, day).at(hour, 0, 0, 0);
            assert_eq!(friday_night.holds(now), holds, "{now}");
        }
        let noon = Schedule::new(None, Some("11:30-12:30")).unwrap();
        assert!(noon.holds(date(2026, 11, 27).at(12, 29, 59, 0)));
        assert!(!noon.holds(date(2026, 11, 27).at(12, 30, 0, 0)));
    }

    #[test]
    fn hours_that_cannot_be_read_are_refused() {
        for hours in ["22-06", "25:00-06:00", "22:00", "a:b-c:d", ""] {
            assert!(Schedule::new(None, Some(hours)).is_none(), "{hours}");
        }
    }
}
