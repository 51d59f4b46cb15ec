//! When to try the broker again.

use std::time::Duration;

use outpost_agent_core::back_off::BackOff;

use crate::session::FaultKind;

/// Back-off between connection attempts.
const BACK_OFF: BackOff = BackOff::new(Duration::from_millis(250), Duration::from_mins(1));
/// A connection that was up for this long worked. One that ends sooner, over and over, must not be made again as fast as it ends.
const LASTED: Duration = Duration::from_secs(5);

/// The pauses between connections.
#[derive(Debug)]
pub(super) struct Retry(BackOff);

impl Default for Retry {
    fn default() -> Self {
        Self(BACK_OFF)
    }
}

impl Retry {
    /// The next pause is the first again: what ended the connection ends no more than a few.
    pub(super) fn reset(&mut self) {
        self.0.reset();
    }

    /// The pause after a connection that ended, and was up for this long. `is_evicted`: another client seems to have its id.
    pub(super) fn pause(
        &mut self,
        kind: FaultKind,
        lived: Option<Duration>,
        is_evicted: bool,
    ) -> Duration {
        // Two clients of one id would disconnect each other as fast as they can.
        if !is_evicted && lived.is_some_and(|lived| lived >= LASTED) {
            self.0.reset();
        }
        if kind == FaultKind::Refused {
            self.0.exhaust();
        }
        self.0.pause()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Connects for a while, `times` over, waiting in between; how long that took.
    async fn connect(retry: &mut Retry, times: u32, lived: Duration) -> Duration {
        let started = Instant::now();
        for _ in 0..times {
            let up = Instant::now();
            sleep(lived).await;
            sleep(retry.pause(FaultKind::Closed, Some(up.elapsed()), false)).await;
        }
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_do_not_last_are_made_ever_more_rarely_until_one_lasts() {
        let mut retry = Retry::default();
        let short = Duration::from_millis(100);
        let took = connect(&mut retry, 10, short).await;
        assert!(took > Duration::from_mins(2), "{took:?}");
        // One that lasts is followed by a short pause, and so is the next.
        let took = connect(&mut retry, 1, LASTED).await;
        assert!(took < LASTED + Duration::from_secs(1), "{took:?}");
        let took = connect(&mut retry, 1, short).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[test]
    fn who_is_refused_or_evicted_waits_for_long() {
        let mut retry = Retry::default();
        let minute = Duration::from_mins(1);
        assert_eq!(retry.pause(FaultKind::Refused, None, false), minute);
        assert_eq!(retry.pause(FaultKind::Closed, Some(LASTED), true), minute);
        assert!(retry.pause(FaultKind::Network, Some(LASTED), false) < minute);
    }
}
