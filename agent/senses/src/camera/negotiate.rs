//! Chooses a camera's mode. Pure.

use std::fmt;

use outpost_agent_core::config::{CameraConfig, PixelFormat};

/// A mode that a camera offers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// The format.
    pub format: PixelFormat,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Maximum frame rate, if known.
    pub fps: Option<f64>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.format, self.width, self.height)?;
        self.fps.map_or(Ok(()), |fps| write!(f, " {fps:.0}/s"))
    }
}

/// The requested mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeRequest {
    /// Pixels per row, and rows.
    pub size: [u32; 2],
    /// Pictures a second.
    pub fps: f64,
    /// Only this format.
    pub format: Option<PixelFormat>,
}

impl From<&CameraConfig> for ModeRequest {
    fn from(config: &CameraConfig) -> Self {
        Self { size: config.size, fps: config.fps, format: config.format }
    }
}

/// The mode nearest in size; among those, one fast enough; among those, the cheapest format. `None`
/// if no format matches.
pub fn choose(modes: &[Mode], request: ModeRequest) -> Option<Mode> {
    let [width, height] = request.size;
    let cost = |mode: &Mode| {
        let distance = mode.width.abs_diff(width) + mode.height.abs_diff(height);
        let slow = mode.fps.is_some_and(|fps| fps < request.fps);
        let rank = PixelFormat::ALL.iter().position(|format| *format == mode.format);
        // Prefer any colour format to grey.
        (mode.format == PixelFormat::Grey, distance, slow, rank)
    };
    let fitting = modes.iter().filter(|mode| request.format.is_none_or(|only| only == mode.format));
    fitting.min_by_key(|mode| cost(mode)).copied()
}

/// A range of sizes, as some cameras give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The smallest.
    pub min: u32,
    /// The largest.
    pub max: u32,
    /// From one to the next.
    pub step: u32,
}

impl Range {
    /// The largest size in the range that is not above the requested one, else the smallest.
    pub fn nearest(self, wanted: u32) -> u32 {
        let wanted = wanted.clamp(self.min, self.max.max(self.min));
        wanted - (wanted - self.min) % self.step.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PixelFormat::{Grey, Mjpg, Yuyv};

    fn mode(format: PixelFormat, size: [u32; 2], fps: f64) -> Mode {
        Mode { format, width: size[0], height: size[1], fps: Some(fps) }
    }

    #[test]
    fn size_comes_before_rate_before_format() {
        let modes = [
            mode(Mjpg, [1920, 1080], 30.0),
            mode(Yuyv, [1920, 1080], 5.0),
            mode(Mjpg, [640, 480], 30.0),
            mode(Yuyv, [640, 480], 30.0),
            mode(Grey, [800, 600], 30.0),
        ];
        let chosen = |size, fps, format| choose(&modes, ModeRequest { size, fps, format });
        assert_eq!(chosen([640, 480], 5.0, None), Some(modes[3]));
        assert_eq!(chosen([640, 480], 5.0, Some(Mjpg)), Some(modes[2]));
        assert_eq!(chosen([1920, 1080], 5.0, None), Some(modes[1]));
        assert_eq!(chosen([1920, 1080], 15.0, None), Some(modes[0]), "YUYV is too slow there");
        assert_eq!(chosen([800, 600], 5.0, None), Some(modes[3]), "colour before grey");
        assert_eq!(chosen([800, 600], 5.0, Some(Grey)), Some(modes[4]));
        assert_eq!(chosen([640, 480], 5.0, Some(PixelFormat::Nv12)), None);
    }

    #[test]
    fn a_range_gives_a_size_that_is_in_it() {
        let range = Range { min: 48, max: 1920, step: 16 };
        for (wanted, given) in [(640, 640), (641, 640), (10, 48), (9999, 1920)] {
            assert_eq!(range.nearest(wanted), given);
        }
    }
}
