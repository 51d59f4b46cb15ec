//! Privacy masks and the region of interest. Pure.

use outpost_agent_core::config::Area;
use outpost_runtime::Image;

/// An area in pixels: half-open ranges of columns and rows.
struct Pixels {
    columns: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
}

/// All pixels that an area touches; at least one.
fn pixels(area: Area, image: &Image) -> Pixels {
    let range = |start: f32, length: f32, whole: u32| {
        let first = ((start * whole as f32).floor() as usize).min(whole as usize - 1);
        let end = ((start + length) * whole as f32).ceil() as usize;
        first..end.clamp(first + 1, whole as usize)
    };
    Pixels {
        columns: range(area.left, area.width, image.width),
        rows: range(area.top, area.height, image.height),
    }
}

/// Crops a picture to an area.
pub fn crop(image: &Image, area: Area) -> Image {
    if image.width == 0 || image.height == 0 {
        return image.clone();
    }
    let Pixels { columns, rows } = pixels(area, image);
    let width = columns.len() as u32;
    let height = rows.len() as u32;
    let line = |row: usize| {
        let start = row * image.width as usize;
        &image.rgb[(start + columns.start) * 3..(start + columns.end) * 3]
    };
    let rgb: Vec<u8> = rows.flat_map(line).copied().collect();
    Image { width, height, rgb: rgb.into() }
}

/// Blackens areas of a picture.
pub fn blacken(image: Image, areas: &[Area]) -> Image {
    if areas.is_empty() || image.width == 0 || image.height == 0 {
        return image;
    }
    let mut rgb = image.rgb.to_vec();
    for area in areas {
        let Pixels { columns, rows } = pixels(*area, &image);
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
        let cut = crop(&numbered(), middle);
        assert_eq!(((cut.width, cut.height), reds(&cut)), ((2, 1), vec![10, 11]));
        // A mask that covers half a pixel blackens all of it.
        let black = blacken(numbered(), &[Area::from([0.3, 0.55, 0.1, 0.1])]);
        let expected = (1..=16u8).map(|pixel| if pixel == 10 { 0 } else { pixel });
        assert_eq!(reds(&black), expected.collect::<Vec<_>>());
    }
}
