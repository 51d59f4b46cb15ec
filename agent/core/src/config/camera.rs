//! `[camera]`

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::{millis, seconds};

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
    pub gate: Option<CameraGate>,
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
pub enum CameraGate {
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
    /// Which pictures are worth a look.
    pub fn gate(&self) -> CameraGate {
        let default = if self.device.is_some() { CameraGate::Scene } else { CameraGate::Each };
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

/// A rectangle as shares of the picture, `[left, top, width, height]` from 0 to 1: it holds whatever size the camera has.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "[f32; 4]")]
pub struct Area {
    /// The left edge.
    pub left: f32,
    /// The upper edge.
    pub top: f32,
    /// Its width.
    pub width: f32,
    /// Its height.
    pub height: f32,
}

impl From<[f32; 4]> for Area {
    fn from([left, top, width, height]: [f32; 4]) -> Self {
        Self { left, top, width, height }
    }
}

impl Area {
    pub(crate) fn check(self, key: &str, faults: &mut Faults) {
        let Self { left, top, width, height } = self;
        let inside =
            |start: f32, length: f32| start >= 0.0 && length > 0.0 && start + length <= 1.001;
        if !(inside(left, width) && inside(top, height)) {
            let shown = format!("[{left}, {top}, {width}, {height}]");
            faults.add(
                key,
                shown,
                "give [left, top, width, height] as shares of the picture, 0 to 1",
            );
        }
    }

    /// Whether a point is in it; `x` and `y` are shares of the picture.
    pub fn contains(self, x: f32, y: f32) -> bool {
        (self.left..self.left + self.width).contains(&x)
            && (self.top..self.top + self.height).contains(&y)
    }
}

/// No time of the gate is longer.
const DAY: Duration = Duration::from_hours(24);

/// `[camera.scene]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneConfig {
    /// A part of the picture has changed when its brightness differs by so much, of 255.
    pub threshold: f32,
    /// The scene has changed when so much of it has, as a share.
    pub area: f32,
    /// A scene in motion is looked at when it rests, and after this time at the latest.
    #[serde(with = "seconds", rename = "settle_seconds")]
    pub settle: Duration,
    /// From one look to the next at least.
    #[serde(with = "seconds", rename = "interval_seconds")]
    pub interval: Duration,
    /// Looks at a scene that does not come to rest, before there is one in each cool-down only.
    pub burst: u32,
    /// From one look to the next where the scene does not come to rest.
    #[serde(with = "seconds", rename = "cooldown_seconds")]
    pub cooldown: Duration,
    /// Parts of the picture whose changes do not count.
    pub ignore: Vec<Area>,
}

impl Default for SceneConfig {
    fn default() -> Self {
        Self {
            threshold: 12.0,
            area: 0.003,
            settle: Duration::from_secs(2),
            interval: Duration::from_secs(2),
            burst: 5,
            cooldown: Duration::from_secs(30),
            ignore: Vec::new(),
        }
    }
}

impl SceneConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(1.0..=128.0).contains(&self.threshold) {
            faults.add("camera.scene.threshold", self.threshold, "use a value from 1 to 128");
        }
        if !(0.0..=0.5).contains(&self.area) {
            faults.add("camera.scene.area", self.area, "use a share from 0 to 0.5");
        }
        if self.burst == 0 {
            faults.add("camera.scene.burst", 0, "use 1 or more");
        }
        for (name, time) in
            [("settle", self.settle), ("interval", self.interval), ("cooldown", self.cooldown)]
        {
            if time > DAY {
                let key = format!("camera.scene.{name}_seconds");
                faults.add(key, time.as_secs_f64(), "use 86400 or less");
            }
        }
        for area in &self.ignore {
            area.check("camera.scene.ignore", faults);
        }
    }
}

/// The pixel formats that can be read, by their V4L2 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPER")]
pub enum PixelFormat {
    /// YUV 4:2:2, two pixels in four bytes.
    Yuyv,
    /// YUV 4:2:0: a plane of luma, then one of interleaved chroma at half the size.
    Nv12,
    /// RGB, a byte each.
    #[serde(alias = "RGB24")]
    Rgb3,
    /// JPEG pictures, also such as leave their Huffman tables out.
    Mjpg,
    /// Luma, a byte.
    Grey,
}

impl PixelFormat {
    /// All of them; where a camera offers several at the size and rate wanted, the first is taken: it costs least and loses
    /// nothing.
    pub const ALL: [Self; 5] = [Self::Yuyv, Self::Nv12, Self::Rgb3, Self::Mjpg, Self::Grey];

    /// The name that V4L2 gives it.
    pub fn fourcc(self) -> [u8; 4] {
        match self {
            Self::Yuyv => *b"YUYV",
            Self::Nv12 => *b"NV12",
            Self::Rgb3 => *b"RGB3",
            Self::Mjpg => *b"MJPG",
            Self::Grey => *b"GREY",
        }
    }

    /// The format of a V4L2 name; `JPEG` is read as `MJPG`.
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Self> {
        let fourcc = if fourcc == *b"JPEG" { *b"MJPG" } else { fourcc };
        Self::ALL.into_iter().find(|format| format.fourcc() == fourcc)
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.fourcc()))
    }
}

/// How many readings have to agree, and how well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreementConfig {
    /// Readings that have to agree.
    pub agree: usize,
    /// Readings at most.
    pub of: usize,
    /// Readings agree when they differ by so many letters at most.
    pub distance: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_outside_the_picture_are_refused() {
        for (area, fits) in [
            ([0.0, 0.0, 1.0, 1.0], true),
            ([0.5, 0.5, 0.5, 0.5], true),
            ([0.5, 0.0, 0.6, 1.0], false),
            ([0.0, 0.0, 0.0, 1.0], false),
            ([-0.1, 0.0, 1.0, 1.0], false),
            ([f32::NAN, 0.0, 1.0, 1.0], false),
        ] {
            let mut faults = Faults::default();
            Area::from(area).check("camera.region", &mut faults);
            assert_eq!(faults.is_empty(), fits, "{area:?}");
        }
    }
}
