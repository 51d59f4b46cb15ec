//! What is to be asked of the agent later: once, or again and again. The plan outlives the program; time is an argument.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croner::Cron;
use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tracing::warn;

use crate::json_file::{self, JsonFileError};

/// Once, later than this is not made up for.
const LATE: SignedDuration = SignedDuration::from_hours(1);
/// Again and again, later than this waits for the next time.
const LATE_AGAIN: SignedDuration = SignedDuration::from_mins(2);
/// A clock that went back by more was set.
const SET_BACK: SignedDuration = SignedDuration::from_mins(1);
/// The clock is looked at this often, since it can be set.
const LOOK: Duration = Duration::from_secs(20);
/// A longer prompt is refused, characters.
const MAX_PROMPT: usize = 500;

/// When something is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// At that moment.
    Once(Timestamp),
    /// Whenever the pattern fits the local clock.
    Cron(String),
}

/// Something that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Names it.
    pub id: u64,
    /// When.
    pub when: When,
    /// What.
    pub prompt: String,
    /// When it is due next.
    pub next: Timestamp,
}

/// Why something cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The time cannot be read.
    #[error("{0:?} is no time: use 07:30, 2026-11-26T07:30 or 2026-11-26T07:30Z")]
    Time(String),
    /// The pattern cannot be read, or never fits.
    #[error("{0:?} is no cron pattern of five fields that fits some day")]
    Pattern(String),
    /// The moment is over.
    #[error("that moment is over")]
    Over,
    /// The prompt is empty or too long.
    #[error("use a prompt of 1 to {MAX_PROMPT} characters")]
    Prompt,
    /// There is no room.
    #[error("{0} things are planned already: cancel one first")]
    Full(usize),
    /// The file cannot be used.
    #[error(transparent)]
    Store(#[from] JsonFileError),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Plan {
    entries: Vec<Entry>,
    last: u64,
}

impl Plan {
    /// Takes out what is due at `now`, and sets when the rest is.
    fn due(&mut self, now: &Zoned) -> Vec<Entry> {
        let moment = now.timestamp();
        let (due, mut rest): (Vec<_>, Vec<_>) =
            self.entries.drain(..).partition(|entry| entry.next <= moment);
        let again = due.iter().filter_map(|entry| match &entry.when {
            When::Once(_) => None,
            When::Cron(pattern) => Some(Entry { next: next(pattern, now)?, ..entry.clone() }),
        });
        rest.extend(again);
        rest.sort_by_key(|entry| entry.id);
        self.entries = rest;
        let in_time = |entry: &Entry| {
            let late = if matches!(entry.when, When::Once(_)) { LATE } else { LATE_AGAIN };
            let is_in_time = moment.duration_since(entry.next) <= late;
            if !is_in_time {
                warn!(id = entry.id, due = %entry.next, "it is too late for what was planned");
            }
            is_in_time
        };
        due.into_iter().filter(in_time).collect()
    }

    /// Sets when each is due that comes again: after a start, and when the clock was set.
    fn reschedule(&mut self, now: &Zoned) {
        for entry in &mut self.entries {
            if let When::Cron(pattern) = &entry.when
                && let Some(next) = next(pattern, now)
            {
                entry.next = next;
            }
        }
    }
}

/// The next moment after `now` that a pattern of five fields fits.
fn next(pattern: &str, now: &Zoned) -> Option<Timestamp> {
    let is_usual = pattern.starts_with('@') || pattern.split_whitespace().count() == 5;
    let cron = Cron::from_str(pattern).ok().filter(|_| is_usual)?;
    cron.find_next_occurrence(now, false).ok().map(|next| next.timestamp())
}

/// Reads a time of the local clock, or one with its zone.
///
/// # Errors
/// When it cannot be read.
pub fn moment(text: &str, now: &Zoned) -> Result<Timestamp, PlanError> {
    let fault = || PlanError::Time(text.to_owned());
    let text = text.trim();
    let zone = now.time_zone();
    let of = |time: DateTime| time.to_zoned(zone.clone()).map(|time| time.timestamp());
    if let Ok(moment) = text.parse::<Timestamp>() {
        Ok(moment)
    } else if let Ok(time) = Time::strptime("%H:%M", text) {
        let today = of(now.date().to_datetime(time)).map_err(|_| fault())?;
        if today > now.timestamp() {
            return Ok(today);
        }
        let tomorrow = now.date().tomorrow().map_err(|_| fault())?;
        of(tomorrow.to_datetime(time)).map_err(|_| fault())
    } else {
        let time = text.replace(' ', "T").parse::<DateTime>().map_err(|_| fault())?;
        of(time).map_err(|_| fault())
    }
}

/// The plan, its file, and whoever waits for it.
#[derive(Debug)]
pub struct ScheduledPrompts {
    path: PathBuf,
    limit: usize,
    plan: Mutex<Plan>,
    changed: Notify,
}

impl ScheduledPrompts {
    /// Opens the file; without one nothing is planned yet.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: PathBuf, limit: usize, now: &Zoned) -> Result<Arc<Self>, JsonFileError> {
        let mut plan: Plan = json_file::read(&path)?;
        plan.reschedule(now);
        Ok(Arc::new(Self { path, limit, plan: Mutex::new(plan), changed: Notify::new() }))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is planned.
    pub fn entries(&self) -> Vec<Entry> {
        self.plan().entries.clone()
    }

    /// Plans something; when this returns, it outlives the program.
    ///
    /// # Errors
    /// When it cannot be planned, or not be kept.
    pub fn add(&self, when: When, prompt: &str, now: &Zoned) -> Result<Entry, PlanError> {
        if prompt.trim().is_empty() || prompt.chars().count() > MAX_PROMPT {
            return Err(PlanError::Prompt);
        }
        let next = match &when {
            When::Once(at) if *at <= now.timestamp() => return Err(PlanError::Over),
            When::Once(at) => *at,
            When::Cron(pattern) => {
                next(pattern, now).ok_or_else(|| PlanError::Pattern(pattern.clone()))?
            }
        };
        let mut plan = self.plan();
        if plan.entries.len() >= self.limit {
            return Err(PlanError::Full(plan.entries.len()));
        }
        let mut changed = plan.clone();
        changed.last += 1;
        let entry = Entry { id: changed.last, when, prompt: prompt.trim().to_owned(), next };
        changed.entries.push(entry.clone());
        json_file::write(&self.path, &changed)?;
        *plan = changed;
        self.changed.notify_one();
        Ok(entry)
    }

    /// Takes something out of the plan; false if there is none of that id.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cancel(&self, id: u64) -> Result<bool, JsonFileError> {
        let mut plan = self.plan();
        let mut changed = plan.clone();
        changed.entries.retain(|entry| entry.id != id);
        let found = changed.entries.len() < plan.entries.len();
        if found {
            json_file::write(&self.path, &changed)?;
            *plan = changed;
        }
        Ok(found)
    }

    /// Takes out what is due. An entry is removed from the file before it is given, so that none is given twice. While the file
    /// cannot be written, entries that are due once wait. Recurring ones are given: their next time is computed at startup.
    fn take_due(&self, now: &Zoned) -> Vec<Entry> {
        let mut plan = self.plan();
        let mut changed = plan.clone();
        let mut due = changed.due(now);
        if changed.entries == plan.entries {
            return due;
        }
        if let Err(fault) = json_file::write(&self.path, &changed) {
            warn!(%fault, "the planned prompts cannot be written: those that are due once wait until they can");
            let is_once = |entry: &Entry| matches!(entry.when, When::Once(_));
            due.retain(|entry| !is_once(entry));
            let moment = now.timestamp();
            let held = plan.entries.iter().filter(|entry| is_once(entry) && entry.next <= moment);
            changed.entries.extend(held.cloned());
            changed.entries.sort_by_key(|entry| entry.id);
        }
        *plan = changed;
        due
    }

    /// Gives what is due to `out`, for as long as somebody listens there. One for which there is no room is dropped.
    pub async fn run(&self, out: mpsc::Sender<Entry>) {
        let mut seen = Zoned::now().timestamp();
        while !out.is_closed() {
            let now = Zoned::now();
            if now.timestamp() < seen - SET_BACK {
                self.plan().reschedule(&now);
            }
            seen = now.timestamp();
            for entry in self.take_due(&now) {
                if let Err(fault) = out.try_send(entry) {
                    warn!(%fault, "what is planned is dropped");
                }
            }
            // An entry that is already due waits for the file.
            let next = self
                .plan()
                .entries
                .iter()
                .map(|entry| entry.next)
                .filter(|next| *next > seen)
                .min();
            let wait = next.map_or(LOOK, |next| {
                Duration::try_from(next.duration_since(seen)).unwrap_or_default().min(LOOK)
            });
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
                () = out.closed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn at(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    fn open(path: &Path, now: &Zoned) -> Arc<ScheduledPrompts> {
        ScheduledPrompts::open(path.to_owned(), 3, now).unwrap()
    }

    fn prompts(entries: Vec<Entry>) -> Vec<String> {
        entries.into_iter().map(|entry| entry.prompt).collect()
    }

    #[test]
    fn times_are_read_by_the_local_clock() {
        let now = at("2026-11-25T22:30");
        for (text, expected) in [
            ("23:15", "2026-11-25T22:15:00Z"),
            ("7:05", "2026-11-26T06:05:00Z"),
            ("2026-12-01T08:00", "2026-12-01T07:00:00Z"),
            ("2026-12-01 08:00", "2026-12-01T07:00:00Z"),
            ("2026-12-01T08:00:00Z", "2026-12-01T08:00:00Z"),
        ] {
            assert_eq!(moment(text, &now).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "soon", "25:00", "2026-13-01T00:00"] {
            assert!(moment(text, &now).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_planned_once_comes_once_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let now = at("2026-11-25T22:30");
        let scheduled_prompts = open(&path, &now);
        let once = |text| When::Once(at(text).timestamp());
        scheduled_prompts.add(once("2026-11-25T23:00"), "late", &now).unwrap();
        scheduled_prompts.add(once("2026-11-26T00:30"), "missed", &now).unwrap();
        assert!(scheduled_prompts.take_due(&at("2026-11-25T22:59")).is_empty());
        // The machine was off over both; one is too old.
        let now = at("2026-11-26T01:29");
        let scheduled_prompts = open(&path, &now);
        assert_eq!(prompts(scheduled_prompts.take_due(&now)), ["missed"]);
        assert!(open(&path, &now).entries().is_empty());
    }

    #[test]
    fn what_is_planned_once_does_not_come_twice_when_the_file_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let now = at("2026-11-25T22:30");
        let plan = open(&path, &now);
        plan.add(When::Once(at("2026-11-25T23:00").timestamp()), "unlock", &now).unwrap();
        plan.add(When::Cron("0 23 * * *".into()), "lights out", &now).unwrap();
        // No file can be written where a folder has the name of the temporary one.
        let part = folder.path().join("plan.json.part");
        std::fs::create_dir(&part).unwrap();
        let now = at("2026-11-25T23:00");
        assert_eq!(prompts(plan.take_due(&now)), ["lights out"]);
        assert_eq!(prompts(plan.take_due(&now)), [""; 0]);
        // A start in between finds it, and gives it once the file can be written.
        let plan = open(&path, &at("2026-11-25T23:01"));
        assert_eq!(prompts(plan.take_due(&at("2026-11-25T23:01"))), [""; 0]);
        std::fs::remove_dir(&part).unwrap();
        assert_eq!(prompts(plan.take_due(&at("2026-11-25T23:02"))), ["unlock"]);
        let plan = open(&path, &at("2026-11-25T23:03"));
        assert!(plan.take_due(&at("2026-11-25T23:03")).is_empty());
    }

    #[test]
    fn a_pattern_comes_again_and_is_not_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let now = at("2026-11-25T22:30");
        let scheduled_prompts = open(&path, &now);
        scheduled_prompts.add(When::Cron("0 7 * * MON-FRI".into()), "up", &now).unwrap();
        assert_eq!(prompts(scheduled_prompts.take_due(&at("2026-11-26T07:00"))), ["up"]);
        assert!(scheduled_prompts.take_due(&at("2026-11-26T07:00")).is_empty());
        let now = at("2026-11-27T07:30");
        let scheduled_prompts = open(&path, &now);
        assert!(scheduled_prompts.take_due(&now).is_empty());
        // Saturday and Sunday are left out.
        assert_eq!(scheduled_prompts.entries()[0].next, at("2026-11-30T07:00").timestamp());
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now = at("2026-11-25T22:30");
        let scheduled_prompts = open(&folder.path().join("plan.json"), &now);
        let cron = |pattern: &str| scheduled_prompts.add(When::Cron(pattern.into()), "x", &now);
        for pattern in ["", "* * * * * *", "61 * * * *", "0 0 30 2 *", "soon"] {
            assert!(cron(pattern).is_err(), "{pattern}");
        }
        assert!(scheduled_prompts.add(When::Once(now.timestamp()), "x", &now).is_err());
        assert!(scheduled_prompts.add(When::Cron("0 7 * * *".into()), " ", &now).is_err());
        for _ in 0..3 {
            cron("@daily").unwrap();
        }
        assert!(matches!(cron("@daily"), Err(PlanError::Full(3))));
        assert!(scheduled_prompts.cancel(2).unwrap() && !scheduled_prompts.cancel(2).unwrap());
        assert_eq!(cron("@daily").unwrap().id, 4, "an id is not used again");
    }

    #[tokio::test]
    async fn it_is_given_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let now = Zoned::now();
        let scheduled_prompts = open(&folder.path().join("plan.json"), &now);
        let (out, mut due) = mpsc::channel::<Entry>(4);
        let soon = now.timestamp() + SignedDuration::from_millis(300);
        let test = async {
            scheduled_prompts.add(When::Once(soon), "now", &now).unwrap();
            let entry = tokio::time::timeout(Duration::from_secs(20), due.recv()).await;
            assert_eq!(entry.unwrap().unwrap().prompt, "now");
            drop(due);
        };
        tokio::join!(scheduled_prompts.run(out), test);
    }
}
