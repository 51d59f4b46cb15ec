//! Tool calls under a grammar: from `<|tool_call|>` on, only tokens that continue a valid call of an offered tool.
//!
//! The grammar is `[` call (`, ` call)* `]` with call = `{"name": NAME, "arguments": ARGS}` and ARGS the tool's JSON Schema,
//! spaced as the model was trained (spec 5.4). What the grammar forces is returned as tokens, so that it can be appended in
//! one prefill instead of being sampled.

use std::sync::{Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::request::{ToolCall, ToolSpec};
use crate::tokenizer::Tokenizer;

/// More calls than this in one list are refused by the grammar.
pub const MAX_PARALLEL_CALLS: usize = 8;

/// Compiles tool lists into grammars for one tokenizer.
pub struct GrammarCompiler {
    factory: ParserFactory,
    /// The list compiled last: an agent offers the same one request after request.
    latest: Mutex<Option<(Vec<ToolSpec>, CallGrammar)>>,
}

impl std::fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// Prepares the tokenizer's trie.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the tokenizer cannot serve a grammar.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let mut factory =
            ParserFactory::new_simple(&tokenizer.grammar_env()).map_err(grammar_error)?;
        factory.quiet();
        Ok(Self { factory, latest: Mutex::default() })
    }

    /// The grammar of calls to any of `tools`, standing just behind `<|tool_call|>`.
    ///
    /// # Errors
    /// [`Error::Grammar`] naming the tool whose schema cannot be expressed.
    pub fn compile(&self, tools: &[ToolSpec]) -> Result<CallGrammar> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, grammar)) = &*latest
            && known == tools
        {
            return Ok(grammar.copy());
        }
        let start = self.matcher(tools).map_err(|fault| self.blame(tools).unwrap_or(fault))?;
        let grammar = CallGrammar { start };
        *latest = Some((tools.to_vec(), grammar.copy()));
        Ok(grammar)
    }

    fn matcher(&self, tools: &[ToolSpec]) -> Result<Matcher> {
        if tools.is_empty() {
            return Err(Error::Grammar("no tool is offered".into()));
        }
        let grammar = TopLevelGrammar::from_lark(lark(tools)?);
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(fault) => Err(Error::Grammar(fault)),
            None => Ok(matcher),
        }
    }

    /// The first tool that does not compile by itself.
    fn blame(&self, tools: &[ToolSpec]) -> Option<Error> {
        tools.iter().find_map(|tool| {
            let fault = self.matcher(std::slice::from_ref(tool)).err()?;
            Some(Error::Grammar(format!(
                "the schema of tool `{}` cannot be used: {fault}",
                tool.name
            )))
        })
    }
}

/// A compiled tool list; each call starts from a copy.
pub struct CallGrammar {
    start: Matcher,
}

impl std::fmt::Debug for CallGrammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallGrammar").finish_non_exhaustive()
    }
}

impl CallGrammar {
    /// A list of calls about to be written.
    pub fn begin(&self) -> CallState {
        CallState { matcher: self.start.deep_clone() }
    }

    fn copy(&self) -> Self {
        Self { start: self.start.deep_clone() }
    }
}

/// A list of calls being written.
pub struct CallState {
    matcher: Matcher,
}

impl std::fmt::Debug for CallState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallState").finish_non_exhaustive()
    }
}

impl CallState {
    /// Tokens that must come next whatever the model thinks; already taken.
    pub fn forced(&mut self) -> Vec<u32> {
        self.matcher.consume_ff_tokens()
    }

    /// Whether the list is complete.
    pub fn is_complete(&mut self) -> bool {
        self.matcher.is_stopped()
    }

    /// The tokens that may come next.
    ///
    /// # Errors
    /// [`Error::Grammar`] when the grammar engine gave up.
    pub fn allowed(&mut self) -> Result<SimpleVob> {
        self.matcher.compute_mask().map_err(grammar_error)
    }

    /// Takes the token that the model chose among the allowed ones.
    ///
    /// # Errors
    /// [`Error::Grammar`] when it is not allowed.
    pub fn take(&mut self, id: u32) -> Result<()> {
        self.matcher.consume_token(id).map_err(grammar_error)
    }
}

/// Reads a complete list of calls.
///
/// # Errors
/// [`Error::Grammar`] when the text is no such list, which the grammar rules out.
pub fn parse_calls(text: &str) -> Result<Vec<ToolCall>> {
    let malformed = || Error::Grammar(format!("the model's calls are malformed: {text}"));
    let list: Vec<Map<String, Value>> = serde_json::from_str(text).map_err(|_| malformed())?;
    list.into_iter()
        .map(|mut call| match (call.remove("name"), call.remove("arguments")) {
            (Some(Value::String(name)), Some(Value::Object(arguments))) => {
                Ok(ToolCall { name, arguments })
            }
            _ => Err(malformed()),
        })
        .collect()
}

/// The grammar in llguidance's Lark dialect.
fn lark(tools: &[ToolSpec]) -> Result<String> {
    use std::fmt::Write as _;

    let literal = |text: &str| Value::from(text).to_string();
    let names: Vec<String> = (0..tools.len()).map(|index| format!("tool_{index}")).collect();
    let mut text = format!(
        "start: \"[\" call (\", \" call){{0,{}}} \"]\"\ncall: {}\n",
        MAX_PARALLEL_CALLS - 1,
        names.join(" | ")
    );
    for (tool, rule) in tools.iter().zip(&names) {
        let head = format!("{{\"name\": {}, \"arguments\": ", literal(&tool.name));
        let schema = closed_schema(tool)?;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{rule}: {} {rule}_arguments \"}}\"\n{rule}_arguments: %json {schema}",
            literal(&head)
        );
    }
    Ok(text)
}

/// The tool's schema, with arguments that it does not name forbidden, and spaced as the model writes JSON.
fn closed_schema(tool: &ToolSpec) -> Result<Value> {
    let Value::Object(mut schema) = tool.schema.clone() else {
        return Err(Error::Grammar(format!("the schema of tool `{}` is not an object", tool.name)));
    };
    schema.entry("type").or_insert_with(|| "object".into());
    schema.entry("additionalProperties").or_insert(Value::Bool(false));
    schema.insert(
        "x-guidance".into(),
        json!({ "item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false }),
    );
    Ok(Value::Object(schema))
}

fn grammar_error(fault: impl std::fmt::Display) -> Error {
    Error::Grammar(fault.to_string())
}
