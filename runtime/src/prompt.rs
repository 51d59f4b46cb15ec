//! The chat template of spec 5.3 and 5.4, rendered straight to token ids, with placeholders already expanded.

use serde::Serialize as _;
use serde_json::ser::Formatter;
use serde_json::{Map, Value, json};

use crate::chat_format::Piece;
use crate::error::{Error, Result};
use crate::request::{Audio, Image, Part, Request, Role, ToolCall, ToolSpec, Turn};
use crate::tokenizer::{Special, Tokenizer};

/// What a prompt says where tools are offered and the request has no system turn.
pub const DEFAULT_SYSTEM: &str = "You are a helpful assistant with some tools.";

/// A prompt: ids with each placeholder repeated once per feature row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Token ids, placeholders expanded.
    pub ids: Vec<u32>,
    /// The media, in the order of their placeholders.
    pub media: Vec<Placed>,
    /// The adapter of the user's own that the request asks for.
    pub adapter: Option<String>,
    /// Length of the leading system turn, which stays the same from request to request; 0 without one, or with media in it.
    pub prefix: usize,
}

/// A medium and the rows that it fills.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The first of its rows in the prompt.
    pub start: usize,
    /// How many rows.
    pub rows: usize,
    /// What goes there.
    pub medium: Medium,
}

/// A sound or a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Medium {
    /// A sound.
    Audio(Audio),
    /// A picture.
    Image(Image),
}

/// Counts the feature rows of a medium before it is encoded.
pub trait RowCount {
    /// Rows of a sound.
    ///
    /// # Errors
    /// When the model does not hear or the sound is unusable.
    fn audio_rows(&self, audio: &Audio) -> Result<usize>;

    /// Rows of a picture.
    ///
    /// # Errors
    /// When the model does not see or the picture is unusable.
    fn image_rows(&self, image: &Image) -> Result<usize>;
}

/// Renders a request as `<|role|>content<|end|>` turns and the generation prompt `<|assistant|>`.
///
/// # Errors
/// [`Error::Request`] when the request has no turn, or media or tools that the tokenizer has no token for; the errors of
/// `rows`.
pub fn render(request: &Request, tokenizer: &Tokenizer, rows: &dyn RowCount) -> Result<Prompt> {
    let Some(last) = request.turns.last() else {
        return Err(Error::Request("there is no turn to answer".into()));
    };
    if last.role == Role::Assistant {
        return Err(Error::Request(
            "the last turn is the assistant's own: nothing to answer".into(),
        ));
    }
    let mut writer = Writer {
        tokenizer,
        rows,
        ids: Vec::new(),
        media: Vec::new(),
        text: String::new(),
        rstrip: false,
    };
    writer.mark(&tokenizer.specials().chat.start)?;
    let mut turns = request.turns.as_slice();
    let default = Turn::text(Role::System, DEFAULT_SYSTEM);
    let system = match turns.split_first() {
        Some((first, rest)) if first.role == Role::System => {
            turns = rest;
            Some(first)
        }
        _ if !request.tools.is_empty() => Some(&default),
        _ => None,
    };
    if let Some(system) = system {
        writer.system(system, &request.tools)?;
    }
    // A medium is encoded with what follows the prefix, so that a system turn that holds one is none.
    let prefix = if writer.media.is_empty() { writer.ids.len() } else { 0 };
    for turn in turns {
        writer.turn(turn)?;
    }
    writer.mark(&tokenizer.specials().chat.assistant)?;
    writer.flush()?;
    Ok(Prompt { ids: writer.ids, media: writer.media, adapter: request.adapter.clone(), prefix })
}

/// The tool list as the model is shown it: Microsoft's flat form, one JSON array with `", "` and `": "` between its parts.
pub fn tool_list(tools: &[ToolSpec]) -> String {
    spaced_json(&Value::Array(tools.iter().map(flat).collect()))
}

/// A list of calls in the form that the model writes between its call markers.
pub fn call_list(calls: &[ToolCall]) -> String {
    let list = calls
        .iter()
        .map(|call| json!({ "name": call.name, "arguments": call.arguments }))
        .collect();
    spaced_json(&Value::Array(list))
}

struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    rows: &'a dyn RowCount,
    ids: Vec<u32>,
    media: Vec<Placed>,
    /// Text not yet tokenized: neighbours are joined first, since tokens may span them.
    text: String,
    rstrip: bool,
}

impl Writer<'_> {
    fn system(&mut self, turn: &Turn, tools: &[ToolSpec]) -> Result<()> {
        let specials = self.tokenizer.specials();
        self.mark(&specials.chat.system)?;
        self.parts(&turn.parts)?;
        if !tools.is_empty() {
            let marks = specials.tools.ok_or_else(no_tools)?;
            self.special(marks.tool)?;
            self.text.push_str(&tool_list(tools));
            self.special(marks.tool_end)?;
        }
        self.mark(&specials.chat.tail)
    }

    fn turn(&mut self, turn: &Turn) -> Result<()> {
        let specials = self.tokenizer.specials();
        match turn.role {
            Role::System => self.mark(&specials.chat.system)?,
            Role::User => self.mark(&specials.chat.user)?,
            Role::Assistant => self.mark(&specials.chat.assistant)?,
            Role::ToolResponse => self.special(specials.tools.ok_or_else(no_tools)?.response)?,
        }
        self.parts(&turn.parts)?;
        self.mark(&specials.chat.tail)
    }

    /// What stands around a turn.
    fn mark(&mut self, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            match piece {
                Piece::Special(token) => self.special(*token)?,
                Piece::Text(text) => self.text.push_str(text),
            }
        }
        Ok(())
    }

    fn parts(&mut self, parts: &[Part]) -> Result<()> {
        let specials = self.tokenizer.specials();
        for part in parts {
            match part {
                Part::Text(text) => self.text.push_str(text),
                Part::Audio(audio) => {
                    let rows = self.rows.audio_rows(audio)?;
                    self.medium(specials.audio, rows, Medium::Audio(audio.clone()))?;
                }
                Part::Image(image) => {
                    let rows = self.rows.image_rows(image)?;
                    self.medium(specials.image, rows, Medium::Image(image.clone()))?;
                }
                Part::Calls(calls) => {
                    let marks = specials.tools.ok_or_else(no_tools)?;
                    self.special(marks.call)?;
                    self.text.push_str(&call_list(calls));
                    self.special(marks.call_end)?;
                }
            }
        }
        Ok(())
    }

    fn medium(&mut self, placeholder: Option<Special>, rows: usize, medium: Medium) -> Result<()> {
        let placeholder = placeholder.ok_or_else(|| {
            Error::Request("the tokenizer has no placeholder for this kind of media".into())
        })?;
        self.special(placeholder)?;
        let start = self.ids.len() - 1;
        self.ids.resize(start + rows, placeholder.id);
        self.media.push(Placed { start, rows, medium });
        Ok(())
    }

    fn special(&mut self, token: Special) -> Result<()> {
        if token.lstrip {
            self.text.truncate(self.text.trim_end().len());
        }
        self.flush()?;
        self.ids.push(token.id);
        self.rstrip = token.rstrip;
        Ok(())
    }

    /// Tokenizes the text behind the last special token.
    fn flush(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let text = if self.rstrip { text.trim_start() } else { &text };
        if !text.is_empty() {
            self.ids.extend(self.tokenizer.encode(text)?);
        }
        Ok(())
    }
}

fn no_tools() -> Error {
    Error::Request("the model's tokenizer has no tool tokens, so tools cannot be offered".into())
}

/// `{"name", "description", "parameters": {argument: {"description", "type", "enum"?, "default"?, "optional"?}}}`
fn flat(tool: &ToolSpec) -> Value {
    let required = tool.schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|list| list.iter().any(|item| item == name));
    let empty = Map::new();
    let properties = tool.schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let parameters: Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| (name.clone(), flat_argument(schema, is_required(name))))
        .collect();
    json!({ "name": tool.name, "description": tool.description, "parameters": parameters })
}

fn flat_argument(schema: &Value, required: bool) -> Value {
    let mut argument = Map::new();
    argument.insert(
        "description".into(),
        schema.get("description").cloned().unwrap_or_else(|| "".into()),
    );
    argument.insert("type".into(), type_name(schema).into());
    for key in ["enum", "default"] {
        if let Some(value) = schema.get(key) {
            argument.insert(key.into(), value.clone());
        }
    }
    if !required {
        argument.insert("optional".into(), true.into());
    }
    Value::Object(argument)
}

/// The Python-like type names of the model card's examples.
fn type_name(schema: &Value) -> &str {
    let name = match schema.get("type") {
        Some(Value::Array(names)) => {
            names.iter().find(|name| *name != "null").and_then(Value::as_str)
        }
        Some(name) => name.as_str(),
        None => None,
    };
    match name {
        Some("string") => "str",
        Some("integer") => "int",
        Some("number") => "float",
        Some("boolean") => "bool",
        Some("array") => "list",
        Some("object") => "dict",
        _ => "any",
    }
}

/// JSON with `", "` and `": "` between its parts, as the model was shown it in tool lists, calls and tool results.
pub fn spaced_json(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// Python's `json.dumps` separators, in which the model was shown JSON.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{byte_tokenizer, byte_tokenizer_json};

    struct TwoRows;

    impl RowCount for TwoRows {
        fn audio_rows(&self, _: &Audio) -> Result<usize> {
            Ok(2)
        }

        fn image_rows(&self, _: &Image) -> Result<usize> {
            Ok(2)
        }
    }

    #[test]
    fn a_system_turn_with_a_medium_is_no_prefix() {
        let tokenizer = byte_tokenizer();
        let rules = Part::Text("hi".into());
        let sound = Part::Audio(Audio { samples: vec![0.0].into(), rate: 16_000 });
        let render_system = |parts: Vec<Part>| {
            let system = Turn { role: Role::System, parts };
            let request = Request::new(vec![system, Turn::text(Role::User, "x")]);
            render(&request, &tokenizer, &TwoRows).unwrap()
        };
        // `<|system|>`, two bytes, `<|end|>`.
        assert_eq!(render_system(vec![rules.clone()]).prefix, 4);
        let prompt = render_system(vec![rules, sound]);
        assert_eq!((prompt.prefix, prompt.media[0].start, prompt.media[0].rows), (0, 3, 2));
    }

    /// What a model is shown, special tokens by name.
    fn written(specials: &[&str], turns: Vec<Turn>) -> String {
        let tokenizer = Tokenizer::parse(&byte_tokenizer_json(specials)).unwrap();
        let prompt = render(&Request::new(turns), &tokenizer, &TwoRows).unwrap();
        let name = |id: &u32| match specials.get((*id as usize).wrapping_sub(256)) {
            Some(name) => (*name).to_owned(),
            None => tokenizer.decode(&[*id]),
        };
        prompt.ids.iter().map(name).collect()
    }

    #[test]
    fn every_family_has_its_own_marks() {
        let turns = || {
            vec![
                Turn::text(Role::System, "Be brief."),
                Turn::text(Role::User, "a"),
                Turn::text(Role::Assistant, "b"),
                Turn::text(Role::User, "c"),
            ]
        };
        let phi_4 = written(&["<|im_start|>", "<|im_sep|>", "<|im_end|>"], turns());
        assert_eq!(
            phi_4,
            "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>a<|im_end|>\
             <|im_start|>assistant<|im_sep|>b<|im_end|><|im_start|>user<|im_sep|>c<|im_end|>\
             <|im_start|>assistant<|im_sep|>"
        );
        let chat_ml = written(&["<|im_start|>", "<|im_end|>"], turns());
        assert_eq!(
            chat_ml,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n\
             <|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
        );
        let marks = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
        let llama_3 = written(&marks, vec![Turn::text(Role::User, "a")]);
        assert_eq!(
            llama_3,
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>\
             <|start_header_id|>assistant<|end_header_id|>\n\n"
        );
    }

    #[test]
    fn tools_are_shown_in_the_flat_form() {
        let tool = ToolSpec {
            name: "set_light".into(),
            description: "Switch a light.".into(),
            schema: json!({
                "type": "object",
                "properties": {
                    "room": {"type": "string", "description": "Room", "enum": ["a", "b"]},
                    "brightness": {"type": ["integer", "null"], "description": "Percent", "minimum": 0}
                },
                "required": ["room"]
            }),
        };
        assert_eq!(
            tool_list(&[tool]),
            r#"[{"name": "set_light", "description": "Switch a light.", "parameters": {"room": {"description": "Room", "type": "str", "enum": ["a", "b"]}, "brightness": {"description": "Percent", "type": "int", "optional": true}}}]"#
        );
    }
}
