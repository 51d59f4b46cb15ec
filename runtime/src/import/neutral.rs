//! Which keys of a published config may be there: those that are read, and those that are known to change nothing.
//!
//! A key that nobody here knows may change what a model computes, and a model that computes something else gives no error: so it
//! is refused by its name, unless it says nothing (`null`, `false` or empty) or the user says that it does not matter.

use serde_json::{Map, Value};

use self::Rule::{Any, Each, Is, OneOf};

/// What may stand under a key.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Anything: it is read, or changes nothing.
    Any,
    /// This number only.
    Is(f64),
    /// One of these texts only.
    OneOf(&'static [&'static str]),
    /// A section with keys of its own.
    Each(Table),
}

type Table = &'static [(&'static [&'static str], Rule)];

/// Architectures that are the same decoder, given the keys below.
const MODEL_TYPES: &[&str] = &["phi4mm", "phi4_multimodal", "phi3", "llama", "mistral"];

const ROOT: Table = &[
    (&["model_type"], OneOf(MODEL_TYPES)),
    // Sizes.
    (
        &[
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        ],
        Any,
    ),
    (&["num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"], Any),
    (&["max_position_embeddings", "original_max_position_embeddings"], Any),
    (&["partial_rotary_factor", "rope_theta"], Any),
    (&["rope_scaling", "rope_parameters"], Each(ROPE)),
    (&["vision_lora", "speech_lora"], Each(&[(&["r", "lora_alpha", "dp", "layer"], Any)])),
    (&["adapters"], Any),
    (&["embd_layer"], Each(EMBED)),
    (&["img_processor"], Each(TOWER)),
    (
        &["audio_processor"],
        Each(&[(&["name"], OneOf(&["cascades"])), (&["config"], Each(CONFORMER))]),
    ),
    (&["vision_config"], Each(TOWER)),
    (&["audio_config"], Each(CONFORMER)),
    // What is computed in one way only.
    (&["hidden_act"], OneOf(&["silu", "swish"])),
    (&["full_attn_mod", "interpolate_factor"], Is(1.0)),
    // Of training, of other programs, and of the tokenizer.
    (
        &[
            "architectures",
            "auto_map",
            "_name_or_path",
            "name_or_path",
            "_commit_hash",
            "transformers_version",
        ],
        Any,
    ),
    (
        &[
            "torch_dtype",
            "dtype",
            "use_cache",
            "pretraining_tp",
            "initializer_range",
            "gradient_checkpointing",
        ],
        Any,
    ),
    (&["attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop", "attn_pdrop"], Any),
    (
        &[
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "unk_token_id",
            "sep_token_id",
            "image_token_id",
        ],
        Any,
    ),
    (
        &[
            "audio_token_id",
            "tokenizer_class",
            "max_length",
            "do_sample",
            "temperature",
            "top_p",
            "top_k",
        ],
        Any,
    ),
    (
        &[
            "return_dict",
            "output_attentions",
            "output_hidden_states",
            "torchscript",
            "id2label",
            "label2id",
        ],
        Any,
    ),
    (
        &[
            "_attn_implementation",
            "attn_implementation",
            "_attn_implementation_autoset",
            "chunk_size_feed_forward",
        ],
        Any,
    ),
    (
        &[
            "is_llama_config",
            "transformers.js_config",
            "unsloth_version",
            "unsloth_fixed",
            "task_specific_params",
        ],
        Any,
    ),
    (&["max_window_layers", "sliding_window"], Any),
];

const ROPE: Table = &[
    (
        &[
            "type",
            "rope_type",
            "rope_theta",
            "partial_rotary_factor",
            "original_max_position_embeddings",
        ],
        Any,
    ),
    (&["factor", "low_freq_factor", "high_freq_factor", "short_factor", "long_factor"], Any),
];

const EMBED: Table = &[
    (&["embedding_cls"], OneOf(&["image_audio", "image", "audio"])),
    (
        &["image_embd_layer"],
        Each(&[
            (
                &[
                    "crop_size",
                    "dynamic_hd",
                    "enable_gradient_checkpointing",
                    "use_hd_transform",
                    "n_embd",
                    "name",
                ],
                Any,
            ),
            (&["with_learnable_separator"], Any),
            (&["img_processor"], Each(TOWER)),
            (&["embedding_cls"], OneOf(&["tune_image", "image"])),
            (&["hd_transform_order"], OneOf(&["sub_glb"])),
            (&["image_token_compression_cls"], OneOf(&["avg_pool_2d"])),
            (&["projection_cls"], OneOf(&["mlp"])),
        ]),
    ),
    (
        &["audio_embd_layer"],
        Each(&[
            (&["enable_gradient_checkpointing", "n_embd", "name"], Any),
            (&["embedding_cls"], OneOf(&["audio"])),
            (&["projection_cls"], OneOf(&["mlp"])),
            (&["compression_rate"], Is(8.0)),
            (&["downsample_rate"], Is(1.0)),
        ]),
    ),
];

/// SigLIP, as released and as ported.
const TOWER: Table = &[
    (
        &[
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "image_size",
            "patch_size",
        ],
        Any,
    ),
    (
        &[
            "layer_norm_eps",
            "crop_size",
            "model_type",
            "dtype",
            "torch_dtype",
            "image_token_id",
            "name",
        ],
        Any,
    ),
    (&["attention_dropout", "initializer_range"], Any),
    (&["hidden_act"], OneOf(&["gelu_pytorch_tanh"])),
    (&["feature_layer"], Is(-2.0)),
    (&["num_channels"], Is(3.0)),
];

/// The conformer, as released and as ported.
const CONFORMER: Table = &[
    (
        &[
            "attention_dim",
            "attention_heads",
            "num_blocks",
            "linear_units",
            "kernel_size",
            "input_size",
        ],
        Any,
    ),
    (
        &[
            "time_reduction",
            "nemo_conv_settings",
            "relative_attention_bias_args",
            "ext_pw_out_channel",
        ],
        Any,
    ),
    (
        &[
            "depthwise_seperable_out_channel",
            "depthwise_separable_out_channel",
            "encoder_embedding_config",
        ],
        Any,
    ),
    (
        &[
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "nemo_conv_channels",
            "nemo_final_size",
        ],
        Any,
    ),
    (
        &[
            "bias_max_distance",
            "audio_token_id",
            "model_type",
            "dtype",
            "torch_dtype",
            "initializer_range",
        ],
        Any,
    ),
    (
        &[
            "dropout_rate",
            "activation_checkpointing",
            "left_chunk",
            "causal",
            "cnn_layer_norm",
            "bias_in_glu",
        ],
        Any,
    ),
    (&["activation", "conv_activation", "conv_glu_type"], OneOf(&["swish", "silu"])),
    (&["nemo_activation"], OneOf(&["relu"])),
    (&["input_layer"], OneOf(&["nemo_conv"])),
    (&["chunk_size"], Is(-1.0)),
    (&["depthwise_multiplier", "ext_pw_kernel_size", "downsample_rate"], Is(1.0)),
    (&["feature_layer"], Is(-2.0)),
];

/// Of `adapter_config.json`.
const ADAPTER: Table = &[
    (&["peft_type"], OneOf(&["LORA"])),
    (&["task_type"], OneOf(&["CAUSAL_LM"])),
    (&["bias"], OneOf(&["none"])),
    (&["r", "lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern"], Any),
    (
        &[
            "target_modules",
            "exclude_modules",
            "lora_dropout",
            "inference_mode",
            "base_model_name_or_path",
        ],
        Any,
    ),
    (
        &[
            "revision",
            "auto_mapping",
            "peft_version",
            "megatron_core",
            "qalora_group_size",
            "runtime_config",
        ],
        Any,
    ),
    // Other ways to begin change the base model too.
    (&["init_lora_weights"], OneOf(&["gaussian", "eva", "orthogonal"])),
];

/// Refuses a config with a key that may change the arithmetic and is not computed.
///
/// # Errors
/// Every such key, and what to do.
pub(super) fn check(config: &Map<String, Value>, ignored: &[String]) -> Result<(), String> {
    let mut faults = Vec::new();
    section(config, ROOT, "", ignored, &mut faults);
    window(config, ignored, &mut faults);
    told(&faults)
}

/// As [`check`], of an adapter's configuration.
///
/// # Errors
/// As [`check`].
pub(super) fn check_adapter(config: &Map<String, Value>, ignored: &[String]) -> Result<(), String> {
    let mut faults = Vec::new();
    section(config, ADAPTER, "", ignored, &mut faults);
    told(&faults)
}

fn told(faults: &[String]) -> Result<(), String> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}: this changes what is computed, or may. If it does not, pass `--ignore-key NAME`",
        faults.join("; ")
    ))
}

fn section(
    keys: &Map<String, Value>,
    table: Table,
    place: &str,
    ignored: &[String],
    faults: &mut Vec<String>,
) {
    for (key, value) in keys {
        let path = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        if ignored.iter().any(|name| name == key || *name == path) {
            continue;
        }
        let rule =
            table.iter().find(|(names, _)| names.contains(&key.as_str())).map(|(_, rule)| *rule);
        match (rule, value) {
            (Some(Each(table)), Value::Object(keys)) => {
                section(keys, table, &path, ignored, faults);
            }
            (Some(Any | Each(_)), _) | (_, Value::Null | Value::Bool(false)) => {}
            (None, value) if is_empty(value) => {}
            (Some(OneOf(known)), Value::String(text)) if known.contains(&text.as_str()) => {}
            // PEFT writes `true` for the usual way to begin.
            (Some(OneOf(_)), Value::Bool(true)) if key == "init_lora_weights" => {}
            (Some(Is(wanted)), value) if value.as_f64() == Some(wanted) => {}
            (Some(OneOf(known)), value) => {
                faults.push(format!(
                    "`{path}` is {}, but only {} can be imported",
                    shown(value),
                    known.join(", ")
                ));
            }
            (Some(Is(wanted)), value) => {
                faults.push(format!(
                    "`{path}` is {}, but only {wanted} can be imported",
                    shown(value)
                ));
            }
            (None, value) => faults.push(format!("`{path}` is {} and not known", shown(value))),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

/// A value, shortened.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 40 {
        text
    } else {
        text.chars().take(40).chain("…".chars()).collect()
    }
}

/// A window as long as the context, or one that is switched off, hides nothing.
fn window(config: &Map<String, Value>, ignored: &[String], faults: &mut Vec<String>) {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let Some(window) = number("sliding_window") else { return };
    let is_off = config.get("use_sliding_window") == Some(&Value::Bool(false));
    let is_ignored = ignored.iter().any(|name| name == "sliding_window");
    if !is_off
        && !is_ignored
        && number("max_position_embeddings").is_none_or(|context| window < context)
    {
        faults.push(format!(
            "`sliding_window` is {window}, shorter than the context, and not computed"
        ));
    }
}

#[cfg(test)]
mod tests;
