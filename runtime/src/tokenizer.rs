//! `tokenizer.json` → token ids, with the special tokens of spec 5.2 resolved by name.
//!
//! Text and special tokens never mix: [`Tokenizer::encode`] takes plain text, in which `<|end|>` is five characters like any
//! others; special tokens enter a prompt by id only, so no input can forge a turn or a placeholder.

use std::path::Path;

use serde_json::Value;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use crate::chat_format::{ChatFormat, Piece};
use crate::error::{Error, Result};

/// Far beyond any vocabulary.
const LARGEST_ID: u64 = 1 << 22;

/// A special token: its id, and whether it swallows white space beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// The id.
    pub id: u32,
    /// Swallows white space before it.
    pub lstrip: bool,
    /// Swallows white space after it.
    pub rstrip: bool,
}

/// The special tokens that prompts and answers are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specials {
    /// `<|endoftext|>` (or `<|end_of_text|>`), where there is one.
    pub endoftext: Option<Special>,
    /// The marks around turns.
    pub chat: ChatFormat,
    /// `<|tool|>`, `<|/tool|>`, `<|tool_call|>`, `<|/tool_call|>` and `<|tool_response|>`, where the model knows tools.
    pub tools: Option<ToolTokens>,
    /// The image placeholder `<|endoftext10|>` (or `<|image|>`), where the model sees.
    pub image: Option<Special>,
    /// The audio placeholder `<|endoftext11|>` (or `<|audio|>`), where the model hears.
    pub audio: Option<Special>,
}

/// The special tokens around tools (spec 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolTokens {
    /// `<|tool|>`
    pub tool: Special,
    /// `<|/tool|>`
    pub tool_end: Special,
    /// `<|tool_call|>`
    pub call: Special,
    /// `<|/tool_call|>`
    pub call_end: Special,
    /// `<|tool_response|>`
    pub response: Special,
}

/// The tokenizer of a model.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    specials: Specials,
    /// Bytes of each token; those of added tokens start with [`TokTrie::SPECIAL_TOKEN_MARKER`].
    bytes: Vec<Vec<u8>>,
    /// Whether text is given a space at its start, as `SentencePiece` does: an answer has it too.
    leading_space: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("tokens", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Config`] when it is no tokenizer or has no role tokens that are known.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text).map_err(|reason| Error::config(path, reason))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut json: Value = serde_json::from_str(text).map_err(|fault| fault.to_string())?;
        let added = json
            .get_mut("added_tokens")
            .and_then(Value::as_array_mut)
            .ok_or("`added_tokens` is missing")?;
        // The file may declare tool tokens as not special; marked special they can be kept out of plain text.
        for token in added.iter_mut() {
            let token = token.as_object_mut().ok_or("`added_tokens` holds what is no token")?;
            token.insert("special".into(), Value::Bool(true));
        }
        let mut specials = Specials::resolve(added)?;
        check_ids(&json)?;
        if specials.chat.start.is_empty() {
            specials.chat.start.extend(beginning(&json).map(Piece::Special));
        }
        let leading_space = steps(&json["normalizer"]).any(|step| step["type"] == "Prepend");
        let bytes = llguidance::token_bytes_from_tokenizer_json(&json)
            .map_err(|fault| fault.to_string())?;
        let mut inner: tokenizers::Tokenizer =
            serde_json::from_value(json).map_err(|fault| fault.to_string())?;
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, specials, bytes, leading_space })
    }

    /// The special tokens.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// Number of tokens that the file defines; the embedding may have more rows.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the file defines no token.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Ids of plain text.
    ///
    /// # Errors
    /// [`Error::Request`] when the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|fault| Error::Request(format!("the text cannot be tokenized: {fault}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Bytes of a token of plain text; empty for special and unknown ones.
    pub fn bytes(&self, id: u32) -> &[u8] {
        match self.bytes.get(id as usize) {
            Some(bytes) if bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER) => bytes,
            _ => &[],
        }
    }

    /// Bytes of the first token of an answer: without the space that text is given at its start.
    pub(crate) fn first_bytes(&self, id: u32) -> &[u8] {
        let bytes = self.bytes(id);
        if self.leading_space { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes }
    }

    /// Whether a token is plain text.
    pub fn is_text(&self, id: u32) -> bool {
        !self.bytes(id).is_empty()
    }

    /// Text of some tokens, special ones left out, broken UTF-8 replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The view of this tokenizer that the grammar engine needs.
    pub(crate) fn grammar_env(&self) -> TokEnv {
        let info = TokRxInfo::new(self.bytes.len() as u32, self.specials.chat.end.id);
        let trie = TokTrie::from(&info, &self.bytes);
        let mut inner = self.inner.clone();
        // What the grammar forces is written literally: only SentencePiece's spaces depend on the normalizer, while others
        // rewrite text as people type it.
        if !self.leading_space
            && let Err(fault) = inner.with_normalizer(None::<tokenizers::NormalizerWrapper>)
        {
            tracing::warn!("the grammar's text goes through the normalizer: {fault}");
        }
        std::sync::Arc::new(GrammarEnv { trie, inner })
    }
}

/// The token that a `SentencePiece` family begins every prompt with; with byte-level BPE the chat format says so.
fn beginning(json: &Value) -> Option<Special> {
    if json["model"]["byte_fallback"] != true {
        return None;
    }
    let name = json["post_processor"]["single"][0]["SpecialToken"]["id"].as_str()?;
    let id = json["post_processor"]["special_tokens"][name]["ids"][0].as_u64()?;
    Some(Special { id: u32::try_from(id).ok()?, lstrip: false, rstrip: false })
}

/// The steps of a normalizer, which may be a single one.
fn steps(normalizer: &Value) -> impl Iterator<Item = &Value> {
    normalizer["normalizers"].as_array().into_iter().flatten().chain([normalizer])
}

/// Refuses what the grammar engine's table of bytes would not survive: it has a row for every id up to the largest.
fn check_ids(json: &Value) -> Result<(), String> {
    let added = json["added_tokens"].as_array().into_iter().flatten().map(|token| &token["id"]);
    let vocab = json["model"]["vocab"].as_object().into_iter().flatten();
    let is_byte = |name: &str| {
        let digits = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
    };
    let of_bytes = json["decoder"]["type"] != "ByteLevel";
    if let Some((name, _)) =
        vocab.clone().find(|(name, _)| of_bytes && name.starts_with("<0x") && !is_byte(name))
    {
        return Err(format!("the token `{name}` is no byte"));
    }
    let too_large = |id: &&Value| id.as_u64().is_none_or(|id| id > LARGEST_ID);
    match added.chain(vocab.map(|(_, id)| id)).find(too_large) {
        Some(id) => Err(format!("a token has the id {id}, but at most {LARGEST_ID} is taken")),
        None => Ok(()),
    }
}

/// Forced text is tokenized as the model was trained on it, not greedily.
struct GrammarEnv {
    trie: TokTrie,
    inner: tokenizers::Tokenizer,
}

impl TokenizerEnv for GrammarEnv {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            match self.inner.encode_fast(text, false) {
                Ok(encoding) => encoding.get_ids().to_vec(),
                Err(_) => self.trie.greedy_tokenize(text.as_bytes()),
            }
        })
    }
}

impl Specials {
    fn resolve(added: &[Value]) -> Result<Self, String> {
        let find = |name: &str| {
            let token = added.iter().find(|token| token["content"] == name)?;
            let id = u32::try_from(token["id"].as_u64()?).ok()?;
            let flag = |key: &str| token[key].as_bool().unwrap_or(false);
            Some(Special { id, lstrip: flag("lstrip"), rstrip: flag("rstrip") })
        };
        let tools = || {
            Some(ToolTokens {
                tool: find("<|tool|>")?,
                tool_end: find("<|/tool|>")?,
                call: find("<|tool_call|>")?,
                call_end: find("<|/tool_call|>")?,
                response: find("<|tool_response|>")?,
            })
        };
        Ok(Self {
            endoftext: find("<|endoftext|>").or_else(|| find("<|end_of_text|>")),
            chat: ChatFormat::resolve(&find)?,
            tools: tools(),
            image: find("<|endoftext10|>").or_else(|| find("<|image|>")),
            audio: find("<|endoftext11|>").or_else(|| find("<|audio|>")),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn byte_tokenizer() -> Tokenizer {
        Tokenizer::parse(&byte_tokenizer_json(&PHI)).unwrap()
    }

    const PHI: [&str; 11] = [
        "<|endoftext|>",
        "<|end|>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|tool|>",
        "<|/tool|>",
        "<|tool_call|>",
        "<|/tool_call|>",
        "<|tool_response|>",
        "<|endoftext11|>",
    ];

    /// One token a byte, then the special tokens from 256 on: any text can be written, in any spelling.
    pub(crate) fn byte_tokenizer_json(specials: &[&str]) -> String {
        let mut letters: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        letters.sort_unstable();
        let vocab: serde_json::Map<String, Value> = letters
            .iter()
            .enumerate()
            .map(|(id, letter)| (letter.to_string(), id.into()))
            .collect();
        let added: Vec<Value> = specials
            .iter()
            .zip(256..)
            .map(|(name, id)| {
                json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        json!({
            "version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}
        })
        .to_string()
    }
}
