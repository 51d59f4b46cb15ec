//! Back-off: pauses that double with each attempt, up to a maximum.

use std::time::Duration;

/// The pauses between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl BackOff {
    /// Pauses from `first` up to `last`.
    pub const fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The pause before the next attempt; the one after it is twice as long.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// An attempt succeeded: starts again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Trying again soon is pointless: goes to the last pause.
    pub fn exhaust(&mut self) {
        self.next = self.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last_until_an_attempt_succeeds() {
        let seconds = Duration::from_secs;
        let mut back_off = BackOff::new(seconds(1), seconds(5));
        let pauses: Vec<_> = (0..5).map(|_| back_off.pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        back_off.reset();
        assert_eq!(back_off.pause(), seconds(1));
        back_off.exhaust();
        assert_eq!(back_off.pause(), seconds(5));
    }
}
