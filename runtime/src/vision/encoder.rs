//! The vision tower, pooling, separators and projector (spec 3.3 to 3.5).

use std::path::Path;

use super::tiling::{Layout, Tiles, tile};
use crate::config::ImageEmbed;
use crate::error::Result;
use crate::features::Features;
use crate::graph::{Array, EncoderWeights, Graph, Pass, Stack};
use crate::request::{Image, Stop};

/// Added to the scores of masked patches: their weight becomes 0, and a crop without any valid patch still gives numbers.
const MASKED: f32 = -1e9;

/// Picture → rows for the decoder.
#[derive(Debug)]
pub struct VisionEncoder {
    embeddings: Graph,
    layers: Stack,
    projector: Graph,
    config: ImageEmbed,
    width: usize,
    hidden: usize,
}

impl VisionEncoder {
    /// Loads the `vision_*` graphs of `dir`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when a graph is not there, [`Error::Encoder`](crate::Error::Encoder) when it is damaged.
    pub fn load(
        dir: &Path,
        config: &ImageEmbed,
        hidden: usize,
        weights: EncoderWeights,
    ) -> Result<Self> {
        let tower = config.tower();
        Ok(Self {
            embeddings: Graph::load(dir, "vision_embeddings")?,
            layers: Stack::load(dir, "vision_layer", tower.running_layers(), weights)?,
            projector: Graph::load(dir, "vision_projector")?,
            width: tower.hidden_size,
            config: config.clone(),
            hidden,
        })
    }

    /// One row `[hidden]` for each placeholder of the picture.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) when the picture cannot be taken, [`Error::Stopped`](crate::Error::Stopped)
    /// between layers, [`Error::Encoder`](crate::Error::Encoder) when a graph does not fit the config.
    pub fn encode(&self, image: &Image, stop: &Stop) -> Result<Features> {
        stop.check()?;
        let tiles = tile(image, &self.config)?;
        let pooled: Vec<_> = self.patches(&tiles, stop)?.iter().map(pool).collect();
        self.project(&pooled, &tiles.layout)
    }

    /// The tower's output `[side * side, D]` of the global view, then of each crop, row by row.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn patches(&self, tiles: &Tiles, stop: &Stop) -> Result<Vec<Features>> {
        let crops = std::iter::once(None).chain((0..tiles.layout.crops()).map(Some));
        let passes = crops.map(|crop| self.embed(tiles, crop)).collect::<Result<_>>()?;
        let patches = self.layers.run(passes, stop)?;
        patches.iter().map(|rows| Ok(Features::new(self.width, rows.numbers()?.to_vec()))).collect()
    }

    /// A crop's patches, each with its place, and which of them are to be seen.
    fn embed(&self, tiles: &Tiles, crop: Option<usize>) -> Result<Pass> {
        let Layout { crop: side, .. } = tiles.layout;
        let positions = tiles.positions(crop);
        let bias: Vec<f32> =
            tiles.mask(crop).iter().map(|&valid| if valid { 0.0 } else { MASKED }).collect();
        Ok(Pass {
            rows: self.embeddings.run(&[
                Array::new(&[1, 3, side, side], &tiles.pixels(crop))?,
                Array::new(&[positions.len()], &positions)?,
            ])?,
            beside: Array::new(&[1, 1, bias.len()], &bias)?,
        })
    }

    /// Pooled global view and crops → rows for the decoder, in the order of spec 3.5.
    fn project(&self, pooled: &[Features], layout: &Layout) -> Result<Features> {
        let rows: usize = pooled.iter().map(|part| part.rows).sum();
        let data: Vec<f32> = pooled.iter().flat_map(|part| part.data.iter().copied()).collect();
        let order = order(layout);
        let out = self
            .projector
            .run(&[Array::new(&[rows, self.width], &data)?, Array::new(&[order.len()], &order)?])?;
        Ok(Features::new(self.hidden, out.numbers()?.to_vec()))
    }
}

/// Means of 2x2 patches of a square.
fn pool(patches: &Features) -> Features {
    let (side, width) = (patches.rows.isqrt(), patches.width);
    let mut data = Vec::with_capacity(patches.data.len() / 4);
    for row in (0..side).step_by(2) {
        for column in (0..side).step_by(2) {
            let four = [0, 1, side, side + 1].map(|step| patches.row(row * side + column + step));
            data.extend((0..width).map(|i| four.iter().map(|patch| patch[i]).sum::<f32>() / 4.0));
        }
    }
    Features::new(width, data)
}

/// Which pooled patch, of the global view and then of each crop, or which separator comes where: the picture row by row across
/// its crops, `glb_GN`, the global view row by row; `sub_GN` ends each row.
fn order(layout: &Layout) -> Vec<i64> {
    let side = layout.side() / 2;
    let (row_end, part_end) =
        ((1 + layout.crops()) * side * side, (1 + layout.crops()) * side * side + 1);
    let (rows, columns) = layout.pooled();
    let mut order = Vec::with_capacity(layout.tokens());
    for row in 0..rows {
        order.extend((0..columns).map(|column| {
            let crop = 1 + row / side * layout.columns + column / side;
            (crop * side + row % side) * side + column % side
        }));
        order.push(row_end);
    }
    order.push(part_end);
    for row in 0..side {
        order.extend(row * side..(row + 1) * side);
        order.push(row_end);
    }
    order.into_iter().map(|row| row as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_takes_means_of_squares() {
        let patches = Features::new(1, (0..16u8).map(f32::from).collect());
        assert_eq!(pool(&patches), Features::new(1, vec![2.5, 4.5, 10.5, 12.5]));
    }

    #[test]
    fn rows_run_across_crops() {
        // Two crops of 4x4 patches side by side, the last column of the second one only padding.
        let layout =
            Layout { columns: 2, rows: 1, resized: (98, 56), crop: 56, patch: 14, valid: (4, 6) };
        assert_eq!(layout.tokens(), 2 * 4 + 1 + 2 * 3);
        assert_eq!(order(&layout), [4, 5, 8, 12, 6, 7, 10, 12, 13, 0, 1, 12, 2, 3, 12]);
    }
}
