//! A matrix with its adapters, the one of a session added to it.

use tch::Tensor;

use super::Target;
use super::linear::Linear;
use crate::config::Config;
use crate::decoder::adapters::Loras;
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

/// A matrix and what the adapters add to it.
#[derive(Debug)]
pub(super) struct AdaptedLinear {
    base_layer: Linear,
    loras: Loras<Linear>,
}

impl AdaptedLinear {
    pub(super) fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        rows: usize,
        width: usize,
        target: Target,
    ) -> Result<Self> {
        let matrix = |path: &str, rows, width| Linear::load(weights, path, rows, width, target);
        let loras = Loras::load(weights, config, path, [rows, width], matrix)?;
        Ok(Self { base_layer: matrix(path, rows, width)?, loras })
    }

    pub(super) fn forward(&self, xs: &Tensor, adapter: Adapter) -> Tensor {
        let mut ys = self.base_layer.forward(xs);
        if let Some(lora) = self.loras.get(adapter) {
            // In place: these are the largest intermediate results there are.
            ys += lora.b.forward(&(lora.a.forward(xs) * lora.scaling));
        }
        ys
    }
}
