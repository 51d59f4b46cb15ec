//! Metadata → `tokenizer.json`: byte-level BPE with the way of cutting words that the file names. The other kind of vocabulary
//! is in `sentencepiece`.

use serde_json::{Value as Json, json};

use super::Gguf;
use super::reader::Value;
use crate::error::Result;

/// What `tokenizer.ggml.token_type` says of a token that is written by name only.
pub(super) const UNKNOWN: u64 = 2;
pub(super) const CONTROL: u64 = 3;
pub(super) const USER_DEFINED: u64 = 4;

/// Words as by GPT-4 and Llama 3: digits in threes.
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words as by GPT-4o and Phi-4-mini: changes from small to capital letters cut as well.
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Gguf {
    /// The tokenizer in the layout of the `tokenizers` library.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the file has neither byte-level BPE nor `SentencePiece`, or one that cuts
    /// words in an unknown way.
    pub(crate) fn tokenizer(&self) -> Result<String> {
        match self.text("tokenizer.ggml.model").unwrap_or("(none)") {
            "gpt2" => self.byte_level(),
            "llama" => self.sentencepiece(),
            kind => Err(self.fault(format!(
                "tokenizer.ggml.model is `{kind}`: only byte-level BPE (`gpt2`) and SentencePiece (`llama`) can be imported; \
                 take the safetensors folder of the model"
            ))),
        }
    }

    fn byte_level(&self) -> Result<String> {
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let merges = self.texts("tokenizer.ggml.merges")?;
        let types = token_types(self.array("tokenizer.ggml.token_type")?);
        let vocab: serde_json::Map<String, Json> = tokens
            .iter()
            .zip(0_u64..)
            .map(|(token, id)| ((*token).to_owned(), id.into()))
            .collect();
        let added = added_tokens(&tokens, &types, &[CONTROL, USER_DEFINED]);
        let cut = self.words()?;
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let steps: Vec<Json> = cut.into_iter().chain([level.clone()]).collect();
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": self.ignores_merges()},
        });
        Ok(tokenizer.to_string())
    }

    /// Whether a word that is a token is that token, whatever the merges say.
    fn ignores_merges(&self) -> bool {
        self.text("tokenizer.ggml.pre") == Some("llama-bpe")
    }

    /// The steps before bytes: how text is cut into words.
    fn words(&self) -> Result<Vec<Json>> {
        let split = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let pre = self.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
        Ok(match pre {
            "gpt-2" | "phi-2" => vec![split(gpt2)],
            "smollm" | "starcoder" => {
                vec![json!({"type": "Digits", "individual_digits": true}), split(gpt2)]
            }
            "llama-bpe" | "llama3" | "llama-v3" | "dbrx" => vec![split(CL100K)],
            "gpt-4o" => vec![split(O200K)],
            other => {
                return Err(self.fault(format!(
                    "tokenizer.ggml.pre is `{other}`: only gpt-2, smollm, starcoder, llama-bpe, dbrx and gpt-4o are known"
                )));
            }
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        let texts = self.array(key)?.iter().map(|value| match value {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(self.fault(format!("`{key}` holds {other:?}: only texts may be in it"))),
        });
        texts.collect()
    }

    pub(super) fn array(&self, key: &str) -> Result<&[Value]> {
        match self.value(key) {
            Some(Value::Array(values)) => Ok(values),
            _ => Err(self.fault(format!("`{key}` is missing"))),
        }
    }
}

/// The kinds of tokens; 0 where there is none.
pub(super) fn token_types(values: &[Value]) -> Vec<u64> {
    let kind = |value: &Value| match value {
        Value::Unsigned(kind) => *kind,
        Value::Signed(kind) => u64::try_from(*kind).unwrap_or(0),
        _ => 0,
    };
    values.iter().map(kind).collect()
}

/// The tokens of some kinds, which are written by name and not made of text.
pub(super) fn added_tokens(tokens: &[&str], types: &[u64], kinds: &[u64]) -> Vec<Json> {
    let all = tokens.iter().zip(types).zip(0_u64..);
    all.filter(|((_, kind), _)| kinds.contains(kind))
        .map(|((token, kind), id)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": *kind != USER_DEFINED})
        })
        .collect()
}
