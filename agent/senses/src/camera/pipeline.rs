//! What the camera's thread does with each picture: privacy masks, latest frame, motion detection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::camera::Counters;
use outpost_agent_core::config::{Area, CameraConfig, CameraGate, LiveSettings};
use outpost_agent_core::event::Frame;
use outpost_agent_core::report::{Body, CameraState, CameraStatusReport, Report, Sink};
use outpost_runtime::Image;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::SenseError;
use crate::camera::area::{blacken, crop};
use crate::camera::latest_frame::LatestFrame;
use crate::camera::motion::{MotionDetector, Verdict};
use crate::camera::thumbnail::Thumbnail;

/// Interval of the look-back.
const LOOK_BACK_STEP: Duration = Duration::from_millis(500);
/// Memory of the look-back in bytes: large pictures are fewer.
const LOOK_BACK_BYTES: usize = 64 << 20;

/// Parts shared with the agent.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The newest picture.
    pub latest: LatestFrame,
    /// Counters.
    pub counters: Arc<Counters>,
    /// Takes the camera's status reports.
    pub sink: Arc<dyn Sink>,
    /// Live settings: intervals between looks.
    pub live: watch::Receiver<LiveSettings>,
}

impl Shared {
    /// Creates empty parts.
    pub fn new(sink: Arc<dyn Sink>, live: watch::Receiver<LiveSettings>) -> Self {
        Self { latest: LatestFrame::default(), counters: Arc::default(), sink, live }
    }
}

/// The camera's thread, without its source.
#[derive(Debug)]
pub struct CameraPipeline {
    shared: Shared,
    privacy: Vec<Area>,
    region: Option<Area>,
    decide: Decide,
    look_back: LookBack,
    /// Last reported state.
    said: Option<CameraState>,
    was_closed: bool,
}

/// When the model looks.
#[derive(Debug)]
enum Decide {
    /// Only on request of a tool.
    Never,
    /// At each picture that differs from the previous one.
    EachNew(Option<Image>),
    /// On motion.
    Motion(Box<MotionDetector>),
}

impl CameraPipeline {
    /// A pipeline that has seen nothing.
    pub fn new(config: &CameraConfig, shared: Shared) -> Self {
        let decide = match config.gate() {
            _ if !config.watch => Decide::Never,
            CameraGate::Each => Decide::EachNew(None),
            CameraGate::Scene => {
                Decide::Motion(Box::new(MotionDetector::new(config.scene.clone())))
            }
        };
        Self {
            shared,
            privacy: config.privacy.clone(),
            region: config.region,
            decide,
            look_back: LookBack::new(config.look_back),
            said: None,
            was_closed: false,
        }
    }

    /// Whether the camera is off; if so, forgets its pictures.
    pub fn is_closed(&mut self) -> bool {
        let closed = self.shared.latest.is_off();
        if closed && !self.was_closed {
            self.look_back.clear();
            match &mut self.decide {
                Decide::Never => {}
                Decide::EachNew(last) => *last = None,
                Decide::Motion(scene) => scene.forget(),
            }
        }
        self.was_closed = closed;
        closed
    }

    /// Takes a picture. Returns it if the model should look.
    pub fn see(&mut self, mut frame: Frame, now: Instant) -> Option<Frame> {
        self.say(CameraState::Up, &frame.source, None);
        self.shared.counters.frames.add(1);
        frame.image = blacken(frame.image, &self.privacy);
        if let Some(region) = self.region {
            frame.image = crop(&frame.image, region);
        }
        self.shared.latest.set(&mut frame);
        let look = self.is_worth_a_look(&frame.image, now);
        if look {
            self.shared.counters.looks.add(1);
            frame.before = self.look_back.pictures();
        }
        self.look_back.push(&frame.image, now);
        look.then_some(frame)
    }

    fn is_worth_a_look(&mut self, image: &Image, now: Instant) -> bool {
        let counters = &self.shared.counters;
        match &mut self.decide {
            Decide::Never => false,
            Decide::EachNew(last) => {
                let new = last.as_ref() != Some(image);
                *last = Some(image.clone());
                counters.still.add(u64::from(!new));
                new
            }
            Decide::Motion(scene) => {
                if self.shared.live.has_changed().unwrap_or(false) {
                    let live = self.shared.live.borrow_and_update();
                    scene.pace(live.interval, live.cooldown);
                }
                match scene.see(Thumbnail::new(image), now) {
                    Verdict::Look => true,
                    Verdict::Still => {
                        counters.still.add(1);
                        false
                    }
                    Verdict::Blank | Verdict::Lighting | Verdict::Moving | Verdict::TooSoon => {
                        counters.held.add(1);
                        false
                    }
                }
            }
        }
    }

    /// Camera offline. The last scene is kept, so that reconnecting to an unchanged view does not
    /// count as motion.
    pub fn lost(&mut self, source: &str, error: &SenseError) {
        if self.said != Some(CameraState::Lost) {
            self.shared.counters.lost.add(1);
            self.shared.latest.clear();
            self.look_back.clear();
            warn!(%error, "camera lost");
        }
        self.say(CameraState::Lost, source, Some(error.to_string()));
    }

    fn say(&mut self, state: CameraState, source: &str, reason: Option<String>) {
        if self.said == Some(state) {
            return;
        }
        if state == CameraState::Up && self.said.is_some() {
            info!(source, "the camera is back");
        }
        self.said = Some(state);
        let report = CameraStatusReport { state, source: source.to_owned(), reason };
        self.shared.sink.send(Report::now(Body::CameraStatus(report)));
    }
}

/// The last few pictures, kept with the evidence of an alert.
#[derive(Debug)]
struct LookBack {
    pictures: VecDeque<Image>,
    capacity: usize,
    last: Option<Instant>,
}

impl LookBack {
    fn new(capacity: usize) -> Self {
        Self { pictures: VecDeque::new(), capacity, last: None }
    }

    fn push(&mut self, image: &Image, now: Instant) {
        if self.capacity == 0 || self.last.is_some_and(|last| now < last + LOOK_BACK_STEP) {
            return;
        }
        self.last = Some(now);
        self.pictures.push_back(image.clone());
        let bytes = |pictures: &VecDeque<Image>| -> usize {
            pictures.iter().map(|picture| picture.rgb.len()).sum()
        };
        while self.pictures.len() > self.capacity || bytes(&self.pictures) > LOOK_BACK_BYTES {
            self.pictures.pop_front();
        }
    }

    fn pictures(&self) -> Vec<Image> {
        self.pictures.iter().cloned().collect()
    }

    fn clear(&mut self) {
        self.pictures.clear();
        self.last = None;
    }
}
