//! `SentencePiece` vocabularies (`tokenizer.ggml.model` is `llama`) → `tokenizer.json`.
//!
//! llama.cpp joins two neighbours as long as there are any whose text together is a token: first those of the highest score,
//! of equals the leftmost. So does BPE, if its merges are all ways of cutting a token in two, the highest score first. The two
//! agree where scores tell tokens apart and where a token's characters are tokens; a vocabulary of another kind is refused.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use super::Gguf;
use super::reader::Value;
use super::tokenizer::{CONTROL, UNKNOWN, USER_DEFINED, added_tokens, token_types};
use crate::error::Result;

/// What `tokenizer.ggml.token_type` says of a token that text is made of.
const NORMAL: u64 = 1;
/// Longest token in bytes: every way of cutting one in two is looked at.
const LONGEST: usize = 1024;
/// Stands for a space.
const SPACE: &str = "\u{2581}";

impl Gguf {
    /// The tokenizer in the layout of the `tokenizers` library.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the vocabulary is incomplete, or cannot be kept exactly.
    pub(super) fn sentencepiece(&self) -> Result<String> {
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let types = token_types(self.array("tokenizer.ggml.token_type")?);
        let scores = self.scores()?;
        if types.len() != tokens.len() || scores.len() != tokens.len() {
            return Err(self.fault(format!(
                "there are {} tokens, {} types and {} scores: they must be as many",
                tokens.len(),
                types.len(),
                scores.len()
            )));
        }
        if let Some(token) = tokens.iter().find(|token| token.len() > LONGEST) {
            return Err(self
                .fault(format!("a token has {} bytes: at most {LONGEST} are taken", token.len())));
        }
        let known = |byte: &u8| tokens.contains(&byte_token(*byte).as_str());
        if let Some(byte) = (0..=u8::MAX).find(|byte| !known(byte)) {
            return Err(self.fault(format!("the vocabulary has no token {}", byte_token(byte))));
        }
        let normal = tokens.iter().zip(&types).zip(&scores);
        let normal = normal.filter(|((_, kind), _)| **kind == NORMAL);
        let merges =
            merges(&normal.map(|((token, _), score)| (*token, *score)).collect::<Vec<_>>())
                .map_err(|reason| self.fault(reason))?;
        let vocab: Map<String, Json> = tokens
            .iter()
            .zip(0_u64..)
            .map(|(token, id)| ((*token).to_owned(), id.into()))
            .collect();
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": added_tokens(&tokens, &types, &[CONTROL, UNKNOWN, USER_DEFINED]),
            "normalizer": self.spaces(),
            "pre_tokenizer": null,
            "post_processor": self.begin(&tokens),
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ]},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true},
        });
        Ok(tokenizer.to_string())
    }

    fn scores(&self) -> Result<Vec<f64>> {
        let key = "tokenizer.ggml.scores";
        let scores = self.array(key)?.iter().map(|value| match value {
            Value::Float(score) if score.is_finite() => Ok(*score),
            other => Err(self.fault(format!("`{key}` holds {other:?}: only numbers may be in it"))),
        });
        scores.collect()
    }

    /// What is done with spaces before text is cut: each has its sign, and one more stands at the start.
    fn spaces(&self) -> Json {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let mut steps = vec![replace];
        if self.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true) {
            steps.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        }
        json!({"type": "Sequence", "normalizers": steps})
    }

    /// The token that every prompt begins with.
    fn begin(&self, tokens: &[&str]) -> Json {
        let wanted = self.flag("tokenizer.ggml.add_bos_token").unwrap_or(true);
        let id = self.number("tokenizer.ggml.bos_token_id").filter(|_| wanted);
        let Some((id, token)) = id.and_then(|id| Some((id, tokens.get(id)?))) else {
            return Json::Null;
        };
        let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        json!({
            "type": "TemplateProcessing",
            "single": [special, text("A")],
            "pair": [special, text("A"), text("B")],
            "special_tokens": {*token: {"id": token, "ids": [id], "tokens": [token]}},
        })
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }
}

fn byte_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// All pairs of tokens that make a token, the pairs of the highest score first.
///
/// # Errors
/// Names the tokens whose order, or whose making, BPE would not keep.
fn merges<'a>(tokens: &[(&'a str, f64)]) -> Result<Vec<[&'a str; 2]>, String> {
    let known: HashMap<&str, f64> = tokens.iter().copied().collect();
    let mut sorted: Vec<(&str, f64)> = tokens.to_vec();
    sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut merges = Vec::new();
    let mut last: Option<(&str, f64)> = None;
    for (token, score) in sorted {
        let first = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            let is_letter = |part: &str| part.chars().nth(1).is_none();
            match [left, right].map(|part| known.contains_key(part)) {
                [true, true] => merges.push([left, right]),
                [left_known, right_known]
                    if (left_known || is_letter(left)) && (right_known || is_letter(right)) =>
                {
                    return Err(format!(
                        "the token `{token}` has a character that is no token: such a vocabulary cannot be kept exactly"
                    ));
                }
                _ => {}
            }
        }
        if merges.len() > first {
            if let Some((other, equal)) = last
                && equal.total_cmp(&score).is_eq()
            {
                return Err(format!(
                    "the tokens `{other}` and `{token}` have the same score: such a vocabulary cannot be kept exactly"
                ));
            }
            last = Some((token, score));
        }
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chat_format::Piece;
    use crate::grammar::GrammarCompiler;
    use crate::tokenizer::Tokenizer;

    /// Text, type and score.
    type Token = (String, u64, f32);

    const BYTE: u64 = 6;
    const CORPUS: &str = "the cat sat on the mat and the other cat sat there then the hat was theirs banana bananas aaaa \
                          aaaaaaa größe straße über üben 猫は猫で 猫の 10 100 1000 10000 if (x) { return x; } naïve café cafés";

    /// A vocabulary as `SentencePiece` makes one: what a BPE of the corpus joins, in the order in which it does.
    fn trained() -> Vec<Token> {
        let mut vocab: Vec<Token> = vec![
            ("<unk>".into(), UNKNOWN, 0.0),
            ("<s>".into(), CONTROL, 0.0),
            ("</s>".into(), CONTROL, 0.0),
        ];
        vocab.extend((0..=u8::MAX).map(|byte| (byte_token(byte), BYTE, 0.0)));
        let mut words: Vec<Vec<String>> = CORPUS
            .split(' ')
            .map(|word| format!("{SPACE}{word}").chars().map(String::from).collect())
            .collect();
        let mut joined = Vec::new();
        for _ in 0..120 {
            let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
            for pair in words.iter().flat_map(|word| word.windows(2)) {
                *counts.entry((pair[0].clone(), pair[1].clone())).or_default() += 1;
            }
            let Some(((left, right), _)) = counts.into_iter().max_by_key(|(_, count)| *count)
            else {
                break;
            };
            for word in &mut words {
                while let Some(at) =
                    word.windows(2).position(|pair| *pair == [left.clone(), right.clone()])
                {
                    word.splice(at..at + 2, [left.clone() + &right]).for_each(drop);
                }
            }
            if !joined.contains(&(left.clone() + &right)) {
                joined.push(left + &right);
            }
        }
        let mut letters: Vec<char> =
            CORPUS.chars().filter(|c| *c != ' ').chain(SPACE.chars()).collect();
        letters.sort_unstable();
        letters.dedup();
        let pieces = joined.into_iter().chain(letters.into_iter().map(String::from));
        vocab.extend(pieces.zip(0..).map(|(piece, rank)| (piece, NORMAL, -(rank as f32))));
        for mark in ["<|user|>", "<|system|>", "<|assistant|>", "<|end|>"] {
            vocab.push((mark.into(), USER_DEFINED, -1000.0));
        }
        vocab
    }

    /// What llama.cpp does, in the plainest way.
    fn reference(vocab: &[Token], text: &str) -> Vec<u32> {
        let normal = |piece: &str| {
            vocab.iter().position(|(token, kind, _)| *kind == NORMAL && token == piece)
        };
        let mut pieces: Vec<String> =
            format!(" {text}").replace(' ', SPACE).chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for at in 1..pieces.len() {
                if let Some(id) = normal(&(pieces[at - 1].clone() + &pieces[at]))
                    && best.is_none_or(|(score, _)| vocab[id].2 > score)
                {
                    best = Some((vocab[id].2, at));
                }
            }
            let Some((_, at)) = best else { break };
            let right = pieces.remove(at);
            pieces[at - 1] += &right;
        }
        let ids = |piece: &String| match normal(piece) {
            Some(id) => vec![id as u32],
            None => piece.bytes().map(|byte| 3 + u32::from(byte)).collect(),
        };
        pieces.iter().flat_map(ids).collect()
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn array(key: &str, kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
        let head = [9, kind].map(u32::to_le_bytes).concat();
        [text(key), head, (values.len() as u64).to_le_bytes().to_vec(), values.concat()].concat()
    }

    /// The `tokenizer.json` of a GGUF file without tensors, and with some more metadata.
    fn tokenizer_json(vocab: &[Token], more: &[Vec<u8>]) -> Result<String> {
        let column = |part: &dyn Fn(&Token) -> Vec<u8>| vocab.iter().map(part).collect::<Vec<_>>();
        let bos = [text("tokenizer.ggml.bos_token_id"), [4_u32, 1].map(u32::to_le_bytes).concat()]
            .concat();
        let mut metadata = vec![
            [text("tokenizer.ggml.model"), 8_u32.to_le_bytes().to_vec(), text("llama")].concat(),
            bos,
            array("tokenizer.ggml.tokens", 8, &column(&|(token, ..)| text(token))),
            array(
                "tokenizer.ggml.token_type",
                5,
                &column(&|(_, kind, _)| (*kind as i32).to_le_bytes().to_vec()),
            ),
            array("tokenizer.ggml.scores", 6, &column(&|(.., score)| score.to_le_bytes().to_vec())),
        ];
        metadata.extend_from_slice(more);
        let counts = [0, metadata.len() as u64].map(u64::to_le_bytes).concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.gguf");
        std::fs::write(&path, [b"GGUF\x03\0\0\0".to_vec(), counts, metadata.concat()].concat())
            .unwrap();
        Gguf::open(&path)?.tokenizer()
    }

    fn tokenizer(more: &[Vec<u8>]) -> Tokenizer {
        Tokenizer::parse(&tokenizer_json(&trained(), more).unwrap()).unwrap()
    }

    fn no(key: &str) -> Vec<u8> {
        [text(key), 7_u32.to_le_bytes().to_vec(), vec![0]].concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn text_is_cut_as_llama_cpp_cuts_it(
            texts in prop::collection::vec("([ a-i]|the|cat|an|th|aa|は|猫|ö|ß|\n|1|0|é|ж|🙂|<|_|\u{2581}){1,24}", 30)
        ) {
            thread_local! {
                static BOTH: (Tokenizer, Vec<Token>) = (tokenizer(&[]), trained());
            }
            BOTH.with(|(tokenizer, vocab)| {
                for text in &texts {
                    prop_assert_eq!(tokenizer.encode(text).unwrap(), reference(vocab, text), "{:?}", text);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn text_comes_back_and_marks_in_it_stay_text() {
        let tokenizer = tokenizer(&[]);
        for written in ["the cats", " two  spaces", "naïve <|end|></s>\n\t🙂 <0x41>"] {
            let ids = tokenizer.encode(written).unwrap();
            assert!(ids.iter().all(|id| tokenizer.is_text(*id)), "{written}");
            assert_eq!(tokenizer.decode(&ids), format!(" {written}"));
        }
        assert!(GrammarCompiler::new(&tokenizer).is_ok());
    }

    #[test]
    fn an_answer_does_not_begin_with_the_space_that_text_is_given() {
        let tokenizer = tokenizer(&[]);
        let ids = tokenizer.encode("the cat").unwrap();
        assert_eq!(tokenizer.first_bytes(ids[0]), &tokenizer.bytes(ids[0])[1..]);
        let byte = tokenizer.encode("\n").unwrap()[1];
        assert_eq!(tokenizer.first_bytes(byte), b"\n");
    }

    #[test]
    fn a_prompt_begins_with_the_token_of_the_file() {
        let start = |more: &[Vec<u8>]| tokenizer(more).specials().chat.start.clone();
        assert!(matches!(start(&[])[..], [Piece::Special(token)] if token.id == 1));
        assert!(start(&[no("tokenizer.ggml.add_bos_token")]).is_empty());
        let bare = tokenizer(&[no("tokenizer.ggml.add_space_prefix")]);
        assert_eq!(bare.decode(&bare.encode("the cat").unwrap()), "the cat");
    }

    #[test]
    fn a_vocabulary_that_cannot_be_kept_is_refused_by_name() {
        let fault = |change: &dyn Fn(&mut Vec<Token>)| {
            let mut vocab = trained();
            change(&mut vocab);
            tokenizer_json(&vocab, &[]).unwrap_err().to_string()
        };
        let equal = fault(&|vocab| {
            for token in vocab.iter_mut().filter(|token| token.0 == "the" || token.0 == "at") {
                token.2 = -0.5;
            }
        });
        assert!(equal.contains("`the`") && equal.contains("`at`"), "{equal}");
        let letter = fault(&|vocab| vocab.push(("tж".into(), NORMAL, -9.5)));
        assert!(letter.contains("`tж`"), "{letter}");
        let byte = fault(&|vocab| vocab[3 + 0x41].0 = "<0x41".into());
        assert!(byte.contains("<0x41>"), "{byte}");
    }
}
