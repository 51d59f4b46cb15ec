//! `[camera]`

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Faults, millis};
use crate::senses::camera::area::Area;
use crate::senses::camera::negotiate::Wish;
use crate::senses::camera::pixels::PixelFormat;
use crate::senses::camera::scene::SceneConfig;
use crate::watch::agreement::AgreementConfig;

/// `[camera]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraConfig {
    /// A capture device, such as `/dev/video0` or a name below `/dev/v4l/by-id`.
    pub device: Option<String>,
    /// Instead of a device, a picture or a folder of them, shown in the order of their names. Neither: no camera.
    pub path: Option<PathBuf>,
    /// Pixels per row, and rows, wanted of a device; the nearest that it offers is taken.
    pub size: [u32; 2],
    /// Pictures of a device that are looked at, a second.
    pub fps: f64,
    /// The pixel format wanted of a device; none: the cheapest that it offers.
    pub format: Option<PixelFormat>,
    /// First pictures of a device that are let pass: they are dark or miscoloured.
    pub warm_up: u32,
    /// Whether files begin anew at the end.
    pub repeat: bool,
    /// Time from one file to the next.
    #[serde(with = "millis", rename = "interval_ms")]
    pub interval: Duration,
    /// Whether pictures are read as they come; else only `read_camera` reads them.
    pub watch: bool,
    /// Which pictures are read; none: `scene` for a device, `each` for files.
    pub gate: Option<Gate>,
    /// The only part of the picture that is looked at.
    pub region: Option<Area>,
    /// Parts that are blackened before anything sees or keeps the picture.
    pub privacy: Vec<Area>,
    /// Pictures from before a look that are kept with its evidence, one each half second.
    pub look_back: usize,
    /// When the scene counts as changed.
    pub scene: SceneConfig,
    /// How many readings have to agree.
    pub reading: ReadingConfig,
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            device: None,
            path: None,
            size: [640, 480],
            fps: 5.0,
            format: None,
            warm_up: 5,
            repeat: true,
            interval: Duration::from_secs(1),
            watch: true,
            gate: None,
            region: None,
            privacy: Vec::new(),
            look_back: 4,
            scene: SceneConfig::default(),
            reading: ReadingConfig::default(),
        }
    }
}

/// Which pictures are worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Each that is not the one before.
    Each,
    /// One each time that the scene has changed and come to rest.
    Scene,
}

/// `[camera.reading]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadingConfig {
    /// Readings that have to agree; none: 2 for a device, 1 for files, which are shown but once.
    pub agree: Option<usize>,
    /// Readings of a scene at most; none: 3 for a device, 1 for files.
    pub of: Option<usize>,
    /// Readings agree when they differ by so many letters at most.
    pub distance: usize,
}

impl Default for ReadingConfig {
    fn default() -> Self {
        Self { agree: None, of: None, distance: 1 }
    }
}

impl CameraConfig {
    /// What is wanted of a device.
    pub fn wish(&self) -> Wish {
        Wish { size: self.size, fps: self.fps, format: self.format }
    }

    /// Which pictures are worth a look.
    pub fn gate(&self) -> Gate {
        let default = if self.device.is_some() { Gate::Scene } else { Gate::Each };
        self.gate.unwrap_or(default)
    }

    /// How many readings have to agree.
    pub fn agreement(&self) -> AgreementConfig {
        let (agree, of) = if self.device.is_some() { (2, 3) } else { (1, 1) };
        let of = self.reading.of.unwrap_or(of.max(self.reading.agree.unwrap_or(0)));
        let agree = self.reading.agree.unwrap_or(agree.min(of));
        AgreementConfig { agree, of, distance: self.reading.distance }
    }

    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.device.is_some() && self.path.is_some() {
            faults.add("camera.path", "", "give a device or a path, not both");
        }
        if self.size.iter().any(|side| !(16..=8192).contains(side)) {
            faults.add("camera.size", format!("{:?}", self.size), "use sides from 16 to 8192");
        }
        if !(0.1..=120.0).contains(&self.fps) {
            faults.add("camera.fps", self.fps, "use a value from 0.1 to 120");
        }
        if self.interval.is_zero() {
            faults.add("camera.interval_ms", 0, "use 1 or more");
        }
        if self.look_back > 32 {
            faults.add("camera.look_back", self.look_back, "use 32 or less");
        }
        if let Some(region) = self.region {
            region.check("camera.region", faults);
        }
        for area in &self.privacy {
            area.check("camera.privacy", faults);
        }
        self.scene.check(faults);
        let AgreementConfig { agree, of, .. } = self.agreement();
        if !(1..=of).contains(&agree) || of > 10 {
            let shown = format!("{agree} of {of}");
            faults.add("camera.reading.agree", shown, "use 1 <= agree <= of <= 10");
        }
    }
}
