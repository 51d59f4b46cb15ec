//! Parts of a picture: what is blackened, and what is looked at. Pure.

use outpost_runtime::Image;
use serde::Deserialize;

use crate::config::Faults;

/// A rectangle as shares of the picture, `[left, top, width, height]` from 0 to 1: it holds whatever size the camera has.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "[f32; 4]")]
pub struct Area {
    left: f32,
    top: f32,
    width: f32,
    height: f32,
}

impl From<[f32; 4]> for Area {
    fn from([left, top, width, height]: [f32; 4]) -> Self {
        Self { left, top, width, height }
    }
}

/// The same in pixels: columns and rows, each from the first to one after the last.
struct Pixels {
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
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

    /// Every pixel that it touches; at least one.
    fn pixels(self, image: &Image) -> Pixels {
        let range = |start: f32, length: f32, whole: u32| {
            let first = ((start * whole as f32).floor() as usize).min(whole as usize - 1);
            let end = ((start + length) * whole as f32).ceil() as usize;
            first..end.clamp(first + 1, whole as usize)
        };
        Pixels {
            columns: range(self.left, self.width, image.width),
            rows: range(self.top, self.height, image.height),
        }
    }

    /// This part of a picture alone.
    pub fn crop(self, image: &Image) -> Image {
        if image.width == 0 || image.height == 0 {
            return image.clone();
        }
        let Pixels { columns, rows } = self.pixels(image);
        let (width, height) = (columns.len() as u32, rows.len() as u32);
        let line = |row: usize| {
            let start = row * image.width as usize;
            &image.rgb[(start + columns.start) * 3..(start + columns.end) * 3]
        };
        let rgb: Vec<u8> = rows.flat_map(line).copied().collect();
        Image { width, height, rgb: rgb.into() }
    }
}

/// The picture with these parts blackened.
pub fn blacken(image: Image, areas: &[Area]) -> Image {
    if areas.is_empty() || image.width == 0 || image.height == 0 {
        return image;
    }
    let mut rgb = image.rgb.to_vec();
    for area in areas {
        let Pixels { columns, rows } = area.pixels(&image);
        for row in rows {
            let start = row * image.width as usize;
            rgb[(start + columns.start) * 3..(start + columns.end) * 3].fill(0);
        }
    }
    Image { rgb: rgb.into(), ..image }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Image {
        let rgb: Vec<u8> = (0..4 * 4u8).flat_map(|pixel| [pixel + 1; 3]).collect();
        Image { width: 4, height: 4, rgb: rgb.into() }
    }

    fn reds(image: &Image) -> Vec<u8> {
        image.rgb.iter().step_by(3).copied().collect()
    }

    #[test]
    fn a_part_is_cut_out_and_a_mask_leaves_nothing_of_what_it_touches() {
        let middle = Area::from([0.25, 0.5, 0.5, 0.25]);
        let cut = middle.crop(&numbered());
        assert_eq!(((cut.width, cut.height), reds(&cut)), ((2, 1), vec![10, 11]));
        // A mask that covers half a pixel blackens all of it.
        let black = blacken(numbered(), &[Area::from([0.3, 0.55, 0.1, 0.1])]);
        let expected = (1..=16u8).map(|pixel| if pixel == 10 { 0 } else { pixel });
        assert_eq!(reds(&black), expected.collect::<Vec<_>>());
    }

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
