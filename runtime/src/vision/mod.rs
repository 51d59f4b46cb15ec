//! Picture → features: tiles, tower, pooling, separators, projector (spec 3).

mod encoder;
mod resize;
mod tiling;

pub use encoder::VisionEncoder;
pub use tiling::{Layout, Tiles, tile, token_count};

use crate::error::Error;

/// Most pixels of a picture: those of a phone camera of 50 megapixels.
pub const MAX_PIXELS: u64 = 8192 * 6144;
/// Least pixels along a side of what a picture is resized to (spec 3.2, step 5). The picture itself may be a single pixel.
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
    if pixels == 0 {
        return Err(format!("{width}x{height} holds no pixel"));
    }
    Ok(())
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Image { path: None, reason: reason.into() }
}
