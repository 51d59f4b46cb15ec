//! What the adapters add to a matrix: `W x + alpha / r * B (A x)` (Hu et al. 2021; spec 2), for matrices of either backend.

use crate::config::{Config, LoraConfig};
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

/// The two matrices of a LoRA, and `alpha / r`.
#[derive(Debug)]
pub(super) struct Lora<M> {
    pub(super) a: M,
    pub(super) b: M,
    pub(super) scaling: f64,
}

/// The adapters of a matrix.
#[derive(Debug)]
pub(super) struct Loras<M> {
    vision: Option<Lora<M>>,
    speech: Option<Lora<M>>,
    /// The user's own, in the config's order; `None` where one leaves this matrix as it is.
    user: Vec<Option<Lora<M>>>,
}

impl<M> Loras<M> {
    /// Loads the adapters of `path`, a matrix `[rows, width]`; `matrix` loads one by its path, rows and width.
    pub(super) fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        [rows, width]: [usize; 2],
        matrix: impl Fn(&str, usize, usize) -> Result<M>,
    ) -> Result<Self> {
        let lora = |name: &str, sizes: &LoraConfig| -> Result<Lora<M>> {
            Ok(Lora {
                a: matrix(&format!("{path}.lora_A.{name}"), sizes.r, width)?,
                b: matrix(&format!("{path}.lora_B.{name}"), rows, sizes.r)?,
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
            vision: of_media("vision", &config.vision_lora)?,
            speech: of_media("speech", &config.speech_lora)?,
            user: config.adapters.iter().map(of_user).collect::<Result<_>>()?,
        })
    }

    /// The one that a sequence has chosen, if it touches this matrix.
    pub(super) fn get(&self, adapter: Adapter) -> Option<&Lora<M>> {
        match adapter {
            Adapter::None => None,
            Adapter::Vision => self.vision.as_ref(),
            Adapter::Speech => self.speech.as_ref(),
            Adapter::User(index) => self.user.get(index).and_then(Option::as_ref),
        }
    }
}
