//! Logits in, tokens out: one answer being written, as free text or as a list of calls under the grammar.

use llguidance::toktrie::SimpleVob;

use crate::confidence::{Confidence, log_probability};
use crate::error::{Error, Result};
use crate::grammar::{CallGrammar, CallState, parse_calls};
use crate::request::{Finish, Sampling, ToolCall};
use crate::sampling::Sampler;
use crate::tokenizer::Tokenizer;

/// An answer being written.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    tokenizer: &'a Tokenizer,
    stop_ids: &'a [u32],
    grammar: Option<&'a CallGrammar>,
    sampler: Sampler,
    max_new_tokens: usize,
    mode: Mode,
    /// The tokens that the grammar allows next, once they were asked for.
    allowed: Option<SimpleVob>,
    text: Vec<u8>,
    /// Bytes of `text` that the reader has been given.
    streamed: usize,
    calls: Vec<u32>,
    pub(crate) new_tokens: usize,
    pub(crate) forced_tokens: usize,
    finish: Option<Finish>,
    pub(crate) confidence: Option<Confidence>,
}

#[derive(Debug)]
enum Mode {
    Text,
    Calls(Box<CallState>),
}

/// The head is computed whole if a grammar allows more than this share of its rows: reading some takes longer than reading all
/// in a row.
const FEW: usize = 8;

impl<'a> Answer<'a> {
    /// Without a `grammar` no call can be made.
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        stop_ids: &'a [u32],
        grammar: Option<&'a CallGrammar>,
        sampling: Sampling,
        max_new_tokens: usize,
    ) -> Self {
        Self {
            tokenizer,
            stop_ids,
            grammar,
            sampler: Sampler::new(sampling),
            max_new_tokens,
            mode: Mode::Text,
            allowed: None,
            text: Vec::new(),
            streamed: 0,
            calls: Vec::new(),
            new_tokens: 0,
            forced_tokens: 0,
            finish: None,
            confidence: None,
        }
    }

    /// Chooses the next token by `logits` and returns it with those that the grammar forces behind it: the tokens to feed to
    /// the decoder next. None once the answer is complete.
    pub(crate) fn advance(
        &mut self,
        logits: &[f32],
        sink: &mut dyn FnMut(&str),
    ) -> Result<Option<Vec<u32>>> {
        let chosen = match &mut self.mode {
            Mode::Text => self.choose_text(logits, sink)?,
            Mode::Calls(state) => {
                let allowed = match self.allowed.take() {
                    Some(allowed) => allowed,
                    None => state.allowed()?,
                };
                let id = self
                    .sampler
                    .choose(logits, |id| allowed.is_allowed(id))
                    .ok_or(Error::NoLogit)?;
                state.take(id)?;
                self.calls.push(id);
                if allowed.num_set() > 1 {
                    self.decide(log_probability(logits, id, |id| allowed.is_allowed(id)));
                }
                Some(id)
            }
        };
        let Some(chosen) = chosen else {
            self.finish = Some(Finish::EndOfTurn);
            return Ok(None);
        };
        let mut tokens = vec![chosen];
        if let Mode::Calls(state) = &mut self.mode {
            let forced = state.forced();
            self.forced_tokens += forced.len();
            self.calls.extend(&forced);
            tokens.extend(forced);
            // The closing marker and the end of the turn follow a complete list; nothing is left to decide.
            if state.is_complete() {
                self.finish = Some(Finish::EndOfTurn);
            }
        }
        self.new_tokens += tokens.len();
        if self.finish.is_none() && self.new_tokens >= self.max_new_tokens {
            self.finish = Some(Finish::Length);
        }
        Ok(self.finish.is_none().then_some(tokens))
    }

    /// The only tokens whose logits matter for the next choice, in ascending order; `None` if they are many.
    pub(crate) fn allowed(&mut self) -> Result<Option<Vec<u32>>> {
        let Mode::Calls(state) = &mut self.mode else { return Ok(None) };
        let allowed = state.allowed()?;
        let is_few = allowed.num_set() * FEW <= self.tokenizer.len();
        let ids = is_few.then(|| {
            let mut ids = Vec::new();
            allowed.iter_set_entries(|id| ids.push(id as u32));
            ids
        });
        self.allowed = Some(allowed);
        Ok(ids)
    }

    /// Counts a token that had an alternative.
    fn decide(&mut self, log_probability: f32) {
        let decided = Confidence::of(log_probability);
        self.confidence = Some(self.confidence.map_or(decided, |earlier| earlier.and(decided)));
    }

    /// The next token of free text; `None` at the end of the turn.
    fn choose_text(&mut self, logits: &[f32], sink: &mut dyn FnMut(&str)) -> Result<Option<u32>> {
        let call = self.grammar.and(self.tokenizer.specials().tools).map(|marks| marks.call.id);
        let allowed =
            |id| self.tokenizer.is_text(id) || self.stop_ids.contains(&id) || Some(id) == call;
        let id = self.sampler.choose(logits, allowed).ok_or(Error::NoLogit)?;
        // Each call is a decision, and so is to begin without one.
        if let Some(call) = call.filter(|call| *call == id || self.new_tokens == 0) {
            let calls = log_probability(logits, call, allowed);
            self.decide(if call == id { calls } else { (-calls.exp()).ln_1p() });
        }
        if self.stop_ids.contains(&id) {
            return Ok(None);
        }
        match self.grammar {
            Some(grammar) if Some(id) == call => self.mode = Mode::Calls(Box::new(grammar.begin())),
            _ => {
                self.text.extend(match self.new_tokens {
                    0 => self.tokenizer.first_bytes(id),
                    _ => self.tokenizer.bytes(id),
                });
                self.stream(sink);
            }
        }
        Ok(Some(id))
    }

    /// Passes on what is whole characters; a character may be spread over several tokens.
    fn stream(&mut self, sink: &mut dyn FnMut(&str)) {
        let fresh = &self.text[self.streamed..];
        let whole = match std::str::from_utf8(fresh) {
            Ok(text) => text,
            Err(fault) => std::str::from_utf8(&fresh[..fault.valid_up_to()]).unwrap_or_default(),
        };
        if !whole.is_empty() {
            sink(whole);
            self.streamed += whole.len();
        }
    }

    /// Text, calls and the reason for the end. A list of calls that was cut short gives no call.
    pub(crate) fn finish(self) -> Result<(String, Vec<ToolCall>, Finish)> {
        let finish = self.finish.unwrap_or(Finish::Length);
        let calls = match self.mode {
            Mode::Calls(_) if finish == Finish::EndOfTurn => {
                parse_calls(&self.tokenizer.decode(&self.calls))?
            }
            _ => Vec::new(),
        };
        Ok((String::from_utf8_lossy(&self.text).into_owned(), calls, finish))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::grammar::GrammarCompiler;
    use crate::request::ToolSpec;
    use crate::tokenizer::tests::byte_tokenizer;

    fn tools() -> Vec<ToolSpec> {
        let tool =
            |name: &str, schema| ToolSpec { name: name.into(), description: String::new(), schema };
        vec![
            tool(
                "set_light",
                json!({
                    "type": "object",
                    "properties": {
                        "room": {"type": "string", "enum": ["kitchen", "living_room"]},
                        "state": {"type": "string", "enum": ["on", "off"]},
                        "brightness": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 10}
                    },
                    "required": ["room", "state"]
                }),
            ),
            tool("read_camera", json!({"type": "object", "properties": {}})),
            tool(
                "say \"hi\"",
                json!({
                    "type": "object",
                    "properties": {"text": {"type": "string", "maxLength": 8}, "loud": {"type": "boolean"}},
                    "required": ["text"]
                }),
            ),
        ]
    }

    /// Logits that an adversary, or a damaged model, might give.
    fn noise(seed: u64, step: usize, vocab: usize) -> Vec<f32> {
        use rand::{Rng as _, SeedableRng as _};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed ^ (step as u64) << 32);
        (0..vocab).map(|_| rng.random_range(-10.0..10.0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn whatever_the_logits_a_call_is_valid_and_offered(seed: u64, subset in 1_usize..8) {
            let tokenizer = byte_tokenizer();
            let offered: Vec<ToolSpec> = tools()
                .into_iter().enumerate().filter(|(bit, _)| subset & (1 << bit) != 0).map(|(_, tool)| tool).collect();
            let grammar = GrammarCompiler::new(&tokenizer).unwrap().compile(&offered).unwrap();
            let stop = [tokenizer.specials().chat.end.id];
            let mut answer = Answer::new(&tokenizer, &stop, Some(&grammar), Sampling::Greedy, 400);
            let call = tokenizer.specials().tools.unwrap().call.id as usize;
            let mut logits = vec![0.0; tokenizer.len()];
            logits[call] = 1.0;
            let mut step = 0;
            while answer.advance(&logits, &mut |_| ()).unwrap().is_some() {
                step += 1;
                logits = noise(seed, step, tokenizer.len());
            }
            let (text, calls, finish) = answer.finish().unwrap();
            prop_assert_eq!(text, "");
            prop_assert_eq!(finish == Finish::EndOfTurn, !calls.is_empty());
            for call in calls {
                let tool = offered.iter().find(|tool| tool.name == call.name);
                prop_assert!(tool.is_some(), "{} is not offered", call.name);
                let valid = jsonschema::is_valid(&tool.unwrap().schema, &Value::Object(call.arguments.clone()));
                prop_assert!(valid, "{:?} does not fit {}", call.arguments, call.name);
            }
        }
    }

    #[test]
    fn what_decides_a_call_is_counted_and_what_is_forced_is_not() {
        let tokenizer = byte_tokenizer();
        let offered = &tools()[..1];
        let grammar = GrammarCompiler::new(&tokenizer).unwrap().compile(offered).unwrap();
        let stop = [tokenizer.specials().chat.end.id];
        let call = tokenizer.specials().tools.unwrap().call.id;
        let only = |id: u32| {
            let mut logits = vec![0.0; tokenizer.len()];
            logits[id as usize] = 60.0;
            logits
        };
        let letter = |byte: u8| tokenizer.encode(&char::from(byte).to_string()).unwrap()[0];
        // A model that is sure of all but the room's first letter.
        let wanted = br#"[{"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}}]"#;
        let mut answer = Answer::new(&tokenizer, &stop, Some(&grammar), Sampling::Greedy, 400);
        let mut logits = only(call);
        while answer.advance(&logits, &mut |_| ()).unwrap().is_some() {
            let next = wanted[answer.calls.len()];
            logits = only(letter(next));
            if next == b'k' {
                logits[letter(b'l') as usize] = 60.0;
            }
        }
        let (mean, least) = answer.confidence.unwrap().probabilities();
        assert!((least - 0.5).abs() < 1e-3 && mean > least, "{mean} {least}");
        let (_, calls, _) = answer.finish().unwrap();
        assert_eq!(calls[0].arguments["room"], "kitchen");

        // Free text is a decision against a call.
        let mut answer = Answer::new(&tokenizer, &stop, Some(&grammar), Sampling::Greedy, 1);
        let mut logits = only(letter(b'a'));
        logits[call as usize] = 60.0 - 3_f32.ln();
        let _ = answer.advance(&logits, &mut |_| ()).unwrap();
        let (_, least) = answer.confidence.unwrap().probabilities();
        assert!((least - 0.75).abs() < 1e-3, "{least}");
    }

    #[test]
    fn without_tools_the_call_marker_cannot_be_chosen() {
        let tokenizer = byte_tokenizer();
        let stop = [tokenizer.specials().chat.end.id];
        let mut answer = Answer::new(&tokenizer, &stop, None, Sampling::Greedy, 4);
        let mut logits = vec![0.0; tokenizer.len()];
        logits[tokenizer.specials().tools.unwrap().call.id as usize] = 9.0;
        logits[tokenizer.encode("a").unwrap()[0] as usize] = 1.0;
        let mut streamed = String::new();
        while answer.advance(&logits, &mut |text| streamed.push_str(text)).unwrap().is_some() {}
        assert_eq!(answer.finish().unwrap(), ("aaaa".into(), Vec::new(), Finish::Length));
        assert_eq!(streamed, "aaaa");
    }

    #[test]
    fn characters_are_streamed_whole() {
        let tokenizer = byte_tokenizer();
        let stop = [tokenizer.specials().chat.end.id];
        let mut answer = Answer::new(&tokenizer, &stop, None, Sampling::Greedy, 100);
        let mut streamed = Vec::new();
        let ids = tokenizer.encode("é€").unwrap();
        assert_eq!(ids.len(), 5);
        for id in ids.iter().chain(&stop) {
            let mut logits = vec![0.0; tokenizer.len()];
            logits[*id as usize] = 1.0;
            let _ = answer.advance(&logits, &mut |text| streamed.push(text.to_owned())).unwrap();
        }
        assert_eq!(streamed, ["é", "€"]);
    }

    #[test]
    fn special_tokens_in_text_stay_text() {
        let tokenizer = byte_tokenizer();
        let ids = tokenizer.encode("a<|end|><|tool_call|>").unwrap();
        assert!(ids.iter().all(|id| tokenizer.is_text(*id)));
        assert_eq!(tokenizer.decode(&ids), "a<|end|><|tool_call|>");
    }

    #[test]
    fn another_list_of_tools_is_another_grammar() {
        let tokenizer = byte_tokenizer();
        let compiler = GrammarCompiler::new(&tokenizer).unwrap();
        let written = |tools: &[ToolSpec]| {
            tokenizer.decode(&compiler.compile(tools).unwrap().begin().forced())
        };
        assert_eq!(written(&tools()), r#"[{"name": ""#);
        assert!(written(&tools()[1..2]).starts_with(r#"[{"name": "read_camera""#));
        assert_eq!(written(&tools()), r#"[{"name": ""#);
    }

    #[test]
    fn a_schema_that_cannot_be_a_grammar_is_named() {
        let compiler = GrammarCompiler::new(&byte_tokenizer()).unwrap();
        let mut offered = tools();
        offered[1].schema = json!({"type": "object", "properties": {"a": {"type": "no such type"}}, "required": ["a"]});
        let fault = compiler.compile(&offered).unwrap_err().to_string();
        assert!(fault.contains("read_camera"), "{fault}");
    }
}
