//! What is to be asked of the agent later: once, or again and again. The plan outlives the program; the time of day is an argument.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use croner::Cron;
use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::warn;

use crate::json_file::{self, JsonFileError};

/// Once, later than this is not made up for.
const LATE: SignedDuration = SignedDuration::from_hours(1);
/// Again and again, later than this waits for the next time.
const LATE_AGAIN: SignedDuration = SignedDuration::from_mins(2);
/// A clock that went back by more was set.
const SET_BACK: SignedDuration = SignedDuration::from_mins(1);
/// A clock that went by more beside the steady one was set.
const PUT: SignedDuration = SignedDuration::from_secs(1);
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
    /// When entries are due that were planned for so long from now: no clock that is set changes that. They end with the program;
    /// after that [`Entry::next`] holds.
    #[serde(skip)]
    timers: BTreeMap<u64, Instant>,
}

impl Plan {
    fn is_due(&self, entry: &Entry, now: &Zoned) -> bool {
        match self.timers.get(&entry.id) {
            Some(at) => *at <= Instant::now(),
            None => entry.next <= now.timestamp(),
        }
    }

    fn due(&self, now: &Zoned) -> Vec<Entry> {
        self.entries.iter().filter(|entry| self.is_due(entry, now)).cloned().collect()
    }

    /// Whether there is a point in asking it still.
    fn is_in_time(&self, entry: &Entry, now: &Zoned) -> bool {
        let late = match &entry.when {
            When::Once(_) if self.timers.contains_key(&entry.id) => return true,
            When::Once(_) => LATE,
            When::Cron(_) => LATE_AGAIN,
        };
        now.timestamp().duration_since(entry.next) <= late
    }

    /// An entry had its turn: it goes, or waits for its next time.
    fn pass(&mut self, id: u64, now: &Zoned) {
        self.timers.remove(&id);
        self.entries.retain_mut(|entry| match &entry.when {
            _ if entry.id != id => true,
            When::Once(_) => false,
            When::Cron(pattern) => match next(pattern, now) {
                Some(next) => {
                    entry.next = next;
                    true
                }
                None => false,
            },
        });
    }

    /// How long it takes until the next entry is due that is not due yet.
    fn wait(&self, now: &Zoned) -> Option<Duration> {
        let waiting = self.entries.iter().filter(|entry| !self.is_due(entry, now));
        let wait = |entry: &Entry| match self.timers.get(&entry.id) {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => {
                Duration::try_from(entry.next.duration_since(now.timestamp())).unwrap_or_default()
            }
        };
        waiting.map(wait).min()
    }

    /// Says by the clock as it is now when the timers end, for a start after this. True if that changed.
    fn restate(&mut self, now: &Zoned) -> bool {
        let mut changed = false;
        for entry in &mut self.entries {
            let Some(at) = self.timers.get(&entry.id).filter(|at| **at > Instant::now()) else {
                continue;
            };
            let left = SignedDuration::try_from(at.saturating_duration_since(Instant::now()));
            let Ok(next) = now.timestamp().checked_add(left.unwrap_or_default()) else { continue };
            if next.duration_since(entry.next).abs() > PUT {
                entry.next = next;
                entry.when = When::Once(next);
                changed = true;
            }
        }
        changed
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
        let next = match &when {
            When::Once(at) if *at <= now.timestamp() => return Err(PlanError::Over),
            When::Once(at) => *at,
            When::Cron(pattern) => {
                next(pattern, now).ok_or_else(|| PlanError::Pattern(pattern.clone()))?
            }
        };
        self.put(when, next, prompt, None)
    }

    /// Plans something for so long from now, whatever becomes of the clock meanwhile. When this returns, it outlives the program.
    ///
    /// # Errors
    /// As [`ScheduledPrompts::add`].
    pub fn add_in(&self, time: Duration, prompt: &str, now: &Zoned) -> Result<Entry, PlanError> {
        let later = SignedDuration::try_from(time).ok();
        let next = later.and_then(|later| now.timestamp().checked_add(later).ok());
        let next = next.ok_or(PlanError::Over)?;
        self.put(When::Once(next), next, prompt, Some(Instant::now() + time))
    }

    fn put(
        &self,
        when: When,
        next: Timestamp,
        prompt: &str,
        timer: Option<Instant>,
    ) -> Result<Entry, PlanError> {
        if prompt.trim().is_empty() || prompt.chars().count() > MAX_PROMPT {
            return Err(PlanError::Prompt);
        }
        let mut plan = self.plan();
        if plan.entries.len() >= self.limit {
            return Err(PlanError::Full(plan.entries.len()));
        }
        let mut changed = plan.clone();
        changed.last += 1;
        let entry = Entry { id: changed.last, when, prompt: prompt.trim().to_owned(), next };
        changed.entries.push(entry.clone());
        changed.timers.extend(timer.map(|timer| (entry.id, timer)));
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
        changed.timers.remove(&id);
        let found = changed.entries.len() < plan.entries.len();
        if found {
            json_file::write(&self.path, &changed)?;
            *plan = changed;
        }
        Ok(found)
    }

    /// Takes out the first entry that is due. It is removed from the file before it is given, so that it is not given twice. While
    /// the file cannot be written, entries that are due once wait. Recurring ones are given: their next time is computed at startup.
    fn take_due(&self, now: &Zoned) -> Option<Entry> {
        let mut plan = self.plan();
        for entry in plan.due(now) {
            let mut changed = plan.clone();
            changed.pass(entry.id, now);
            if let Err(fault) = json_file::write(&self.path, &changed) {
                warn!(%fault, id = entry.id, "the planned prompts cannot be written: those that are due once wait until they can");
                if matches!(entry.when, When::Once(_)) {
                    continue;
                }
            }
            let is_in_time = plan.is_in_time(&entry, now);
            *plan = changed;
            if is_in_time {
                return Some(entry);
            }
            warn!(id = entry.id, due = %entry.next, "it is too late for what was planned");
        }
        None
    }

    /// Adapts to a clock that was set.
    fn mind_clock(&self, seen: Timestamp, now: &Zoned) {
        let mut plan = self.plan();
        if now.timestamp() < seen - SET_BACK {
            plan.reschedule(now);
        }
        if plan.restate(now)
            && let Err(fault) = json_file::write(&self.path, &*plan)
        {
            warn!(%fault, "the planned prompts cannot be written: a restart goes by the clock as it was");
        }
    }

    /// Sends what `ask` makes of entries that are due, for as long as somebody listens. What nobody took stays in the plan, also when
    /// this is dropped.
    pub async fn run<T>(
        &self,
        out: &mpsc::Sender<T>,
        ask: impl Fn(Entry) -> T,
        clock: impl Fn() -> Zoned,
    ) {
        let mut seen = clock().timestamp();
        loop {
            let now = clock();
            self.mind_clock(seen, &now);
            seen = now.timestamp();
            let is_due = !self.plan().due(&now).is_empty();
            if is_due {
                // Room first: between taking an entry out and handing it over nothing can end this task.
                let Ok(room) = out.reserve().await else { return };
                if let Some(entry) = self.take_due(&clock()) {
                    room.send(ask(entry));
                    continue;
                }
            }
            // An entry that is still due waits for the file.
            let wait = self.plan().wait(&now).map_or(LOOK, |wait| wait.min(LOOK));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
                () = out.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn at(text: &str) -> Zoned {
        format!("{text}[Europe/Berlin]").parse().unwrap()
    }

    fn open(path: &Path, now: &Zoned) -> Arc<ScheduledPrompts> {
        ScheduledPrompts::open(path.to_owned(), 3, now).unwrap()
    }

    /// The prompts of all that is due.
    fn due(plan: &ScheduledPrompts, now: &str) -> Vec<String> {
        let now = at(now);
        std::iter::from_fn(|| plan.take_due(&now)).map(|entry| entry.prompt).collect()
    }

    const NONE: [&str; 0] = [];

    /// A clock on the wall that can be put.
    #[derive(Clone)]
    struct Wall {
        began: Instant,
        put: Arc<AtomicI64>,
    }

    impl Wall {
        fn new() -> Self {
            Self { began: Instant::now(), put: Arc::default() }
        }

        fn put(&self, seconds: i64) {
            self.put.fetch_add(seconds, Ordering::Relaxed);
        }

        fn now(&self) -> Zoned {
            let passed = SignedDuration::try_from(self.began.elapsed()).unwrap();
            let put = SignedDuration::from_secs(self.put.load(Ordering::Relaxed));
            at("2026-11-25T12:00").checked_add(passed + put).unwrap()
        }
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
        assert_eq!(due(&scheduled_prompts, "2026-11-25T22:59"), NONE);
        // The machine was off over both; one is too old.
        let now = at("2026-11-26T01:29");
        let scheduled_prompts = open(&path, &now);
        assert_eq!(due(&scheduled_prompts, "2026-11-26T01:29"), ["missed"]);
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
        assert_eq!(due(&plan, "2026-11-25T23:00"), ["lights out"]);
        assert_eq!(due(&plan, "2026-11-25T23:00"), NONE);
        // A start in between finds it, and gives it once the file can be written.
        let plan = open(&path, &at("2026-11-25T23:01"));
        assert_eq!(due(&plan, "2026-11-25T23:01"), NONE);
        std::fs::remove_dir(&part).unwrap();
        assert_eq!(due(&plan, "2026-11-25T23:02"), ["unlock"]);
        let plan = open(&path, &at("2026-11-25T23:03"));
        assert_eq!(due(&plan, "2026-11-25T23:03"), NONE);
    }

    #[test]
    fn a_pattern_comes_again_and_is_not_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let now = at("2026-11-25T22:30");
        let scheduled_prompts = open(&path, &now);
        scheduled_prompts.add(When::Cron("0 7 * * MON-FRI".into()), "up", &now).unwrap();
        assert_eq!(due(&scheduled_prompts, "2026-11-26T07:00"), ["up"]);
        assert_eq!(due(&scheduled_prompts, "2026-11-26T07:00"), NONE);
        let scheduled_prompts = open(&path, &at("2026-11-27T07:30"));
        assert_eq!(due(&scheduled_prompts, "2026-11-27T07:30"), NONE);
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

    #[tokio::test(start_paused = true)]
    async fn it_is_given_when_it_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let wall = Wall::new();
        let plan = open(&folder.path().join("plan.json"), &wall.now());
        let (out, mut due) = mpsc::channel(4);
        let test = async {
            let soon = wall.now().timestamp() + SignedDuration::from_mins(10);
            plan.add(When::Once(soon), "now", &wall.now()).unwrap();
            assert_eq!(due.recv().await.unwrap(), "now");
            assert_eq!(wall.began.elapsed().as_secs(), 600);
            drop(due);
        };
        tokio::join!(plan.run(&out, |entry| entry.prompt, || wall.now()), test);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_from_now_stays_as_long_when_the_clock_is_put_and_a_restart_goes_by_the_clock_as_it_is()
     {
        for put in [-86_400, -90, 90, 86_400] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("plan.json");
            let wall = Wall::new();
            let plan = open(&path, &wall.now());
            let (out, mut due) = mpsc::channel(4);
            let test = async {
                plan.add_in(Duration::from_mins(10), "now", &wall.now()).unwrap();
                tokio::time::sleep(Duration::from_mins(5)).await;
                wall.put(put);
                tokio::time::sleep(Duration::from_mins(1)).await;
                let left = open(&path, &wall.now()).entries()[0]
                    .next
                    .duration_since(wall.now().timestamp());
                assert!((left.as_millis() - 240_000).abs() < 1000, "{put}: {left}");
                assert_eq!(due.recv().await.unwrap(), "now");
                assert_eq!(wall.began.elapsed().as_secs(), 600, "{put}");
                drop(due);
            };
            tokio::join!(plan.run(&out, |entry| entry.prompt, || wall.now()), test);
            assert!(open(&path, &wall.now()).entries().is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_due_as_the_agent_ends_stays_due() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let wall = Wall::new();
        // The agent takes nothing more, or it ends while there is no room, or this task ends first.
        for end in ["closed", "full", "dropped"] {
            let plan = open(&path, &wall.now());
            let (out, mut due) = mpsc::channel(1);
            out.send("before".to_owned()).await.unwrap();
            plan.add_in(Duration::from_mins(10), end, &wall.now()).unwrap();
            let test = async {
                if end == "closed" {
                    due.close();
                }
                tokio::time::sleep(Duration::from_mins(11)).await;
                if end == "full" {
                    due.close();
                    tokio::time::sleep(Duration::from_mins(1)).await;
                }
            };
            tokio::select! {
                () = async { tokio::join!(plan.run(&out, |entry| entry.prompt, || wall.now()), std::future::pending::<()>()); } => {}
                () = test => {}
            }
            assert_eq!(due.recv().await.unwrap(), "before");
            assert_eq!(due.try_recv().ok(), None);
            let now = wall.now();
            let plan = open(&path, &now);
            assert_eq!(plan.take_due(&now).map(|entry| entry.prompt).as_deref(), Some(end));
        }
    }
}
