//! Heartbeats: each part of the daemon promises when it will report next. Pure: time is an
//! argument.
//!
//! An idle part promises nothing. While a part is overdue, the watchdog is not fed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::report::Health;

/// Last promise of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// None: it is idle.
    Nothing,
    /// To report by then.
    Word(Instant),
    /// It panicked.
    Broken,
}

/// All parts of the daemon. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Heartbeats(Arc<Mutex<BTreeMap<&'static str, Promise>>>);

impl Heartbeats {
    /// Adds an idle part. It is listed until its pulse is dropped.
    pub fn part(&self, name: &'static str) -> Pulse {
        self.lock().insert(name, Promise::Nothing);
        Pulse { name, parts: self.clone() }
    }

    /// Health of each part, by name.
    pub fn health(&self, now: Instant) -> Vec<(&'static str, Health)> {
        let health = |promise: &Promise| match promise {
            Promise::Nothing => Health::Waiting,
            Promise::Word(by) if now <= *by => Health::Working,
            Promise::Word(_) => Health::Late,
            Promise::Broken => Health::Dead,
        };
        self.lock().iter().map(|(name, promise)| (*name, health(promise))).collect()
    }

    /// Names of late and dead parts.
    pub fn stuck(&self, now: Instant) -> Vec<&'static str> {
        let health = self.health(now);
        health.into_iter().filter(|(_, health)| !health.is_well()).map(|(name, _)| name).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Promise>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Heartbeat of one part.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    parts: Heartbeats,
}

impl Pulse {
    /// The part is busy and will report by then.
    pub fn promise(&self, by: Instant) {
        self.parts.lock().insert(self.name, Promise::Word(by));
    }

    /// The part is idle.
    pub fn rest(&self) {
        self.parts.lock().insert(self.name, Promise::Nothing);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.parts.lock().insert(self.name, Promise::Broken);
        } else {
            self.parts.lock().remove(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_part_is_late_once_its_promise_has_passed_and_well_again_with_the_next() {
        let parts = Heartbeats::default();
        let now = Instant::now();
        let model = parts.part("model");
        let camera = parts.part("camera");
        assert_eq!(parts.health(now), [("camera", Health::Waiting), ("model", Health::Waiting)]);
        model.promise(now + Duration::from_secs(10));
        camera.promise(now + Duration::from_secs(30));
        assert_eq!(parts.stuck(now + Duration::from_secs(10)), Vec::<&str>::new());
        assert_eq!(parts.stuck(now + Duration::from_secs(11)), ["model"]);
        model.rest();
        assert_eq!(parts.stuck(now + Duration::from_secs(11)), Vec::<&str>::new());
        assert_eq!(parts.stuck(now + Duration::from_secs(31)), ["camera"]);
    }

    #[test]
    fn a_part_that_ends_is_forgotten_and_one_that_panics_is_not() {
        let parts = Heartbeats::default();
        let now = Instant::now();
        drop(parts.part("camera"));
        let microphone = parts.part("microphone");
        let thread = std::thread::spawn(move || {
            let _microphone = microphone;
            panic!("the sound card is on fire");
        });
        assert!(thread.join().is_err());
        assert_eq!(parts.health(now), [("microphone", Health::Dead)]);
    }
}
