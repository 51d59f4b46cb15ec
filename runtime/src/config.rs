//! `config.json` in the layout of Phi-4-multimodal-instruct and of its text-only siblings (spec 1.1, 2, 3.1, 4.4, 7).
//!
//! One struct per tower, fields named as in the file; derived sizes are methods. Every size in the runtime comes from here.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The whole of `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// The decoder's sizes.
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    /// Encoders; absent in text-only models.
    #[serde(default)]
    pub embd_layer: Option<EmbedLayer>,
    /// The conformer; absent in text-only models.
    #[serde(default)]
    pub audio_processor: Option<AudioProcessor>,
    /// Adapter for requests with an image.
    #[serde(default)]
    pub vision_lora: Option<LoraConfig>,
    /// Adapter for requests with sound and no image.
    #[serde(default)]
    pub speech_lora: Option<LoraConfig>,
    /// The user's own adapters for text, by the name under which a request asks for them.
    #[serde(default)]
    pub adapters: BTreeMap<String, LoraConfig>,
}

/// The decoder (spec 1.1).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DecoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Longest context.
    pub max_position_embeddings: usize,
    /// Context up to which the short factors hold.
    #[serde(default)]
    pub original_max_position_embeddings: Option<usize>,
    /// Share of each head that is rotated.
    #[serde(default = "one")]
    pub partial_rotary_factor: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "ten_thousand")]
    pub rope_theta: f64,
    /// LongRoPE factors.
    #[serde(default)]
    pub rope_scaling: Option<RopeScaling>,
}

/// LongRoPE (spec 1.4).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RopeScaling {
    /// `longrope` (older files say `su`).
    #[serde(alias = "rope_type")]
    pub r#type: String,
    /// One factor per frequency pair, up to the original context.
    pub short_factor: Vec<f32>,
    /// The same beyond it.
    pub long_factor: Vec<f32>,
}

/// A LoRA adapter (spec 2).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Scaling is `lora_alpha / r`.
    pub lora_alpha: f64,
}

/// `embd_layer`: what feeds the decoder beside tokens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EmbedLayer {
    /// The vision side.
    #[serde(default)]
    pub image_embd_layer: Option<ImageEmbed>,
}

/// `embd_layer.image_embd_layer` (spec 3.1).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ImageEmbed {
    /// Side of a crop in pixels.
    pub crop_size: usize,
    /// The tower; `null` in the released checkpoint, whose tower is SigLIP-so400m/14 at 448 px.
    #[serde(default)]
    pub img_processor: Option<VisionConfig>,
    /// Most sub-crops of one image.
    #[serde(default = "thirty_six")]
    pub dynamic_hd: usize,
}

/// The vision tower, SigLIP-shaped.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Layers in the file; the last one never runs, since the feature is `hidden_states[-2]`.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Side of the input in pixels, equal to `crop_size`.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Epsilon of `LayerNorm`.
    #[serde(default = "siglip_eps")]
    pub layer_norm_eps: f32,
}

/// `audio_processor`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AudioProcessor {
    /// The conformer.
    pub config: AudioConfig,
}

/// The conformer (spec 4.4).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AudioConfig {
    /// Width.
    pub attention_dim: usize,
    /// Heads.
    pub attention_heads: usize,
    /// Blocks.
    pub num_blocks: usize,
    /// Width of the feed-forward modules.
    pub linear_units: usize,
    /// Kernel of the depthwise convolution.
    pub kernel_size: usize,
    /// Mel bins.
    pub input_size: usize,
    /// Frames per token.
    pub time_reduction: usize,
    /// Subsampling.
    pub nemo_conv_settings: NemoConv,
    /// Relative attention bias.
    pub relative_attention_bias_args: RelativeBias,
    /// Out channels of the pointwise convolutions around the depthwise one.
    pub ext_pw_out_channel: usize,
    /// Out channels of the depthwise-separable convolution (spelt as in the file).
    #[serde(alias = "depthwise_separable_out_channel")]
    pub depthwise_seperable_out_channel: usize,
}

/// `nemo_conv_settings`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NemoConv {
    /// Channels of the subsampling convolutions.
    pub conv_channels: usize,
}

/// `relative_attention_bias_args`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RelativeBias {
    /// Distances are clamped to `[-t5_bias_max_distance, t5_bias_max_distance - 1]`.
    pub t5_bias_max_distance: usize,
}

/// No size of a model comes near this one; no product of sizes below it is too large to be counted.
const LARGEST: usize = 1 << 24;
/// Most layers, crops of a picture or taps of a convolution.
const MANY: usize = 1 << 10;
/// Most pixels along a side of a crop.
const PIXELS: usize = 1 << 13;

fn one() -> f64 {
    1.0
}
fn ten_thousand() -> f64 {
    10_000.0
}
fn thirty_six() -> usize {
    36
}
fn siglip_eps() -> f32 {
    1e-6
}

impl VisionConfig {
    /// SigLIP-so400m/14 at 448 px, the tower of the released checkpoint (spec 3.1).
    pub const SO400M: Self = Self {
        hidden_size: 1152,
        intermediate_size: 4304,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        image_size: 448,
        patch_size: 14,
        layer_norm_eps: 1e-6,
    };

    /// Layers that are computed: the tower gives the output of the last but one.
    pub fn running_layers(&self) -> usize {
        self.num_hidden_layers.saturating_sub(1)
    }

    /// Patches along a side of a crop.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

impl ImageEmbed {
    /// The tower's sizes.
    pub fn tower(&self) -> VisionConfig {
        self.img_processor.clone().unwrap_or(VisionConfig::SO400M)
    }
}

impl LoraConfig {
    /// `lora_alpha / r`.
    pub fn scaling(&self) -> f64 {
        self.lora_alpha / self.r as f64
    }
}

impl DecoderConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Rotated dimensions of a head.
    pub fn rotary_dim(&self) -> usize {
        (self.head_dim() as f64 * self.partial_rotary_factor) as usize
    }

    /// Rows of the fused query, key and value projection.
    pub fn qkv_rows(&self) -> usize {
        (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim()
    }
}

impl Config {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Config`] with the key when it does not fit.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, path)
    }

    /// Checks the text of a `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that does not fit.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let json = &mut serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(json)
            .map_err(|fault| Error::config(path, format!("{}: {}", fault.path(), fault.inner())))?;
        config.check().map_err(|reason| Error::config(path, reason))?;
        Ok(config)
    }

    /// The vision side, where the model has one.
    pub fn image(&self) -> Option<&ImageEmbed> {
        self.embd_layer.as_ref()?.image_embd_layer.as_ref()
    }

    /// The conformer, where the model has one.
    pub fn audio(&self) -> Option<&AudioConfig> {
        self.audio_processor.as_ref().map(|processor| &processor.config)
    }

    fn check(&self) -> Result<(), String> {
        self.decoder.check()?;
        if let Some(image) = self.image() {
            image.check()?;
        }
        if let Some(audio) = self.audio() {
            audio.check()?;
        }
        let of_media = [("vision_lora", &self.vision_lora), ("speech_lora", &self.speech_lora)];
        let of_media = of_media.iter().filter_map(|(name, lora)| Some((*name, lora.as_ref()?)));
        let of_user = self.adapters.iter().map(|(name, lora)| (name.as_str(), lora));
        for (name, lora) in of_media.chain(of_user) {
            within(&format!("{name}: the rank r"), lora.r, LARGEST)?;
            if !lora.lora_alpha.is_finite() {
                return Err(format!("{name}: lora_alpha is not finite"));
            }
        }
        Ok(())
    }
}

impl DecoderConfig {
    fn check(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("vocab_size", self.vocab_size, LARGEST),
            ("hidden_size", self.hidden_size, LARGEST),
            ("intermediate_size", self.intermediate_size, LARGEST),
            ("num_hidden_layers", self.num_hidden_layers, MANY),
            ("num_attention_heads", self.num_attention_heads, LARGEST),
            ("num_key_value_heads", self.num_key_value_heads, LARGEST),
            ("max_position_embeddings", self.max_position_embeddings, LARGEST),
        ] {
            within(key, value, most)?;
        }
        for (key, value) in [("rope_theta", self.rope_theta), ("rms_norm_eps", self.rms_norm_eps)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{key} is {value}, but must be a positive number"));
            }
        }
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        divides(
            "num_key_value_heads",
            self.num_key_value_heads,
            "num_attention_heads",
            self.num_attention_heads,
        )?;
        let rotary = self.rotary_dim();
        if rotary == 0 || rotary > self.head_dim() || !rotary.is_multiple_of(2) {
            return Err(format!(
                "partial_rotary_factor {} gives {rotary} rotated dimensions of {}: must be even and within the head",
                self.partial_rotary_factor,
                self.head_dim()
            ));
        }
        let Some(scaling) = &self.rope_scaling else { return Ok(()) };
        // The scaling of attention is a quotient of logarithms.
        if self.original_max_position_embeddings.is_some_and(|original| original < 2) {
            return Err("original_max_position_embeddings is less than 2".into());
        }
        if !matches!(scaling.r#type.as_str(), "longrope" | "su") {
            return Err(format!(
                "rope_scaling.type `{}` is not supported: only longrope",
                scaling.r#type
            ));
        }
        for (key, factors) in
            [("short_factor", &scaling.short_factor), ("long_factor", &scaling.long_factor)]
        {
            if factors.len() != rotary / 2
                || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0))
            {
                return Err(format!(
                    "rope_scaling.{key} must hold {} positive numbers, one per rotated pair",
                    rotary / 2
                ));
            }
        }
        Ok(())
    }
}

impl ImageEmbed {
    fn check(&self) -> Result<(), String> {
        let tower = self.tower();
        if tower.image_size != self.crop_size {
            return Err(format!(
                "embd_layer.image_embd_layer: crop_size {} differs from img_processor.image_size {}",
                self.crop_size, tower.image_size
            ));
        }
        for (key, value, most) in [
            ("image_size", tower.image_size, PIXELS),
            ("patch_size", tower.patch_size, PIXELS),
            ("hidden_size", tower.hidden_size, LARGEST),
            ("intermediate_size", tower.intermediate_size, LARGEST),
            ("num_hidden_layers", tower.num_hidden_layers, MANY),
            ("dynamic_hd", self.dynamic_hd, MANY),
        ] {
            within(&format!("img_processor: {key}"), value, most)?;
        }
        if tower.num_hidden_layers < 2 {
            return Err("img_processor: at least 2 layers are needed".into());
        }
        divides("patch_size", tower.patch_size, "image_size", tower.image_size)?;
        divides(
            "num_attention_heads",
            tower.num_attention_heads,
            "hidden_size",
            tower.hidden_size,
        )?;
        divides("2", 2, "the number of patches along a side", tower.grid())
    }
}

impl AudioConfig {
    fn check(&self) -> Result<(), String> {
        for (key, value, most) in [
            ("attention_dim", self.attention_dim, LARGEST),
            ("linear_units", self.linear_units, LARGEST),
            ("kernel_size", self.kernel_size, MANY),
            ("num_blocks", self.num_blocks, MANY),
            ("conv_channels", self.nemo_conv_settings.conv_channels, LARGEST),
            (
                "t5_bias_max_distance",
                self.relative_attention_bias_args.t5_bias_max_distance,
                LARGEST,
            ),
        ] {
            within(&format!("audio_processor.config: {key}"), value, most)?;
        }
        divides("attention_heads", self.attention_heads, "attention_dim", self.attention_dim)?;
        if self.time_reduction != 8 || self.input_size != 80 {
            return Err("audio_processor.config: time_reduction must be 8 and input_size 80".into());
        }
        for (key, value) in [
            ("ext_pw_out_channel", self.ext_pw_out_channel),
            ("depthwise_seperable_out_channel", self.depthwise_seperable_out_channel),
        ] {
            if value != self.attention_dim {
                return Err(format!(
                    "audio_processor.config.{key} must equal attention_dim {}",
                    self.attention_dim
                ));
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: usize, most: usize) -> Result<(), String> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{key} is {value}, but must be from 1 to {most}"))
}

fn divides(name: &str, divisor: usize, of: &str, value: usize) -> Result<(), String> {
    if divisor == 0 || !value.is_multiple_of(divisor) {
        return Err(format!("{of} {value} is not a multiple of {name} {divisor}"));
    }
    Ok(())
}
