//! LoRA (Hu et al. 2021; spec 2): `ys = W xs + alpha / r * B (A xs)`, the adapter chosen by the session.

use tch::Tensor;

use super::Target;
use super::linear::Linear;
use crate::config::{Config, LoraConfig};
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

/// A matrix and what the adapters add to it.
#[derive(Debug)]
pub(super) struct AdaptedLinear {
    base_layer: Linear,
    vision: Option<Lora>,
    speech: Option<Lora>,
    /// The user's own, in the config's order; none where one leaves this matrix as it is.
    user: Vec<Option<Lora>>,
}

#[derive(Debug)]
struct Lora {
    a: Linear,
    b: Linear,
    scaling: f64,
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
        let lora = |name: &str, sizes: &LoraConfig| -> Result<Lora> {
            let (a, b) = (format!("{path}.lora_A.{name}"), format!("{path}.lora_B.{name}"));
            Ok(Lora {
                a: Linear::load(weights, &a, sizes.r, width, target)?,
                b: Linear::load(weights, &b, rows, sizes.r, target)?,
                scaling: sizes.scaling(),
            })
        };
        let of_media = |name: &str, sizes: &Option<LoraConfig>| {
            sizes.as_ref().map(|sizes| lora(name, sizes)).transpose()
        };
        let of_user = |(name, sizes): (&String, &LoraConfig)| {
            let touched = weights.has_matrix(&format!("{path}.lora_A.{name}"));
            touched.then(|| lora(name, sizes)).transpose()
        };
        Ok(Self {
            base_layer: Linear::load(weights, path, rows, width, target)?,
            vision: of_media("vision", &config.vision_lora)?,
            speech: of_media("speech", &config.speech_lora)?,
            user: config.adapters.iter().map(of_user).collect::<Result<_>>()?,
        })
    }

    pub(super) fn forward(&self, xs: &Tensor, adapter: Adapter) -> Tensor {
        let mut ys = self.base_layer.forward(xs);
        let lora = match adapter {
            Adapter::None => None,
            Adapter::Vision => self.vision.as_ref(),
            Adapter::Speech => self.speech.as_ref(),
            Adapter::User(index) => self.user.get(index).and_then(Option::as_ref),
        };
        if let Some(lora) = lora {
            // In place: these are the largest intermediate results there are.
            ys += lora.forward(xs);
        }
        ys
    }
}

impl Lora {
    fn forward(&self, xs: &Tensor) -> Tensor {
        self.b.forward(&(self.a.forward(xs) * self.scaling))
    }
}
