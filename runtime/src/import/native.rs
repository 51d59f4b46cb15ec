//! Phi-4-multimodal as `transformers` ports it: the same tensors under other names, and each adapter in a PEFT folder.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How the port's `config.json` calls itself.
pub(crate) const MODEL_TYPE: &str = "phi4_multimodal";

/// The adapters, by the name that the released checkpoint gives them.
const ADAPTERS: [&str; 2] = ["vision", "speech"];

/// Parts of names: the port's, and the released checkpoint's (spec 3.1, 4.5).
const NAMES: [(&str, &str); 10] = [
    ("image_embed.img_projection_up.", "image_embed.img_projection.0."),
    ("image_embed.img_projection_down.", "image_embed.img_projection.2."),
    ("image_embed.global_img_feature_extensor", "image_embed.glb_GN"),
    ("image_embed.sub_img_feature_extensor", "image_embed.sub_GN"),
    ("audio_embed.up_proj_for_speech.", "audio_embed.audio_projection.speech.0."),
    ("audio_embed.down_proj_for_speech.", "audio_embed.audio_projection.speech.2."),
    ("audio_embed.up_proj_for_vision_speech.", "audio_embed.audio_projection.vision.0."),
    ("audio_embed.down_proj_for_vision_speech.", "audio_embed.audio_projection.vision.2."),
    (".gate_up_proj.", ".net.0.linear."),
    (".down_proj.", ".net.2."),
];
/// The last so many of them hold in the conformer's blocks only.
const IN_BLOCKS: usize = 2;

/// What this runtime reads of `adapter_config.json`.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
}

/// A tensor's name in the released checkpoint.
pub(crate) fn released_name(name: &str) -> String {
    let mut name = name.to_owned();
    let is_block = name.contains(".audio_embed.encoder.encoders.");
    let known = if is_block { NAMES.len() } else { NAMES.len() - IN_BLOCKS };
    for (port, released) in &NAMES[..known] {
        name = name.replace(port, released);
    }
    if is_block {
        for (port, released) in [("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")] {
            name = name.replace(
                &format!(".self_attn.{port}_proj."),
                &format!(".self_attn.linear_{released}."),
            );
        }
    }
    name
}

/// A tensor of an adapter's folder under its name in the released checkpoint: `X.lora_A.weight` of PEFT is
/// `X.lora_A.vision.weight` there.
pub(crate) fn adapter_name(name: &str, adapter: &str) -> String {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.{adapter}.weight"),
        None => name.to_owned(),
    }
}

/// The file of an adapter.
pub(crate) fn adapter_files(dir: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    ADAPTERS
        .map(|name| (name, dir.join(format!("{name}-lora/adapter_model.safetensors"))))
        .into_iter()
}

/// Adds what the port keeps in files of their own: the adapters' sizes and the limit of crops.
///
/// # Errors
/// When an adapter's configuration is not there or damaged.
pub(crate) fn complete(config: &mut Value, dir: &Path) -> Result<()> {
    for name in ADAPTERS {
        let AdapterConfig { r, lora_alpha } =
            read(&dir.join(format!("{name}-lora/adapter_config.json")))?;
        config[format!("{name}_lora")] = json!({"r": r, "lora_alpha": lora_alpha});
    }
    let processor = dir.join("preprocessor_config.json");
    if processor.exists() {
        let processor: Value = read(&processor)?;
        if let Some(crops) = processor.get("dynamic_hd") {
            config["embd_layer"]["image_embd_layer"]["dynamic_hd"] = crops.clone();
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|fault| Error::config(path, fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_decoder_stay() {
        for name in
            ["model.layers.0.mlp.down_proj.weight", "model.layers.3.mlp.gate_up_proj.weight"]
        {
            assert_eq!(released_name(name), name);
        }
    }

    #[test]
    fn names_of_the_conformer_change() {
        let block = "model.embed_tokens_extend.audio_embed.encoder.encoders.0";
        for (port, released) in [
            ("self_attn.o_proj.bias", "self_attn.linear_out.bias"),
            ("feed_forward_in.gate_up_proj.weight", "feed_forward_in.net.0.linear.weight"),
            ("feed_forward_out.down_proj.weight", "feed_forward_out.net.2.weight"),
        ] {
            assert_eq!(released_name(&format!("{block}.{port}")), format!("{block}.{released}"));
        }
    }
}
