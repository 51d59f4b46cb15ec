//! RMSNorm (Zhang and Sennrich 2019), without the "+ 1" on the weight that other families have (spec 1.3).

use tch::Tensor;

use crate::error::Result;
use crate::weights::Weights;

#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn load(weights: &Weights, path: &str, hidden: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: weights.tensor(&format!("{path}.weight"), &[hidden])?, eps })
    }

    /// `x / sqrt(mean(x^2) + eps) * weight`, the mean in f32.
    pub(crate) fn forward(&self, xs: &Tensor) -> Tensor {
        xs.rms_norm(self.weight.size(), Some(&self.weight), self.eps)
    }
}
