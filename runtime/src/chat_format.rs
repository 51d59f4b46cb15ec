//! The marks around turns, by family of tokenizer: Phi-4-multimodal and Phi-4-mini (spec 5.3), Phi-4, `ChatML`, Llama 3.
//!
//! A family is known by its special tokens. Texts between them belong to the format too: they are tokenized together with
//! the turn's words, as a template that renders everything to one string would have it.

use crate::tokenizer::Special;

/// A piece of a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A special token.
    Special(Special),
    /// Text beside it.
    Text(&'static str),
}

/// How a conversation is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatFormat {
    /// What stands before everything.
    pub start: Vec<Piece>,
    /// Before what the system says.
    pub system: Vec<Piece>,
    /// Before what the user says.
    pub user: Vec<Piece>,
    /// Before what the assistant says.
    pub assistant: Vec<Piece>,
    /// Behind every turn.
    pub tail: Vec<Piece>,
    /// The token that ends a turn, the first of `tail`.
    pub end: Special,
}

impl ChatFormat {
    /// The format whose special tokens `find` knows.
    ///
    /// # Errors
    /// Names what was looked for.
    pub(crate) fn resolve(find: &dyn Fn(&str) -> Option<Special>) -> Result<Self, String> {
        [phi, phi_4, chat_ml, llama_3].iter().find_map(|family| family(find)).ok_or_else(|| {
            "`added_tokens` has no family of role tokens that is known: <|user|> and <|end|>, <|im_start|> and <|im_end|>, \
             or <|start_header_id|> and <|eot_id|>"
                .to_owned()
        })
    }
}

type Find<'a> = &'a dyn Fn(&str) -> Option<Special>;

fn phi(find: Find<'_>) -> Option<ChatFormat> {
    let end = find("<|end|>")?;
    let role = |name| Some(vec![Piece::Special(find(name)?)]);
    Some(ChatFormat {
        start: Vec::new(),
        system: role("<|system|>")?,
        user: role("<|user|>")?,
        assistant: role("<|assistant|>")?,
        tail: vec![Piece::Special(end)],
        end,
    })
}

fn phi_4(find: Find<'_>) -> Option<ChatFormat> {
    let (start, between, end) = (find("<|im_start|>")?, find("<|im_sep|>")?, find("<|im_end|>")?);
    let role = |name| vec![Piece::Special(start), Piece::Text(name), Piece::Special(between)];
    Some(ChatFormat {
        start: Vec::new(),
        system: role("system"),
        user: role("user"),
        assistant: role("assistant"),
        tail: vec![Piece::Special(end)],
        end,
    })
}

fn chat_ml(find: Find<'_>) -> Option<ChatFormat> {
    let (start, end) = (find("<|im_start|>")?, find("<|im_end|>")?);
    let role = |line| vec![Piece::Special(start), Piece::Text(line)];
    Some(ChatFormat {
        start: Vec::new(),
        system: role("system\n"),
        user: role("user\n"),
        assistant: role("assistant\n"),
        tail: vec![Piece::Special(end), Piece::Text("\n")],
        end,
    })
}

fn llama_3(find: Find<'_>) -> Option<ChatFormat> {
    let (start, stop) = (find("<|start_header_id|>")?, find("<|end_header_id|>")?);
    let (begin, end) = (find("<|begin_of_text|>")?, find("<|eot_id|>")?);
    let role = |name| {
        vec![Piece::Special(start), Piece::Text(name), Piece::Special(stop), Piece::Text("\n\n")]
    };
    Some(ChatFormat {
        start: vec![Piece::Special(begin)],
        system: role("system"),
        user: role("user"),
        assistant: role("assistant"),
        tail: vec![Piece::Special(end)],
        end,
    })
}
