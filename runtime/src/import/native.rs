//! Phi-4-multimodal as `transformers` ports it: the same tensors under other names, and each adapter in a PEFT folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{peft, text};
use crate::error::{Error, Result};

/// How the port's `config.json` calls itself.
pub(crate) const MODEL_TYPE: &str = "phi4_multimodal";
/// How the released one does (spec 1.1).
pub(crate) const RELEASED_TYPE: &str = "phi4mm";

/// The adapters, by the name that the released checkpoint gives them.
const ADAPTERS: [&str; 2] = ["vision", "speech"];

/// Parts of names: the port's, and the released checkpoint's (spec 3.1, 4.5).
const NAMES: [(&str, &str); 8] = [
    ("image_embed.img_projection_up.", "image_embed.img_projection.0."),
    ("image_embed.img_projection_down.", "image_embed.img_projection.2."),
    ("image_embed.global_img_feature_extensor", "image_embed.glb_GN"),
    ("image_embed.sub_img_feature_extensor", "image_embed.sub_GN"),
    ("audio_embed.up_proj_for_speech.", "audio_embed.audio_projection.speech.0."),
    ("audio_embed.down_proj_for_speech.", "audio_embed.audio_projection.speech.2."),
    ("audio_embed.up_proj_for_vision_speech.", "audio_embed.audio_projection.vision.0."),
    ("audio_embed.down_proj_for_vision_speech.", "audio_embed.audio_projection.vision.2."),
];
/// The same within the conformer's blocks, where the decoder's names mean something else.
const BLOCK_NAMES: [(&str, &str); 6] = [
    (".gate_up_proj.", ".net.0.linear."),
    (".down_proj.", ".net.2."),
    (".self_attn.q_proj.", ".self_attn.linear_q."),
    (".self_attn.k_proj.", ".self_attn.linear_k."),
    (".self_attn.v_proj.", ".self_attn.linear_v."),
    (".self_attn.o_proj.", ".self_attn.linear_out."),
];

/// A tensor's name in the released checkpoint.
pub(crate) fn released_name(name: &str) -> String {
    let is_block = name.contains(".audio_embed.encoder.encoders.");
    let names = if is_block { &BLOCK_NAMES[..] } else { &NAMES };
    names.iter().fold(name.to_owned(), |name, (port, released)| name.replace(port, released))
}

/// The file of an adapter.
pub(crate) fn adapter_files(dir: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    ADAPTERS.map(|name| (name, folder(dir, name).join(peft::WEIGHTS))).into_iter()
}

fn folder(dir: &Path, adapter: &str) -> PathBuf {
    dir.join(format!("{adapter}-lora"))
}

/// Adds what the port keeps in files of their own: the adapters' sizes and the limit of crops.
///
/// # Errors
/// When an adapter's configuration is not there or damaged.
pub(crate) fn complete(config: &mut Value, dir: &Path, ignored: &[String]) -> Result<()> {
    for name in ADAPTERS {
        let scaling = peft::Scaling::read(&folder(dir, name), ignored)?;
        config[format!("{name}_lora")] = scaling.uniform(&folder(dir, name))?;
    }
    let processor = dir.join("preprocessor_config.json");
    if processor.exists() {
        let text = text::read(&processor)?;
        let processor: Value = serde_json::from_str(&text)
            .map_err(|fault| Error::config(&processor, fault.to_string()))?;
        if let Some(crops) = processor.get("dynamic_hd") {
            config["embd_layer"]["image_embd_layer"]["dynamic_hd"] = crops.clone();
        }
    }
    Ok(())
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
