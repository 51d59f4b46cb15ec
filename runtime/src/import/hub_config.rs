//! `config.json` in the layouts that `transformers` writes → the released one, which [`Config`](crate::config::Config) reads.
//!
//! Its newer versions keep everything about rotary embeddings in `rope_parameters`; its port of Phi-4-multimodal (model type
//! `phi4_multimodal`) names the encoders' sizes otherwise, and has the adapters beside the model.

use serde_json::{Map, Value, json};

use super::{native, neutral};

/// Brings a config into the released layout.
///
/// # Errors
/// What cannot be expressed in it, or is not known to be neutral; keys that are `ignored` are taken for that.
pub(crate) fn released(mut config: Value, ignored: &[String]) -> Result<Value, String> {
    let Some(keys) = config.as_object_mut() else { return Err("is no JSON object".into()) };
    neutral::check(keys, ignored)?;
    lift_rope(keys);
    rope_factors(keys)?;
    if let Some(width) = keys.get("head_dim").and_then(Value::as_u64) {
        let number = |key: &str| keys.get(key).and_then(Value::as_u64).unwrap_or(0);
        if width.checked_mul(number("num_attention_heads")) != Some(number("hidden_size")) {
            return Err(format!("head_dim {width} is not hidden_size / num_attention_heads"));
        }
    }
    if keys.get("model_type").and_then(Value::as_str) == Some(native::MODEL_TYPE) {
        encoders(keys)?;
    }
    Ok(config)
}

/// `rope_parameters` → `rope_theta`, `partial_rotary_factor` and `rope_scaling`.
fn lift_rope(keys: &mut Map<String, Value>) {
    let Some(Value::Object(mut rope)) = keys.remove("rope_parameters") else { return };
    for key in ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"] {
        if let Some(value) = rope.remove(key) {
            keys.insert(key.to_owned(), value.clone());
            rope.insert(key.to_owned(), value);
        }
    }
    keys.insert("rope_scaling".into(), Value::Object(rope));
}

/// Other ways of scaling, as `LongRoPE` factors where that is the same.
fn rope_factors(keys: &mut Map<String, Value>) -> Result<(), String> {
    let Some(Value::Object(rope)) = keys.get("rope_scaling").cloned() else { return Ok(()) };
    let number = |key: &str| rope.get(key).and_then(Value::as_f64);
    let need = |key: &str| number(key).ok_or_else(|| format!("rope_scaling.{key} is missing"));
    let kind = ["rope_type", "type"].iter().find_map(|key| rope.get(*key).and_then(Value::as_str));
    let factors = match kind.unwrap_or("default") {
        "longrope" | "su" => return stretch(keys, number("factor")),
        "default" => {
            keys.remove("rope_scaling");
            return Ok(());
        }
        "linear" => {
            let factor = need("factor")?;
            frequencies(keys).map(|_| factor).collect::<Vec<_>>()
        }
        "llama3" => {
            let (factor, low, high) =
                (need("factor")?, need("low_freq_factor")?, need("high_freq_factor")?);
            let original = need("original_max_position_embeddings")?;
            frequencies(keys).map(|rate| llama_3(rate, factor, (low, high), original)).collect()
        }
        other => return Err(format!("rope_scaling.rope_type `{other}` is not supported")),
    };
    // The factors hold at every length, so that there is no switch and no scaling of attention.
    let longest = keys.get("max_position_embeddings").cloned().unwrap_or_default();
    keys.insert("original_max_position_embeddings".into(), longest);
    let scaling = json!({"type": "longrope", "short_factor": factors, "long_factor": factors});
    keys.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// `LongRoPE` scales attention by how much longer the context is, which some files say once more.
fn stretch(keys: &Map<String, Value>, factor: Option<f64>) -> Result<(), String> {
    let number = |key: &str| keys.get(key).and_then(Value::as_f64);
    let lengths = (number("max_position_embeddings"), number("original_max_position_embeddings"));
    match (factor, lengths) {
        (Some(factor), (Some(longest), Some(original)))
            if (factor * original - longest).abs() > 0.01 * longest =>
        {
            Err(format!(
                "rope_scaling.factor is {factor}, but max_position_embeddings / original_max_position_embeddings is {}",
                longest / original
            ))
        }
        _ => Ok(()),
    }
}

/// Radians a position of every rotated pair.
fn frequencies(keys: &Map<String, Value>) -> impl Iterator<Item = f64> + use<> {
    let number = |key: &str, default| keys.get(key).and_then(Value::as_f64).unwrap_or(default);
    let head = number("hidden_size", 0.0) / number("num_attention_heads", 1.0).max(1.0);
    let rotary = (head * number("partial_rotary_factor", 1.0)).clamp(0.0, 65_536.0);
    let theta = number("rope_theta", 10_000.0);
    (0..(rotary / 2.0) as u32).map(move |pair| theta.powf(-2.0 * f64::from(pair) / rotary))
}

/// Llama 3.1: fast pairs stay, slow ones are slowed by `factor`, those between in part.
fn llama_3(rate: f64, factor: f64, (low, high): (f64, f64), original: f64) -> f64 {
    let turns = original * rate / std::f64::consts::TAU;
    if turns > high {
        1.0
    } else if turns < low {
        factor
    } else {
        let share = (turns - low) / (high - low);
        ((1.0 - share) / factor + share).recip()
    }
}

/// The port's sections about vision and sound.
fn encoders(keys: &mut Map<String, Value>) -> Result<(), String> {
    let take = |keys: &mut Map<String, Value>, key: &str| match keys.remove(key) {
        Some(Value::Object(section)) => Ok(section),
        _ => Err(format!("`{key}` is missing")),
    };
    keys.insert("model_type".into(), native::RELEASED_TYPE.into());
    let (vision, audio) = (take(keys, "vision_config")?, take(keys, "audio_config")?);
    let tower: Map<String, Value> = [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
        "layer_norm_eps",
    ]
    .iter()
    .filter_map(|key| Some(((*key).to_owned(), vision.get(*key)?.clone())))
    .collect();
    let crop = vision.get("crop_size").cloned().unwrap_or_else(|| 448.into());
    keys.insert(
        "embd_layer".into(),
        json!({"image_embd_layer": {"crop_size": crop, "img_processor": tower}}),
    );
    let of = |key: &str| audio.get(key).cloned().unwrap_or_default();
    keys.insert(
        "audio_processor".into(),
        json!({"config": {
            "attention_dim": of("hidden_size"),
            "attention_heads": of("num_attention_heads"),
            "num_blocks": of("num_blocks"),
            "linear_units": of("intermediate_size"),
            "kernel_size": of("kernel_size"),
            "input_size": of("input_size"),
            "time_reduction": of("time_reduction"),
            "nemo_conv_settings": {"conv_channels": of("nemo_conv_channels")},
            "relative_attention_bias_args": {"t5_bias_max_distance": of("bias_max_distance")},
            "ext_pw_out_channel": of("ext_pw_out_channel"),
            "depthwise_seperable_out_channel": of("depthwise_separable_out_channel"),
        }}),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_parameters_are_lifted() {
        let config = json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}});
        let lifted = released(config, &[]).unwrap();
        assert_eq!(lifted, json!({"rope_theta": 5e5}));
    }

    #[test]
    fn llama_3_slows_the_slow_pairs_only() {
        let rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192});
        let config = json!({"hidden_size": 4096, "num_attention_heads": 32, "rope_theta": 5e5,
                            "max_position_embeddings": 131_072, "rope_scaling": rope});
        let config = released(config, &[]).unwrap();
        let factors: Vec<f64> =
            serde_json::from_value(config["rope_scaling"]["long_factor"].clone()).unwrap();
        assert_eq!(factors.len(), 64);
        assert_eq!((factors[0], factors[63]), (1.0, 8.0));
        assert!(factors.is_sorted() && factors.iter().any(|factor| (2.0..7.0).contains(factor)));
        assert_eq!(config["original_max_position_embeddings"], 131_072);
    }

    #[test]
    fn what_cannot_be_expressed_is_named() {
        let fault = |config| released(config, &[]).unwrap_err();
        assert!(fault(json!({"rope_scaling": {"type": "yarn"}})).contains("yarn"));
        assert!(fault(json!({"rope_scaling": {"type": "linear"}})).contains("factor is missing"));
        let heads = json!({"head_dim": 256, "num_attention_heads": 8, "hidden_size": 1024});
        assert!(fault(heads).contains("head_dim 256"));
    }
}
