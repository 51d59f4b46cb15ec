//! Every encoder tensor of a checkpoint by name and shape (spec 3.1, 4.5).

use super::{conformer, siglip};
use crate::config::{AudioConfig, Config, VisionConfig};

/// The tensors of the encoders and projectors that the config names, those included that never run: the vision tower's
/// last layer, `post_layernorm` and `head`.
pub fn inventory(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut list = List(Vec::new());
    let hidden = config.decoder.hidden_size;
    if let Some(image) = config.image() {
        list.vision(&image.tower(), hidden);
    }
    if let Some(audio) = config.audio() {
        list.audio(audio, hidden);
    }
    list.0
}

/// The tensors that are computed with.
pub fn running(config: &Config) -> Vec<(String, Vec<usize>)> {
    let last = config.image().map_or(0, |image| image.tower().running_layers());
    let tower = format!("{}.img_processor", siglip::PREFIX);
    let idle = ["post_layernorm.", "head.", &format!("encoder.layers.{last}.")]
        .map(|part| format!("{tower}.{part}"));
    let mut tensors = inventory(config);
    tensors.retain(|(name, _)| !idle.iter().any(|prefix| name.starts_with(prefix)));
    tensors
}

/// The layer of a stack that a tensor belongs to: `….encoder.layers.3` of `….encoder.layers.3.mlp.fc1.weight`.
pub fn layer_of(name: &str) -> Option<&str> {
    let stacks = [
        format!("{}.img_processor.encoder.layers.", siglip::PREFIX),
        format!("{}.encoder.encoders.", conformer::PREFIX),
    ];
    let stack = stacks.iter().find(|stack| name.starts_with(stack.as_str()))?;
    let number = name[stack.len()..].find('.')?;
    Some(&name[..stack.len() + number])
}

struct List(Vec<(String, Vec<usize>)>);

impl List {
    fn push(&mut self, name: String, shape: &[usize]) {
        self.0.push((name, shape.to_vec()));
    }

    /// `weight` of that shape and a `bias` for each of its outputs.
    fn layer(&mut self, prefix: &str, shape: &[usize]) {
        self.push(format!("{prefix}.weight"), shape);
        self.push(format!("{prefix}.bias"), &shape[..1]);
    }

    fn vision(&mut self, vision: &VisionConfig, hidden: usize) {
        let (width, patch) = (vision.hidden_size, vision.patch_size);
        let root = siglip::PREFIX;
        let tower = format!("{root}.img_processor");
        self.layer(&format!("{tower}.embeddings.patch_embedding"), &[width, 3, patch, patch]);
        self.push(
            format!("{tower}.embeddings.position_embedding.weight"),
            &[vision.grid().pow(2), width],
        );
        for layer in 0..vision.num_hidden_layers {
            let prefix = format!("{tower}.encoder.layers.{layer}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                self.layer(&format!("{prefix}.self_attn.{name}"), &[width, width]);
            }
            self.layer(&format!("{prefix}.layer_norm1"), &[width]);
            self.layer(&format!("{prefix}.layer_norm2"), &[width]);
            self.vision_mlp(&prefix, vision);
        }
        self.layer(&format!("{tower}.post_layernorm"), &[width]);
        let head = format!("{tower}.head");
        self.push(format!("{head}.probe"), &[1, 1, width]);
        self.push(format!("{head}.attention.in_proj_weight"), &[3 * width, width]);
        self.push(format!("{head}.attention.in_proj_bias"), &[3 * width]);
        self.layer(&format!("{head}.attention.out_proj"), &[width, width]);
        self.layer(&format!("{head}.layernorm"), &[width]);
        self.vision_mlp(&head, vision);

        self.push(format!("{root}.glb_GN"), &[1, 1, width]);
        self.push(format!("{root}.sub_GN"), &[1, 1, 1, width]);
        self.projector(&format!("{root}.img_projection"), width, hidden);
    }

    fn vision_mlp(&mut self, prefix: &str, vision: &VisionConfig) {
        let (width, inner) = (vision.hidden_size, vision.intermediate_size);
        self.layer(&format!("{prefix}.mlp.fc1"), &[inner, width]);
        self.layer(&format!("{prefix}.mlp.fc2"), &[width, inner]);
    }

    fn audio(&mut self, audio: &AudioConfig, hidden: usize) {
        let (width, mels, channels) =
            (audio.attention_dim, audio.input_size, audio.nemo_conv_settings.conv_channels);
        let root = conformer::PREFIX;
        let encoder = format!("{root}.encoder");
        for name in ["global_mean", "global_invstd"] {
            self.push(format!("{encoder}.encoder_embedding.{name}"), &[mels]);
        }
        self.layer(&format!("{encoder}.embed.conv.0"), &[channels, 1, 3, 3]);
        for layer in [2, 5] {
            self.layer(&format!("{encoder}.embed.conv.{layer}"), &[channels, 1, 3, 3]);
            self.layer(&format!("{encoder}.embed.conv.{}", layer + 1), &[channels, channels, 1, 1]);
        }
        self.layer(&format!("{encoder}.embed.out"), &[width, channels * mels.div_ceil(8)]);
        let distances = 2 * audio.relative_attention_bias_args.t5_bias_max_distance;
        self.push(
            format!("{encoder}.relative_attention_bias_layer.bias_values.weight"),
            &[distances, audio.attention_heads],
        );
        for block in 0..audio.num_blocks {
            self.audio_block(&format!("{encoder}.encoders.{block}"), audio);
        }
        for which in ["speech", "vision"] {
            self.projector(&format!("{root}.audio_projection.{which}"), width, hidden);
        }
    }

    fn audio_block(&mut self, prefix: &str, audio: &AudioConfig) {
        let (width, inner) = (audio.attention_dim, audio.linear_units);
        for name in ["feed_forward_in", "feed_forward_out"] {
            self.layer(&format!("{prefix}.{name}.layer_norm"), &[width]);
            self.layer(&format!("{prefix}.{name}.net.0.linear"), &[2 * inner, width]);
            self.layer(&format!("{prefix}.{name}.net.2"), &[width, inner]);
        }
        for name in ["linear_q", "linear_k", "linear_v", "linear_out"] {
            self.layer(&format!("{prefix}.self_attn.{name}"), &[width, width]);
        }
        let conv = format!("{prefix}.conv");
        self.layer(&format!("{conv}.layer_norm"), &[width]);
        self.layer(&format!("{conv}.glu.ext_pw_conv_1d"), &[2 * width, width, 1]);
        self.push(format!("{conv}.glu.b1"), &[1, width, 1]);
        self.push(format!("{conv}.glu.b2"), &[1, width, 1]);
        self.layer(&format!("{conv}.dw_sep_conv_1d.dw_conv"), &[width, 1, audio.kernel_size]);
        self.layer(&format!("{conv}.dw_sep_conv_1d.pw_conv"), &[width, width, 1]);
        self.layer(&format!("{conv}.ext_pw_conv_1d"), &[width, width, 1]);
        self.layer(&format!("{prefix}.layer_norm_att"), &[width]);
        self.layer(&format!("{prefix}.layer_norm"), &[width]);
    }

    /// Linear, GELU, linear.
    fn projector(&mut self, prefix: &str, width: usize, hidden: usize) {
        self.layer(&format!("{prefix}.0"), &[hidden, width]);
        self.layer(&format!("{prefix}.2"), &[hidden, hidden]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The released model's sizes (spec 1.1, 3.1, 4.4).
    const RELEASED: &str = r#"{
        "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 24, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072, "partial_rotary_factor": 0.75,
        "embd_layer": {"image_embd_layer": {"crop_size": 448, "img_processor": null}},
        "audio_processor": {"config": {"attention_dim": 1024, "attention_heads": 16, "num_blocks": 24,
            "linear_units": 1536, "kernel_size": 3, "input_size": 80, "time_reduction": 8,
            "nemo_conv_settings": {"conv_channels": 1024}, "relative_attention_bias_args": {"t5_bias_max_distance": 500},
            "ext_pw_out_channel": 1024, "depthwise_seperable_out_channel": 1024}}
    }"#;

    #[test]
    fn the_released_model_has_as_many_numbers_as_its_file() {
        let config: Config = serde_json::from_str(RELEASED).unwrap();
        let count = |prefix: &str| -> (usize, usize) {
            let tensors =
                inventory(&config).into_iter().filter(|(name, _)| name.starts_with(prefix));
            tensors
                .fold((0, 0), |(n, sum), (_, shape)| (n + 1, sum + shape.iter().product::<usize>()))
        };
        // Spec 9.1: tower, separators and projector; conformer and projectors.
        assert_eq!(count(siglip::PREFIX).1, 428_565_440 + 2_304 + 12_982_272);
        assert_eq!(count(conformer::PREFIX), (887, 441_238_304 + 25_178_112));
    }
}
