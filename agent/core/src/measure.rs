//! How many tokens a text takes, and how many a prompt has room for.

use std::fmt;
use std::sync::Arc;

use outpost_runtime::prompt::spaced_json;
use serde_json::{Map, Value};

use crate::config::ModelConfig;

/// Counts tokens as the model does. Clones share the tokenizer.
#[derive(Clone)]
pub struct Measure {
    count: Arc<dyn Fn(&str) -> usize + Send + Sync>,
    /// Tokens of prompt and answer together.
    context: usize,
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measure").field("context", &self.context).finish_non_exhaustive()
    }
}

/// For models without a tokenizer: four bytes a token, and the default context.
impl Default for Measure {
    fn default() -> Self {
        Self::new(|text| text.len().div_ceil(4), ModelConfig::default().context)
    }
}

impl Measure {
    /// Counts with `count`, for a model of this context.
    pub fn new(count: impl Fn(&str) -> usize + Send + Sync + 'static, context: usize) -> Self {
        Self { count: Arc::new(count), context }
    }

    /// Tokens of a text.
    pub fn tokens(&self, text: &str) -> usize {
        (self.count)(text)
    }

    /// Tokens that the definition of one foreign tool may have.
    pub fn definition(&self) -> usize {
        self.context / 8
    }

    /// Tokens that the definitions of all tools may have before foreign ones are left out.
    pub fn definitions(&self) -> usize {
        self.context / 2
    }

    /// Tokens that the results of all calls of a turn may have.
    pub fn results(&self) -> usize {
        self.context / 4
    }

    /// Results of calls for the model, each cut to its share of `room`, which is what the turn has left for results.
    pub fn results_within(&self, results: Vec<Value>, room: &mut usize) -> Vec<Value> {
        let count = results.len();
        let fit = |(index, result): (usize, Value)| {
            let result = self.cut(result, *room / (count - index));
            *room = room.saturating_sub(self.tokens(&spaced_json(&result)));
            result
        };
        results.into_iter().enumerate().map(fit).collect()
    }

    /// A result of at most so many tokens. Where it has more, its beginning, and `cut` says so.
    fn cut(&self, result: Value, most: usize) -> Value {
        let fits = |result: &Value| self.tokens(&spaced_json(result)) <= most;
        if fits(&result) {
            return result;
        }
        let note = format!(
            "the result was too long: it had {} tokens, and this is its beginning",
            self.tokens(&spaced_json(&result))
        );
        let mut kept = Map::from_iter([("cut".to_owned(), note.into())]);
        let mut texts = Vec::new();
        let fields = match result {
            Value::Object(fields) => fields,
            other => Map::from_iter([("data".to_owned(), other)]),
        };
        for (name, value) in fields {
            match value {
                Value::Bool(_) => drop(kept.insert(name, value)),
                Value::String(text) => texts.push((name, text)),
                other => texts.push((name, spaced_json(&other))),
            }
        }
        // Short parts stay whole.
        texts.sort_by_key(|(_, text)| text.len());
        let beginning = |mut bytes: usize| {
            let mut fields = kept.clone();
            for (name, text) in &texts {
                let end = text.floor_char_boundary(bytes.min(text.len()));
                bytes -= end;
                fields.insert(name.clone(), text[..end].into());
            }
            Value::Object(fields)
        };
        let (mut short, mut long) = (0, texts.iter().map(|(_, text)| text.len()).sum::<usize>());
        while short + 1 < long {
            let middle = usize::midpoint(short, long);
            if fits(&beginning(middle)) {
                short = middle;
            } else {
                long = middle;
            }
        }
        beginning(short)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_share_what_the_turn_has_room_for_and_say_what_was_cut() {
        let measure = Measure::new(str::len, 4000);
        let mut room = measure.results();
        let short = json!({"ok": true, "text": "21 degrees"});
        let long = json!({"ok": true, "text": "\u{1f468}\"".repeat(1000), "data": [1, 2]});
        let all = measure.results_within(vec![short.clone(), long.clone()], &mut room);
        assert_eq!(all[0], short);
        assert_eq!((&all[1]["ok"], &all[1]["data"]), (&json!(true), &json!("[1, 2]")));
        let text = all[1]["text"].as_str().unwrap();
        assert!(text.len() > 500 && long["text"].as_str().unwrap().starts_with(text), "{all:?}");
        assert!(all[1]["cut"].as_str().unwrap().contains("too long"), "{all:?}");
        let used: usize = all.iter().map(|result| spaced_json(result).len()).sum();
        assert!((990..=1000).contains(&used) && room == 1000 - used, "{used} {room}");

        // Later results of the turn have what is left, be they values, lists or errors.
        for result in [long, json!({"ok": false, "error": "x".repeat(5000)}), json!("x".repeat(99))]
        {
            let cut = measure.results_within(vec![result.clone()], &mut room).remove(0);
            assert_eq!(cut.get("ok"), result.get("ok"));
            assert!(spaced_json(&cut).len() < 200 && cut["cut"].is_string(), "{cut}");
        }
    }
}
