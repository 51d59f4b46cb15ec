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
    /// Instead of a device: a picture or a folder of pictures, shown in order of name.
    pub path: Option<PathBuf>,
    /// Requested width and height; the nearest mode is used.
    pub size: [u32; 2],
    /// Maximum frame rate of a device.
    pub fps: f64,
    /// Requested pixel format; the cheapest supported one if left out.
    pub format: Option<PixelFormat>,
    /// Pictures to skip after opening a device, while exposure settles.
    pub warm_up: u32,
    /// Loop at the end of the files.
    pub repeat: bool,
    /// Interval between files.
    #[serde(with = "millis", rename = "interval_ms")]
    pub interval: Duration,
    /// Whether the model reads pictures on its own; otherwise only `read_camera` does.
    pub watch: bool,
    /// Which pictures are read. Default: `scene` for a device, `each` for files.
    pub gate: Option<CameraGate>,
    /// Region of interest.
    pub region: Option<Area>,
    /// Privacy masks, blackened before anything sees or keeps the picture.
    pub privacy: Vec<Area>,
    /// Pictures from before a look that are kept as evidence, one per half second.
    pub look_back: usize,
    /// Motion detection.
    pub scene: MotionConfig,
    /// Agreement of readings.
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
            scene: MotionConfig::default(),
            reading: ReadingConfig::default(),
        }
    }
}

/// Which pictures are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraGate {
    /// Every picture that differs from the previous one.
    Each,
    /// One each time the scene has changed and settled.
    Scene,
}

/// `[camera.reading]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadingConfig {
    /// Readings that have to agree. Default: 2 for a device, 1 for files, which are shown once.
    pub agree: Option<usize>,
    /// Maximum readings of a scene. Default: 3 for a device, 1 for files.
    pub of: Option<usize>,
    /// Maximum edit distance between readings that agree.
    pub distance: usize,
}

impl Default for ReadingConfig {
    fn default() -> Self {
        Self { agree: None, of: None, distance: 1 }
    }
}

impl CameraConfig {
    /// Which pictures are read.
    pub fn gate(&self) -> CameraGate {
        let default = if self.device.is_some() { CameraGate::Scene } else { CameraGate::Each };
        self.gate.unwrap_or(default)
    }

    /// Agreement of readings.
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

/// A rectangle `[left, top, width, height]` as fractions of the picture, independent of its size.
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

    /// Whether it contains a point, given as fractions of the picture.
    pub fn contains(self, x: f32, y: f32) -> bool {
        (self.left..self.left + self.width).contains(&x)
            && (self.top..self.top + self.height).contains(&y)
    }
}

/// Upper bound of all times.
const DAY: Duration = Duration::from_hours(24);

/// `[camera.scene]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MotionConfig {
    /// Difference in brightness, of 255, at which a cell counts as changed.
    pub threshold: f32,
    /// Fraction of changed cells at which the scene counts as changed.
    pub area: f32,
    /// Longest wait for a moving scene to settle.
    #[serde(with = "seconds", rename = "settle_seconds")]
    pub settle: Duration,
    /// Minimum interval between looks.
    #[serde(with = "seconds", rename = "interval_seconds")]
    pub interval: Duration,
    /// Looks at a scene that does not settle before `cooldown` applies.
    pub burst: u32,
    /// Interval between looks at a scene that does not settle.
    #[serde(with = "seconds", rename = "cooldown_seconds")]
    pub cooldown: Duration,
    /// Areas in which motion is ignored.
    pub ignore: Vec<Area>,
}

impl Default for MotionConfig {
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

impl MotionConfig {
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
    /// All formats, cheapest first: of several at the requested size and rate, the first is used.
    pub const ALL: [Self; 5] = [Self::Yuyv, Self::Nv12, Self::Rgb3, Self::Mjpg, Self::Grey];

    /// The V4L2 code.
    pub fn fourcc(self) -> [u8; 4] {
        match self {
            Self::Yuyv => *b"YUYV",
            Self::Nv12 => *b"NV12",
            Self::Rgb3 => *b"RGB3",
            Self::Mjpg => *b"MJPG",
            Self::Grey => *b"GREY",
        }
    }

    /// Parses a V4L2 code; `JPEG` is an alias of `MJPG`.
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

/// Agreement of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreementConfig {
    /// Readings that have to agree.
    pub agree: usize,
    /// Maximum number of readings.
    pub of: usize,
    /// Maximum edit distance between readings that agree.
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
