//! Timers of `start_timer`. They end with the daemon.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::report::{Body, Report, Sink, TimerReport};
use crate::task_group::TaskGroup;

/// Starts a timer. One that panics as it rings rings again.
pub(super) fn start(task_group: &TaskGroup, sink: Arc<dyn Sink>, timer: TimerReport) {
    let at = Instant::now() + timer.duration;
    task_group.supervise("timer", &task_group.stop, (sink, timer), move |(sink, timer)| {
        Box::pin(async move {
            sleep_until(at).await;
            sink.send(Report::now(Body::Timer(timer.clone())));
        })
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use outpost_tools::ToolError;
    use outpost_tools::tool::BoxFuture;

    use super::*;
    use crate::report::{Act, Intent, ReportId};

    /// Panics at the first report.
    #[derive(Debug, Default)]
    struct Fragile(Mutex<Vec<(bool, Instant)>>);

    impl Sink for Fragile {
        fn send(&self, report: Report) {
            let is_timer = matches!(report.body, Body::Timer(_));
            let sent = {
                let mut sent = self.0.lock().unwrap();
                sent.push((is_timer, Instant::now()));
                sent.len()
            };
            assert!(sent > 1, "the first one breaks it");
        }

        fn act(&self, _: Act, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn intend<'a>(&'a self, _: &'a Intent) -> BoxFuture<'a, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_rings_when_its_time_is_over_and_again_when_it_panicked() {
        let (group, sink) = (TaskGroup::default(), Arc::new(Fragile::default()));
        let duration = Duration::from_mins(2);
        let began = Instant::now();
        start(&group, sink.clone(), TimerReport { call: ReportId::new(), duration });
        group.tracker.close();
        group.tracker.wait().await;
        let rang = sink.0.lock().unwrap().clone();
        assert!(rang.len() == 2 && rang.iter().all(|(is_timer, _)| *is_timer), "{rang:?}");
        assert_eq!(rang[0].1 - began, duration);
        assert_eq!(group.restarts(), [("timer", 1)]);
    }
}
