//! RMSNorm (Zhang and Sennrich 2019), without the "+ 1" on the weight that other families have (spec 1.3).

use tch::Tensor;

use super::Target;
use crate::config::Config;
use crate::error::Result;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(super) fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        target: Target,
    ) -> Result<Self> {
        let weight = weights.vector(&format!("{path}.weight"), config.decoder.hidden_size)?;
        let weight = Tensor::f_from_slice(&weight)?.f_to_kind(target.kind)?.f_to(target.device)?;
        Ok(Self { weight, eps: config.decoder.rms_norm_eps })
    }

    /// `x / sqrt(mean(x^2) + eps) * weight`, the mean in f32.
    pub(super) fn forward(&self, xs: &Tensor) -> Tensor {
        xs.rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}
