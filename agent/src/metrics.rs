//! What the agent counts, and the report of it that is published from time to time.

use std::sync::Arc;
use std::time::Duration;

use outpost_runtime::Generation;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::event::{Event, Payload};
use crate::heartbeat::Heartbeats;
use crate::live::Live;
use crate::memory;
use crate::model_thread::{ModelError, ModelHandle};
use crate::mqtt::client::Publisher;
use crate::report::{Body, MetricsReport, Report, Sink};
use crate::senses::camera::counters::Counters;
use crate::state::State;

/// With more reports than these waiting for the broker, metrics are left out: they would only drive out what matters.
const OUTBOX_BUSY: u64 = 100;

/// What the agent loop has counted since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// What the agent does now.
    pub state: State,
    /// How often each state was entered, in the order of [`State::ALL`].
    pub entered: [u64; State::ALL.len()],
    /// Turns begun about utterances.
    pub utterances: u64,
    /// Turns begun about questions in writing.
    pub asks: u64,
    /// Turns begun about pictures.
    pub pictures: u64,
    /// Turns that could not be brought to an end.
    pub failed: u64,
    /// Turns that took too long and were dropped.
    pub overdue: u64,
    /// Pictures that made way for somebody who spoke.
    pub gave_way: u64,
    /// Utterances and pictures dropped because the agent was busy.
    pub dropped: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let entered = [0; State::ALL.len()];
        let (utterances, asks, pictures) = (0, 0, 0);
        let (failed, overdue, gave_way, dropped) = (0, 0, 0, 0);
        let state = State::Idle;
        Self { state, entered, utterances, asks, pictures, failed, overdue, gave_way, dropped }
    }
}

impl Counts {
    /// A turn begins.
    pub fn begun(&mut self, event: &Event) {
        match event.payload {
            Payload::Utterance(_) => self.utterances += 1,
            Payload::Ask(_) => self.asks += 1,
            Payload::Frame(_) => self.pictures += 1,
        }
    }

    /// A state is entered.
    pub fn enter(&mut self, state: State) {
        self.state = state;
        let counts = State::ALL.into_iter().zip(&mut self.entered);
        counts.filter(|(of, _)| *of == state).for_each(|(_, count)| *count += 1);
    }
}

/// What the model was asked since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStats {
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed, were cancelled or ran out of time.
    pub failed: u64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Time in which they were decoded.
    pub decode: Duration,
}

impl ModelStats {
    /// How fast it decoded, over all answers; none before the first.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.decode.as_secs_f64();
        (seconds > 0.0).then(|| (self.tokens as f64 / seconds * 10.0).round() / 10.0)
    }

    /// Counts an answer.
    pub(crate) fn count(&mut self, answer: &Result<Generation, ModelError>) {
        match answer {
            Ok(generation) => {
                self.answered += 1;
                self.tokens += generation.usage.new_tokens as u64;
                self.decode += generation.usage.decode;
            }
            Err(_) => self.failed += 1,
        }
    }
}

/// Where the numbers of a report come from.
#[derive(Debug)]
pub struct Gauges {
    /// The agent loop.
    pub counts: watch::Receiver<Counts>,
    /// The model.
    pub model: ModelHandle,
    /// The outbox.
    pub publisher: Publisher,
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
            outbox: self.publisher.condition().waiting as u64,
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
