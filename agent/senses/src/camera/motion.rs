//! Motion detection: passes a picture on when the scene has changed and settled. Filters out noise,
//! daylight, lights being switched, blank pictures and constant motion. Pure: time is an argument.

use std::time::Duration;

use outpost_agent_core::config::MotionConfig;
use tokio::time::Instant;

use crate::camera::thumbnail::{CELLS, COLUMNS, ROWS, Thumbnail};

/// Result for a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look: the first picture, or a scene that has changed.
    Look,
    /// No change.
    Still,
    /// Blank: grey, black or green, as after a camera reconnects.
    Blank,
    /// Only the light changed.
    Lighting,
    /// Motion in progress; look once it settles.
    Moving,
    /// Changed, but too soon after the last look.
    TooSoon,
}

/// A picture with less standard deviation of luma is blank.
const BLANK: f32 = 2.0;
/// Pictures with a higher correlation show the same scene in different light.
const SAME_SCENE: f32 = 0.7;
/// A change of light affects at least this share of the picture.
const GLOBAL: f32 = 0.5;
/// Time constant with which the background adapts to slow changes such as daylight.
const DRIFT: Duration = Duration::from_secs(10);

/// The motion detector.
#[derive(Debug)]
pub struct MotionDetector {
    config: MotionConfig,
    /// Cells that are not ignored.
    counted: Vec<usize>,
    /// The scene at the last look.
    background: Option<Thumbnail>,
    previous: Option<(Thumbnail, Instant)>,
    moving_since: Option<Instant>,
    calm_since: Option<Instant>,
    last_look: Option<Instant>,
    /// Looks since the scene was last calm.
    restless: u32,
}

impl MotionDetector {
    /// A detector that has seen nothing.
    pub fn new(config: MotionConfig) -> Self {
        let at = |index: usize, count: usize| (index as f32 + 0.5) / count as f32;
        let ignored = |cell: &usize| {
            let x = at(cell % COLUMNS, COLUMNS);
            let y = at(cell / COLUMNS, ROWS);
            config.ignore.iter().any(|area| area.contains(x, y))
        };
        Self {
            counted: (0..CELLS).filter(|cell| !ignored(cell)).collect(),
            config,
            background: None,
            previous: None,
            moving_since: None,
            calm_since: None,
            last_look: None,
            restless: 0,
        }
    }

    /// Takes the next picture of the stream.
    pub fn see(&mut self, thumbnail: Thumbnail, now: Instant) -> Verdict {
        if Shades::of(&thumbnail, &thumbnail, &self.counted).deviation < BLANK {
            return Verdict::Blank;
        }
        let before = self.previous.replace((thumbnail.clone(), now));
        let Some(background) = &self.background else {
            return self.look(thumbnail, now);
        };
        let against = self.compare(background, &thumbnail);
        if against.is_light() {
            self.background = Some(thumbnail);
            return Verdict::Lighting;
        }
        if against.changed <= self.config.area {
            self.rest(&thumbnail, before.map_or(now, |(_, then)| then), now);
            return Verdict::Still;
        }
        self.calm_since = None;
        let since = *self.moving_since.get_or_insert(now);
        let moves = before.is_some_and(|(previous, _)| {
            self.compare(&previous, &thumbnail).changed > self.config.area
        });
        if moves && now < since + self.config.settle {
            return Verdict::Moving;
        }
        if self.last_look.is_some_and(|last| now < last + self.wait()) {
            return Verdict::TooSoon;
        }
        self.look(thumbnail, now)
    }

    /// Sets the minimum interval between looks, and the one for a scene that does not settle.
    pub fn pace(&mut self, interval: Duration, cooldown: Duration) {
        self.config.interval = interval;
        self.config.cooldown = cooldown;
    }

    /// Forgets the scene: the next picture passes.
    pub fn forget(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// Current minimum interval between looks.
    fn wait(&self) -> Duration {
        if self.restless < self.config.burst {
            self.config.interval
        } else {
            self.config.cooldown.max(self.config.interval)
        }
    }

    fn look(&mut self, thumbnail: Thumbnail, now: Instant) -> Verdict {
        self.background = Some(thumbnail);
        self.moving_since = None;
        self.calm_since = None;
        self.last_look = Some(now);
        self.restless = self.restless.saturating_add(1);
        Verdict::Look
    }

    /// No motion: adapts the background to daylight, and after a while counts the scene as calm.
    fn rest(&mut self, thumbnail: &Thumbnail, then: Instant, now: Instant) {
        let calm_since = *self.calm_since.get_or_insert(now);
        // A swinging object matches the background now and then, and still moves.
        if now >= calm_since + self.config.interval.max(self.config.settle) {
            self.moving_since = None;
            self.restless = 0;
        }
        if let Some(background) = &mut self.background {
            let share = (now - then).as_secs_f32() / DRIFT.as_secs_f32();
            background.follow(thumbnail, share.min(1.0));
        }
    }

    fn compare(&self, old: &Thumbnail, new: &Thumbnail) -> Change {
        let shades = Shades::of(old, new, &self.counted);
        // The old picture, scaled to the new light.
        let (gain, offset) = if shades.correlation > SAME_SCENE {
            (shades.gain, shades.new - shades.gain * shades.old)
        } else {
            (1.0, 0.0)
        };
        let mut changed = 0;
        let mut brightness = 0;
        for &cell in &self.counted {
            let old = old.cells()[cell];
            let new = new.cells()[cell];
            changed += usize::from((new - (gain * old + offset)).abs() > self.config.threshold);
            brightness += usize::from((new - old).abs() > self.config.threshold);
        }
        let share = |count: usize| count as f32 / self.counted.len().max(1) as f32;
        Change {
            changed: share(changed),
            brightness: share(brightness),
            correlation: shades.correlation,
        }
    }
}

/// How two pictures differ.
#[derive(Debug)]
struct Change {
    /// Share of cells that changed beyond what light explains.
    changed: f32,
    /// Share of the cells that are brighter or darker.
    brightness: f32,
    correlation: f32,
}

impl Change {
    fn is_light(&self) -> bool {
        self.brightness > GLOBAL && self.correlation > SAME_SCENE
    }
}

/// Means, deviations and correlation of two pictures over the counted cells.
struct Shades {
    old: f32,
    new: f32,
    /// Standard deviation of the new one.
    deviation: f32,
    correlation: f32,
    /// Gain in contrast.
    gain: f32,
}

impl Shades {
    fn of(old: &Thumbnail, new: &Thumbnail, cells: &[usize]) -> Self {
        let count = cells.len().max(1) as f32;
        let mean = |thumbnail: &Thumbnail| {
            cells.iter().map(|cell| thumbnail.cells()[*cell]).sum::<f32>() / count
        };
        let old_mean = mean(old);
        let new_mean = mean(new);
        let mut old_var = 0.0;
        let mut new_var = 0.0;
        let mut both = 0.0;
        for &cell in cells {
            let a = old.cells()[cell] - old_mean;
            let b = new.cells()[cell] - new_mean;
            old_var += a * a;
            new_var += b * b;
            both += a * b;
        }
        Self {
            old: old_mean,
            new: new_mean,
            deviation: (new_var / count).sqrt(),
            correlation: both / (old_var * new_var).sqrt().max(f32::MIN_POSITIVE),
            gain: if old_var > 0.0 { both / old_var } else { 1.0 },
        }
    }
}

impl Thumbnail {
    fn follow(&mut self, other: &Self, share: f32) {
        let cells = self.cells_mut().iter_mut().zip(other.cells());
        cells.for_each(|(cell, target)| *cell += share * (target - *cell));
    }
}

#[cfg(test)]
mod tests;
