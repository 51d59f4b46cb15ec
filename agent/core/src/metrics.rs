//! What the agent counts, and the report of it that is published from time to time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::camera::Counters;
use crate::config::Live;
use crate::heartbeat::Heartbeats;
use crate::memory;
use crate::model_thread::ModelHandle;
use crate::report::{Body, Counts, MetricsReport, Report, Sink};

/// With more reports than these waiting for the broker, metrics are left out: they would only drive out what matters.
const OUTBOX_BUSY: u64 = 100;

/// What waits for the broker.
pub trait Backlog: fmt::Debug + Send + Sync {
    /// Reports that the broker does not have yet.
    fn waiting(&self) -> u64;
}

/// Where the numbers of a report come from.
#[derive(Debug)]
pub struct Gauges {
    /// The agent loop.
    pub counts: watch::Receiver<Counts>,
    /// The model.
    pub model: ModelHandle,
    /// The outbox.
    pub backlog: Arc<dyn Backlog>,
    /// The camera.
    pub camera: Arc<Counters>,
    /// All parts.
    pub parts: Heartbeats,
    /// When the daemon started.
    pub started: Instant,
}

impl Gauges {
    /// The numbers of this moment.
    pub fn read(&self, now: Instant) -> MetricsReport {
        MetricsReport {
            uptime: now.saturating_duration_since(self.started),
            counts: self.counts.borrow().clone(),
            model: self.model.stats(),
            outbox: self.backlog.waiting(),
            resident: memory::resident(),
            camera: self.camera.snapshot(),
            parts: self.parts.health(now),
        }
    }
}

/// When a report is due.
struct Due {
    every: Duration,
    /// None where it never is.
    ticks: Option<Interval>,
}

impl Due {
    fn new(every: Duration) -> Self {
        let ticks = (!every.is_zero()).then(|| {
            let mut ticks = interval_at(Instant::now() + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { every, ticks }
    }

    async fn tick(&mut self) -> Instant {
        match &mut self.ticks {
            Some(ticks) => ticks.tick().await,
            None => std::future::pending().await,
        }
    }
}

/// Publishes the numbers as often as the settings want it, until `stop`.
pub async fn publish(
    gauges: Gauges,
    sink: Arc<dyn Sink>,
    mut live: watch::Receiver<Live>,
    stop: CancellationToken,
) {
    let every = |live: &mut watch::Receiver<Live>| live.borrow_and_update().metrics;
    let mut due = Due::new(every(&mut live));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = live.changed() => {
                let wanted = every(&mut live);
                if wanted != due.every {
                    due = Due::new(wanted);
                }
            }
            now = due.tick() => {
                let report = gauges.read(now);
                if report.outbox > OUTBOX_BUSY {
                    debug!(waiting = report.outbox, "no metrics: the broker does not keep up");
                } else {
                    sink.send(Report::now(Body::Metrics(Box::new(report))));
                }
            }
        }
    }
}
