//! Metadata → `config.json`.

use serde_json::{Value as Json, json};

use super::Gguf;
use super::reader::Value;
use crate::error::Result;
use crate::import::source::TensorSource as _;

/// Factors of the rotary frequencies: LongRoPE's, and those of Llama 3.1 and later.
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";
const BOTH: &str = "rope_freqs.weight";

/// Metadata of an architecture that are read, or change nothing.
const KNOWN: [&str; 24] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.causal",
    "expert_count",
    "expert_used_count",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "use_parallel_residual",
];

impl Gguf {
    /// The sizes, in the layout of a text-only sibling of the model (spec 1.1).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the architecture is another or a size is missing.
    pub(crate) fn config(&self) -> Result<String> {
        let architecture = self.text("general.architecture").unwrap_or("(none)");
        if !matches!(architecture, "llama" | "phi3") {
            return Err(self.fault(format!(
                "general.architecture is `{architecture}`: only `llama` and `phi3` can be imported"
            )));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        let need = |name: &str| {
            self.number(&key(name)).ok_or_else(|| self.fault(format!("`{}` is missing", key(name))))
        };
        let float = |name: &str| match self.value(&key(name)) {
            Some(Value::Float(number)) => Some(*number),
            _ => None,
        };
        if self.number(&key("expert_count")).is_some_and(|count| count > 0) {
            return Err(self.fault("mixtures of experts cannot be imported"));
        }
        let (hidden, heads) = (need("embedding_length")?, need("attention.head_count")?);
        let head = hidden.checked_div(heads).unwrap_or(0);
        let rotary = self.number(&key("rope.dimension_count")).unwrap_or(head);
        if head == 0
            || ["attention.key_length", "attention.value_length"]
                .iter()
                .any(|name| self.number(&key(name)).is_some_and(|length| length != head))
        {
            return Err(self.fault("the width of a head is not embedding_length / head_count"));
        }
        let context = need("context_length")?;
        let vocab = self.shape("token_embd.weight").and_then(|shape| shape.first().copied());
        let mut config = json!({
            "model_type": architecture,
            "vocab_size": vocab.ok_or_else(|| self.fault("`token_embd.weight` is missing"))?,
            "hidden_size": hidden,
            "intermediate_size": need("feed_forward_length")?,
            "num_hidden_layers": need("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.number(&key("attention.head_count_kv")).unwrap_or(heads),
            "rms_norm_eps": float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            "tie_word_embeddings": !self.contains("output.weight"),
            "max_position_embeddings": context,
            "partial_rotary_factor": rotary as f64 / head as f64,
            "rope_theta": float("rope.freq_base").unwrap_or(10_000.0),
        });
        let original = self.number(&key("rope.scaling.original_context_length"));
        if let Some((short, long)) = self.rope_factors(rotary)? {
            let original = if self.contains(LONG) { original } else { None };
            config["original_max_position_embeddings"] = original.unwrap_or(context).into();
            config["rope_scaling"] =
                json!({"type": "longrope", "short_factor": short, "long_factor": long});
        } else if let Some(kind) = self.text(&key("rope.scaling.type"))
            && kind != "none"
        {
            return Err(
                self.fault(format!("`{}` is `{kind}`, without factors", key("rope.scaling.type")))
            );
        }
        self.bound_by_window(architecture, &mut config)?;
        Ok(config.to_string())
    }

    /// Refuses metadata of the architecture that may change what is computed and are not known: scales of embeddings, logits or
    /// attention, for instance.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with every such key that is not `ignored`.
    pub(crate) fn check_keys(&self, ignored: &[String]) -> Result<()> {
        let prefix = format!("{}.", self.text("general.architecture").unwrap_or_default());
        let is_nothing = |value: &Value| match value {
            Value::Bool(is) => !is,
            Value::Text(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Unsigned(number) => *number == 0,
            _ => false,
        };
        let unknown = self.metadata.iter().filter(|(key, value)| {
            let name = key.strip_prefix(&prefix);
            name.is_some_and(|name| {
                !KNOWN.contains(&name)
                    && !ignored.iter().any(|known| known == name || known == *key)
            }) && !is_nothing(value)
        });
        let unknown: Vec<String> = unknown.map(|(key, _)| format!("`{key}`")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(self.fault(format!(
            "{} may change what is computed, and is not known: if it does not, pass `--ignore-key NAME`",
            unknown.join(", ")
        )))
    }

    /// Within its sliding window, attention is the same without one: a model with a window is used up to it.
    fn bound_by_window(&self, architecture: &str, config: &mut Json) -> Result<()> {
        let window = self.number(&format!("{architecture}.attention.sliding_window")).unwrap_or(0);
        let context = config["max_position_embeddings"].as_u64().unwrap_or(0);
        if window == 0 || window as u64 >= context {
            return Ok(());
        }
        if config.get("rope_scaling").is_some() {
            return Err(self.fault(format!(
                "a sliding window of {window} with rope factors is not supported"
            )));
        }
        config["max_position_embeddings"] = window.into();
        Ok(())
    }

    fn rope_factors(&self, rotary: usize) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
        let read = |name: &str| self.f32(name, &[rotary / 2]);
        if self.contains(BOTH) {
            let factors = read(BOTH)?;
            return Ok(Some((factors.clone(), factors)));
        }
        if self.contains(LONG) || self.contains(SHORT) {
            return Ok(Some((read(SHORT)?, read(LONG)?)));
        }
        Ok(None)
    }

    /// The tensors that [`Gguf::config`] reads.
    pub(crate) fn factors(&self) -> Vec<(String, Vec<usize>)> {
        [LONG, SHORT, BOTH]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.shape(name)?.to_vec())))
            .collect()
    }

    /// The tokens that end an answer.
    pub(crate) fn generation_config(&self) -> String {
        let keys = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
        let ids: Vec<usize> = keys.iter().filter_map(|key| self.number(key)).collect();
        json!({ "eos_token_id": ids }).to_string()
    }
}
