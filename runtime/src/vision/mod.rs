//! Picture → features: tiles, tower, pooling, separators, projector (spec 3).

mod encoder;
mod resize;
mod tiling;

pub use encoder::VisionEncoder;
pub use tiling::{Layout, Tiles, tile, token_count};

use crate::error::Error;

/// Most pixels of a picture: room for the largest phone cameras.
pub const MAX_PIXELS: u64 = 49_000_000;
/// Least pixels along a side, of the picture and of what it is resized to (spec 3.2, step 5).
pub const MIN_SIDE: usize = 10;

/// Whether a picture of this size can be taken; the fault says what would be.
pub(crate) fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS {
        return Err(format!(
            "{width}x{height} is {:.1} megapixels, but at most {} are taken: scale it down",
            pixels as f64 / 1e6,
            MAX_PIXELS / 1_000_000
        ));
    }
    if (width.min(height) as usize) < MIN_SIDE {
        return Err(format!(
            "{width}x{height} is too small: at least {MIN_SIDE} pixels along each side are needed"
        ));
    }
    Ok(())
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Image { path: None, reason: reason.into() }
}
