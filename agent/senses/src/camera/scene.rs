//! When to look: the scene gate. It lets a picture through when the scene has changed and come to rest, and holds back noise,
//! daylight, switched lights, blank pictures and what changes all the time. Pure: time is an argument.

use std::time::Duration;

use outpost_agent_core::config::SceneConfig;
use tokio::time::Instant;

use crate::camera::thumb::{CELLS, COLUMNS, ROWS, Thumb};

/// What the gate says of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look: the first picture, or a scene that has changed.
    Look,
    /// The scene is as it was.
    Still,
    /// The picture shows nothing: grey, black or green, as after a camera came back.
    Blank,
    /// The light has changed, not the scene.
    Lighting,
    /// Something moves; it is looked at when it rests.
    Moving,
    /// The scene has changed, and the last look was only just now.
    TooSoon,
}

/// A picture whose cells differ less shows nothing, standard deviation of luma.
const BLANK: f32 = 2.0;
/// Pictures that correlate more show the same scene in another light.
const SAME_SCENE: f32 = 0.7;
/// Only when so much of the picture changed can it have been the light.
const GLOBAL: f32 = 0.5;
/// The background follows slow changes, such as daylight, with this time constant.
const DRIFT: Duration = Duration::from_secs(10);

/// The gate and what it remembers: two thumbnails.
#[derive(Debug)]
pub struct Scene {
    config: SceneConfig,
    /// The cells that count.
    counted: Vec<usize>,
    /// The scene as it was last looked at.
    background: Option<Thumb>,
    previous: Option<(Thumb, Instant)>,
    moving_since: Option<Instant>,
    calm_since: Option<Instant>,
    last_look: Option<Instant>,
    /// Looks since the scene last was calm.
    restless: u32,
}

impl Scene {
    /// A gate that has seen nothing.
    pub fn new(config: SceneConfig) -> Self {
        let at = |index: usize, count: usize| (index as f32 + 0.5) / count as f32;
        let ignored = |cell: &usize| {
            let (x, y) = (at(cell % COLUMNS, COLUMNS), at(cell / COLUMNS, ROWS));
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

    /// Whether to look at this picture, the next of the stream.
    pub fn see(&mut self, thumb: Thumb, now: Instant) -> Verdict {
        if Shades::of(&thumb, &thumb, &self.counted).deviation < BLANK {
            return Verdict::Blank;
        }
        let before = self.previous.replace((thumb.clone(), now));
        let Some(background) = &self.background else {
            return self.look(thumb, now);
        };
        let against = self.compare(background, &thumb);
        if against.is_light() {
            self.background = Some(thumb);
            return Verdict::Lighting;
        }
        if against.changed <= self.config.area {
            self.rest(&thumb, before.map_or(now, |(_, then)| then), now);
            return Verdict::Still;
        }
        self.calm_since = None;
        let since = *self.moving_since.get_or_insert(now);
        let moves = before.is_some_and(|(previous, _)| {
            self.compare(&previous, &thumb).changed > self.config.area
        });
        if moves && now < since + self.config.settle {
            return Verdict::Moving;
        }
        if self.last_look.is_some_and(|last| now < last + self.wait()) {
            return Verdict::TooSoon;
        }
        self.look(thumb, now)
    }

    /// Looks are this far apart from now on, and so far where the scene does not come to rest.
    pub fn pace(&mut self, interval: Duration, cooldown: Duration) {
        self.config.interval = interval;
        self.config.cooldown = cooldown;
    }

    /// The next picture is looked at, whatever it shows.
    pub fn forget(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// From one look to the next.
    fn wait(&self) -> Duration {
        if self.restless < self.config.burst {
            self.config.interval
        } else {
            self.config.cooldown.max(self.config.interval)
        }
    }

    fn look(&mut self, thumb: Thumb, now: Instant) -> Verdict {
        self.background = Some(thumb);
        self.moving_since = None;
        self.calm_since = None;
        self.last_look = Some(now);
        self.restless = self.restless.saturating_add(1);
        Verdict::Look
    }

    /// Nothing happens: the background follows the light of the day, and after a while the scene counts as calm.
    fn rest(&mut self, thumb: &Thumb, then: Instant, now: Instant) {
        let calm_since = *self.calm_since.get_or_insert(now);
        // What swings is as it was now and then, and moves all the same.
        if now >= calm_since + self.config.interval.max(self.config.settle) {
            self.moving_since = None;
            self.restless = 0;
        }
        if let Some(background) = &mut self.background {
            let share = (now - then).as_secs_f32() / DRIFT.as_secs_f32();
            background.follow(thumb, share.min(1.0));
        }
    }

    fn compare(&self, old: &Thumb, new: &Thumb) -> Change {
        let shades = Shades::of(old, new, &self.counted);
        // What a brighter or darker light would have made of the old picture.
        let (gain, offset) = if shades.correlation > SAME_SCENE {
            (shades.gain, shades.new - shades.gain * shades.old)
        } else {
            (1.0, 0.0)
        };
        let (mut changed, mut brightness) = (0, 0);
        for &cell in &self.counted {
            let (old, new) = (old.cells()[cell], new.cells()[cell]);
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
    /// Share of the cells that changed beyond what another light explains.
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

/// Mean, spread and likeness of two pictures over the cells that count.
struct Shades {
    old: f32,
    new: f32,
    /// The standard deviation of the new one.
    deviation: f32,
    correlation: f32,
    /// By how much the new picture's contrast is greater.
    gain: f32,
}

impl Shades {
    fn of(old: &Thumb, new: &Thumb, cells: &[usize]) -> Self {
        let count = cells.len().max(1) as f32;
        let mean =
            |thumb: &Thumb| cells.iter().map(|cell| thumb.cells()[*cell]).sum::<f32>() / count;
        let (old_mean, new_mean) = (mean(old), mean(new));
        let (mut old_var, mut new_var, mut both) = (0.0, 0.0, 0.0);
        for &cell in cells {
            let (a, b) = (old.cells()[cell] - old_mean, new.cells()[cell] - new_mean);
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

impl Thumb {
    fn follow(&mut self, other: &Self, share: f32) {
        let cells = self.cells_mut().iter_mut().zip(other.cells());
        cells.for_each(|(cell, target)| *cell += share * (target - *cell));
    }
}

#[cfg(test)]
mod tests;
