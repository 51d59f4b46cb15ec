//! Metrics, published periodically.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::debug;

use crate::camera::Counters;
use crate::config::LiveSettings;
use crate::heartbeat::Heartbeats;
use crate::memory;
use crate::model_thread::ModelHandle;
use crate::report::{Body, Counts, MetricsReport, Report, Sink};
use crate::task_group::TaskGroup;

/// Skip metrics while more reports than this wait for the broker: they would only displace
/// important ones.
const OUTBOX_BUSY: u64 = 100;

/// The queue to the broker.
pub trait Backlog: fmt::Debug + Send + Sync {
    /// Number of undelivered reports.
    fn waiting(&self) -> u64;
}

/// Sources of the numbers.
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
    /// All tasks.
    pub task_group: TaskGroup,
    /// When the daemon started.
    pub started: Instant,
}

impl Gauges {
    /// Reads them.
    pub fn read(&self, now: Instant) -> MetricsReport {
        MetricsReport {
            uptime: now.saturating_duration_since(self.started),
            counts: self.counts.borrow().clone(),
            model: self.model.stats(),
            outbox: self.backlog.waiting(),
            resident: memory::resident(),
            camera: self.camera.snapshot(),
            parts: self.parts.health(now),
            restarts: self.task_group.restarts(),
        }
    }
}

/// Timer of the report.
struct Due {
    every: Duration,
    /// `None` if disabled.
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

/// Publishes metrics at the configured interval, for ever.
pub async fn publish(gauges: &Gauges, sink: &dyn Sink, live: &mut watch::Receiver<LiveSettings>) {
    let every = |live: &mut watch::Receiver<LiveSettings>| live.borrow_and_update().metrics;
    let mut due = Due::new(every(live));
    loop {
        tokio::select! {
            Ok(()) = live.changed() => {
                let wanted = every(live);
                if wanted != due.every {
                    due = Due::new(wanted);
                }
            }
            now = due.tick() => {
                let report = gauges.read(now);
                if report.outbox > OUTBOX_BUSY {
                    debug!(waiting = report.outbox, "skipped metrics: the broker does not keep up");
                } else {
                    sink.send(Report::now(Body::Metrics(Box::new(report))));
                }
            }
        }
    }
}
