//! What the camera's thread does with each picture: hide what nobody may see, show it to the eye, and decide whether the model
//! is to look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::camera::Counters;
use outpost_agent_core::config::{Area, CameraConfig, CameraGate, Live};
use outpost_agent_core::event::Frame;
use outpost_agent_core::report::{Body, CameraState, Report, SightReport, Sink};
use outpost_runtime::Image;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::SenseError;
use crate::camera::area::{blacken, crop};
use crate::camera::latest_frame::LatestFrame;
use crate::camera::scene::{Scene, Verdict};
use crate::camera::thumb::Thumb;

/// From one picture of the look-back to the next.
const LOOK_BACK_STEP: Duration = Duration::from_millis(500);
/// Pictures of the look-back together, bytes: large pictures are fewer.
const LOOK_BACK_BYTES: usize = 64 << 20;

/// The parts of a watcher that others hold too.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where the newest picture is shown.
    pub latest: LatestFrame,
    /// Where it is counted.
    pub counters: Arc<Counters>,
    /// Where it is said that the camera came or went.
    pub sink: Arc<dyn Sink>,
    /// How far apart looks are, once that was changed.
    pub live: watch::Receiver<Live>,
}

impl Shared {
    /// Parts that have shown and counted nothing.
    pub fn new(sink: Arc<dyn Sink>, live: watch::Receiver<Live>) -> Self {
        Self { latest: LatestFrame::default(), counters: Arc::default(), sink, live }
    }
}

/// The camera's thread, without its source.
#[derive(Debug)]
pub struct Watcher {
    shared: Shared,
    privacy: Vec<Area>,
    region: Option<Area>,
    decide: Decide,
    look_back: LookBack,
    /// What was last said of the camera.
    said: Option<CameraState>,
    was_closed: bool,
}

/// How it is decided whether to look.
#[derive(Debug)]
enum Decide {
    /// Only when a tool asks.
    Never,
    /// At each picture that is not the one before.
    EachNew(Option<Image>),
    /// When the scene changed.
    Scene(Box<Scene>),
}

impl Watcher {
    /// A watcher that has seen nothing.
    pub fn new(config: &CameraConfig, shared: Shared) -> Self {
        let decide = match config.gate() {
            _ if !config.watch => Decide::Never,
            CameraGate::Each => Decide::EachNew(None),
            CameraGate::Scene => Decide::Scene(Box::new(Scene::new(config.scene.clone()))),
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

    /// Whether the camera is switched off: nothing of its pictures is looked at or kept.
    pub fn is_closed(&mut self) -> bool {
        let closed = self.shared.latest.is_off();
        if closed && !self.was_closed {
            self.look_back.clear();
            match &mut self.decide {
                Decide::Never => {}
                Decide::EachNew(last) => *last = None,
                Decide::Scene(scene) => scene.forget(),
            }
        }
        self.was_closed = closed;
        closed
    }

    /// Takes a picture; gives it back where the model is to look at it.
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
            Decide::Scene(scene) => {
                if self.shared.live.has_changed().unwrap_or(false) {
                    let live = self.shared.live.borrow_and_update();
                    scene.pace(live.interval, live.cooldown);
                }
                match scene.see(Thumb::new(image), now) {
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

    /// There are no pictures for now. The scene is remembered, so that a camera that comes back to it raises no alarm.
    pub fn lost(&mut self, source: &str, error: &SenseError) {
        if self.said != Some(CameraState::Lost) {
            self.shared.counters.lost.add(1);
            self.shared.latest.clear();
            self.look_back.clear();
            warn!(%error, "no pictures from the camera");
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
        let report = SightReport { state, source: source.to_owned(), reason };
        self.shared.sink.send(Report::now(Body::Sight(report)));
    }
}

/// The last few pictures, as evidence of what came before.
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
