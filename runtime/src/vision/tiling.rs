//! A picture cut into crops, with a small global view in front (spec 3.2), and where its patches sit (spec 3.3).

use super::{MIN_SIDE, check_size, resize, unusable};
use crate::config::ImageEmbed;
use crate::error::Result;
use crate::request::Image;

/// How a picture of some size is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Crops in a row.
    pub columns: usize,
    /// Rows of crops.
    pub rows: usize,
    /// Width and height that the picture is resized to; white fills the rest of the crops at the right or at the bottom.
    pub resized: (usize, usize),
    /// Side of a crop in pixels.
    pub crop: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Patches of the cut picture, rows and columns, that are not only padding.
    pub valid: (usize, usize),
}

impl Layout {
    /// Steps 2 to 5 and 8 of spec 3.2.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) naming a size that cannot be taken.
    pub fn of(width: u32, height: u32, config: &ImageEmbed) -> Result<Self> {
        check_size(width, height).map_err(unusable)?;
        let (crop, patch) = (config.crop_size, config.tower().patch_size);
        let (columns, rows) = grid(width as usize, height as usize, crop, config.dynamic_hd);
        let (full_width, full_height) = (crop * columns, crop * rows);
        let by_width = full_width as f64 / f64::from(width);
        let by_height = full_height as f64 / f64::from(height);
        let resized = if by_width < by_height {
            (full_width, (f64::from(height) * by_width) as usize)
        } else {
            ((f64::from(width) * by_height) as usize, full_height)
        };
        if resized.0.min(resized.1) < MIN_SIDE {
            return Err(unusable(format!(
                "{width}x{height} is too narrow: it would become {}x{}, but at least {MIN_SIDE} pixels along each side \
                 are needed",
                resized.0, resized.1
            )));
        }
        let valid = ((rows * crop, resized.1), (columns * crop, resized.0));
        let patches = |(full, used): (usize, usize)| full / patch - (full - used) / patch;
        Ok(Self {
            columns,
            rows,
            resized,
            crop,
            patch,
            valid: (patches(valid.0), patches(valid.1)),
        })
    }

    /// Crops, the global view not counted.
    pub fn crops(&self) -> usize {
        self.columns * self.rows
    }

    /// Patches along the side of a crop.
    pub fn side(&self) -> usize {
        self.crop / self.patch
    }

    /// Pooled patches, rows and columns, that hold some picture.
    pub fn pooled(&self) -> (usize, usize) {
        (self.valid.0.div_ceil(2), self.valid.1.div_ceil(2))
    }

    /// Placeholders that the picture takes: pooled patches of the crops and of the global view, a separator after each of
    /// their rows, and one in between.
    pub fn tokens(&self) -> usize {
        let (rows, columns) = self.pooled();
        let view = self.side() / 2;
        rows * (columns + 1) + 1 + view * (view + 1)
    }

    /// Rows and columns of valid patches in a crop; `None` is the global view, which is valid throughout.
    pub fn valid_in(&self, crop: Option<usize>) -> (usize, usize) {
        let side = self.side();
        let Some(crop) = crop else { return (side, side) };
        let within = |valid: usize, at: usize| valid.saturating_sub(at * side).min(side);
        (within(self.valid.0, crop / self.columns), within(self.valid.1, crop % self.columns))
    }
}

/// Columns and rows of crops (step 3).
fn grid(width: usize, height: usize, crop: usize, most: usize) -> (usize, usize) {
    let (columns, rows) = (width.div_ceil(crop), height.div_ceil(crop));
    if columns * rows <= most {
        return (columns, rows);
    }
    let mut grids: Vec<_> = (1..=most).flat_map(|i| (1..=most / i).map(move |j| (i, j))).collect();
    grids.sort_by_key(|(i, j)| i * j);
    let ratio = width as f64 / height as f64;
    let (mut best, mut best_error) = ((1, 1), f64::INFINITY);
    for (i, j) in grids {
        let error = (ratio - i as f64 / j as f64).abs();
        #[expect(
            clippy::float_cmp,
            reason = "the reference asks for an exact tie, as between 2:1 and 4:2"
        )]
        let fills_more = error == best_error && 2 * width * height > crop * crop * i * j;
        if error < best_error || fills_more {
            (best, best_error) = ((i, j), error);
        }
    }
    best
}

/// A picture ready for the tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiles {
    /// How it was cut.
    pub layout: Layout,
    /// The resized picture on white: `[rows * crop, columns * crop, 3]`.
    pub picture: Vec<u8>,
    /// The global view, normalised: `[3, crop, crop]`.
    pub global: Vec<f32>,
}

/// Resizes, pads and cuts a picture.
///
/// # Errors
/// [`Error::Image`](crate::Error::Image) when its size cannot be taken or its data is not of its size.
pub fn tile(image: &Image, config: &ImageEmbed) -> Result<Tiles> {
    let layout = Layout::of(image.width, image.height, config)?;
    let size = (image.width as usize, image.height as usize);
    if image.rgb.len() != size.0 * size.1 * 3 {
        return Err(unusable(format!(
            "{}x{} needs {} bytes of RGB, but {} are given",
            image.width,
            image.height,
            size.0 * size.1 * 3,
            image.rgb.len()
        )));
    }
    let resized = resize::bilinear(&image.rgb, size, layout.resized);
    let (width, height) = (layout.columns * layout.crop, layout.rows * layout.crop);
    let mut picture = vec![255; width * height * 3];
    for (row, from) in
        picture.chunks_exact_mut(width * 3).zip(resized.chunks_exact(layout.resized.0 * 3))
    {
        row[..from.len()].copy_from_slice(from);
    }
    let global = (0..3)
        .flat_map(|channel| {
            let plane: Vec<f32> =
                picture.iter().skip(channel).step_by(3).map(|&value| normalised(value)).collect();
            resize::bicubic(&plane, (width, height), layout.crop)
        })
        .collect();
    Ok(Tiles { layout, picture, global })
}

/// Placeholders that a picture of this size takes in the prompt.
///
/// # Errors
/// [`Error::Image`](crate::Error::Image) naming a size that cannot be taken.
pub fn token_count(width: u32, height: u32, config: &ImageEmbed) -> Result<usize> {
    Ok(Layout::of(width, height, config)?.tokens())
}

impl Tiles {
    /// Pixels `[3, crop, crop]` of a crop, normalised; `None` is the global view.
    pub fn pixels(&self, crop: Option<usize>) -> Vec<f32> {
        let Some(at) = crop else { return self.global.clone() };
        let Layout { columns, crop: side, .. } = self.layout;
        let stride = columns * side * 3;
        let corner = at / columns * side * stride + at % columns * side * 3;
        let mut out = vec![0.0; 3 * side * side];
        for (channel, plane) in out.chunks_exact_mut(side * side).enumerate() {
            for (row, line) in plane.chunks_exact_mut(side).enumerate() {
                let begin = corner + row * stride + channel;
                for (to, &from) in line.iter_mut().zip(self.picture[begin..].iter().step_by(3)) {
                    *to = normalised(from);
                }
            }
        }
        out
    }

    /// Patch mask `[side, side]` of a crop, false where a patch is only padding.
    pub fn mask(&self, crop: Option<usize>) -> Vec<bool> {
        self.patches(crop).map(|place| place.is_some()).collect()
    }

    /// For each patch of a crop, its row of the position table: the valid part is stretched over the whole table. Masked patches
    /// take row 0 (spec 3.3).
    pub fn positions(&self, crop: Option<usize>) -> Vec<i64> {
        self.patches(crop).map(|place| place.unwrap_or(0)).collect()
    }

    fn patches(&self, crop: Option<usize>) -> impl Iterator<Item = Option<i64>> {
        let side = self.layout.side();
        let (rows, columns) = self.layout.valid_in(crop);
        (0..side * side).map(move |patch| {
            let (row, column) = (patch / side, patch % side);
            (row < rows && column < columns)
                .then(|| (side * (side * row / rows) + side * column / columns) as i64)
        })
    }
}

/// From `[0, 255]` to `[-1, 1]` (step 9).
fn normalised(value: u8) -> f32 {
    (f32::from(value) / 255.0 - 0.5) / 0.5
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(crop_size: usize, dynamic_hd: usize) -> ImageEmbed {
        let tower = crate::config::VisionConfig {
            image_size: crop_size,
            ..crate::config::VisionConfig::SO400M
        };
        ImageEmbed { crop_size, img_processor: Some(tower), dynamic_hd }
    }

    fn picture(width: u32, height: u32) -> Image {
        let rgb = (0..width * height * 3).map(|n| (n * 7 % 251) as u8).collect();
        Image { width, height, rgb }
    }

    #[test]
    #[rustfmt::skip]
    fn pictures_are_cut_as_in_the_reference() {
        for (size, grid, resized, pooled, tokens) in [
            ((448, 448), (1, 1), (448, 448), (16, 16), 545),
            ((224, 224), (1, 1), (448, 448), (16, 16), 545),
            ((449, 449), (2, 2), (896, 896), (32, 32), 1329),
            ((640, 480), (2, 2), (896, 672), (24, 32), 1065),
            ((800, 600), (2, 2), (896, 672), (24, 32), 1065),
            ((1024, 768), (3, 2), (1194, 896), (32, 43), 1681),
            ((1280, 720), (3, 2), (1344, 756), (27, 48), 1596),
            ((1920, 1080), (5, 3), (2240, 1260), (45, 80), 3918),
            ((3000, 2000), (7, 5), (3136, 2090), (75, 112), 8748),
            ((4000, 3000), (4, 3), (1792, 1344), (48, 64), 3393),
            ((3024, 4032), (3, 4), (1344, 1792), (64, 48), 3409),
            ((100, 1000), (1, 3), (134, 1344), (48, 5), 561),
            ((5000, 1000), (12, 3), (5376, 1075), (39, 192), 7800),
        ] {
            let layout = Layout::of(size.0, size.1, &config(448, 36)).unwrap();
            assert_eq!((layout.columns, layout.rows), grid, "{size:?}");
            assert_eq!(layout.resized, resized, "{size:?}");
            assert_eq!(layout.pooled(), pooled, "{size:?}");
            assert_eq!(layout.tokens(), tokens, "{size:?}");
        }
    }

    #[test]
    fn positions_are_stretched_over_the_table() {
        let tiles = Tiles {
            layout: Layout { valid: (32, 5), ..Layout::of(448, 448, &config(448, 36)).unwrap() },
            picture: vec![],
            global: vec![],
        };
        assert_eq!(tiles.positions(Some(0))[..6], [0, 6, 12, 19, 25, 0]);
        assert_eq!(tiles.positions(Some(0))[32 * 31..][..5], [992, 998, 1004, 1011, 1017]);
        assert_eq!(tiles.positions(None), (0..1024).collect::<Vec<_>>());
        assert_eq!(tiles.mask(Some(0)).iter().filter(|&&valid| valid).count(), 32 * 5);
    }

    #[test]
    fn crops_are_parts_of_the_picture() {
        let tiles = tile(&picture(130, 100), &config(56, 6)).unwrap();
        assert_eq!((tiles.layout.columns, tiles.layout.rows), (3, 2));
        assert_eq!(tiles.layout.resized, (145, 112));
        let last = tiles.pixels(Some(5));
        let (row, column) = (55, 30);
        let at = ((56 + row) * 168 + 112 + column) * 3 + 1;
        assert_eq!(
            last[56 * 56 + row * 56 + column].to_bits(),
            normalised(tiles.picture[at]).to_bits()
        );
        assert!(last[55] > 0.999, "the padding is white");
    }

    #[test]
    fn unusable_pictures_are_named() {
        for (width, height, text) in [
            (0, 0, "0x0 holds no pixel"),
            (60, 1, "60x1 is too narrow: it would become 448x7"),
            (10_000, 5_100, "10000x5100 is 51.0 megapixels, but at most 50"),
            (u32::MAX, u32::MAX, "megapixels"),
            (40_000, 20, "40000x20 is too narrow"),
        ] {
            let image = Image { width, height, rgb: [].into() };
            let fault = tile(&image, &config(448, 36)).unwrap_err().to_string();
            assert!(fault.starts_with("image: ") && fault.contains(text), "{fault}");
        }
        let fault = tile(&Image { rgb: [0; 7].into(), ..picture(20, 20) }, &config(448, 36))
            .unwrap_err()
            .to_string();
        assert!(fault.contains("1200 bytes"), "{fault}");
    }

    proptest! {
        #[test]
        fn no_crop_is_only_padding(width in 1u32..7000, height in 1u32..7000, most in 1usize..37) {
            if let Ok(layout) = Layout::of(width, height, &config(224, most)) {
                prop_assert!(layout.crops() <= most);
                for crop in 0..layout.crops() {
                    let (rows, columns) = layout.valid_in(Some(crop));
                    prop_assert!(rows > 0 && columns > 0, "{layout:?}");
                }
            }
        }
    }
}
