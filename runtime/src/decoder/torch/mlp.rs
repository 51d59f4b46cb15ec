//! SwiGLU feed-forward (Shazeer 2020; spec 1.3): the gate is the first half of `gate_up_proj`.

use tch::Tensor;

use super::Target;
use super::lora::AdaptedLinear;
use crate::config::Config;
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Mlp {
    gate_up_proj: AdaptedLinear,
    down_proj: AdaptedLinear,
}

impl Mlp {
    pub(super) fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        target: Target,
    ) -> Result<Self> {
        let (hidden, ffn) = (config.decoder.hidden_size, config.decoder.intermediate_size);
        Ok(Self {
            gate_up_proj: AdaptedLinear::load(
                weights,
                config,
                &format!("{path}.gate_up_proj"),
                2 * ffn,
                hidden,
                target,
            )?,
            down_proj: AdaptedLinear::load(
                weights,
                config,
                &format!("{path}.down_proj"),
                hidden,
                ffn,
                target,
            )?,
        })
    }

    pub(super) fn forward(&self, xs: &Tensor, adapter: Adapter) -> Tensor {
        let gate_up = self.gate_up_proj.forward(xs, adapter);
        let ffn = gate_up.size()[1] / 2;
        let (gate, up) = (gate_up.narrow(1, 0, ffn), gate_up.narrow(1, ffn, ffn));
        let mut ys = gate.silu();
        ys *= up;
        self.down_proj.forward(&ys, adapter)
    }
}
