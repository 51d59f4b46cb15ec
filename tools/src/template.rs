//! `{argument}` in a text: the arguments of a call are put in, each in the form that its place needs.
//!
//! A placeholder is a name in braces. Braces around anything else are themselves.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::tool::{ErrorKind, ToolError};

/// What of a URL stays as it is when an argument is put in: the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Argument(String),
}

/// A JSON value whose texts are templates. A text that is one placeholder and nothing else becomes the argument as it is, with
/// its type; a field whose argument is not given is left out.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonTemplate {
    /// A value without placeholders.
    Value(Value),
    /// A text.
    Text(Template),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
}

impl Template {
    /// Reads a text.
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut literal = String::new();
        while let Some(open) = rest.find('{') {
            literal.push_str(&rest[..open]);
            let inside = &rest[open + 1..];
            let name = inside.find('}').map(|close| &inside[..close]).filter(|name| is_name(name));
            let Some(name) = name else {
                literal.push('{');
                rest = inside;
                continue;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Argument(name.to_owned()));
            rest = &inside[name.len() + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self(pieces)
    }

    /// The arguments that it names.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Argument(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text before the first placeholder.
    pub fn head(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The text, with what `form` makes of each argument; one that is not given is empty.
    ///
    /// # Errors
    /// Those of `form`.
    pub fn fill(
        &self,
        arguments: &Map<String, Value>,
        form: impl Fn(&str, String) -> Result<String, ToolError>,
    ) -> Result<String, ToolError> {
        self.0.iter().try_fold(String::new(), |filled, piece| {
            Ok(filled
                + &match piece {
                    Piece::Text(text) => text.clone(),
                    Piece::Argument(name) => arguments
                        .get(name)
                        .map_or(Ok(String::new()), |value| form(name, text(value)))?,
                })
        })
    }

    /// The text, with each argument as it is.
    pub fn plain(&self, arguments: &Map<String, Value>) -> String {
        self.fill(arguments, |_, text| Ok(text)).unwrap_or_default()
    }

    /// An MQTT topic. An argument is a part of one level.
    ///
    /// # Errors
    /// When an argument has what would make another topic of it.
    pub fn topic(&self, arguments: &Map<String, Value>) -> Result<String, ToolError> {
        self.fill(arguments, |name, text| {
            if text.is_empty() || text.contains(['/', '+', '#', '\0']) {
                let text = format!("{name}: use a text without / + and #: it is part of a topic");
                return Err(ToolError::new(ErrorKind::Invalid, text));
            }
            Ok(text)
        })
    }

    /// A URL. An argument is percent-encoded; `.` and `..` would mean another place.
    ///
    /// # Errors
    /// When an argument is one of these.
    pub fn url(&self, arguments: &Map<String, Value>) -> Result<String, ToolError> {
        self.fill(arguments, |name, text| match text.as_str() {
            "." | ".." => {
                let text = format!("{name}: {text:?} cannot be a part of a URL");
                Err(ToolError::new(ErrorKind::Invalid, text))
            }
            _ => Ok(utf8_percent_encode(&text, RESERVED).to_string()),
        })
    }

    /// One argument of a program. `None` if it names an argument that is not given.
    ///
    /// # Errors
    /// When an argument cannot be one of a program, or would be read as an option.
    pub fn argv(
        &self,
        arguments: &Map<String, Value>,
        options_end: bool,
    ) -> Result<Option<String>, ToolError> {
        if self.arguments().any(|name| !arguments.contains_key(name)) {
            return Ok(None);
        }
        let filled = self.plain(arguments);
        let is_option = !options_end && self.head().is_empty() && filled.starts_with('-');
        let named = || self.arguments().next().unwrap_or("argument");
        if is_option {
            let text =
                format!("{}: a value that begins with - would be read as an option", named());
            return Err(ToolError::new(ErrorKind::Invalid, text));
        }
        if filled.contains('\0') {
            let text = format!("{}: a value with a zero byte is no argument", named());
            return Err(ToolError::new(ErrorKind::Invalid, text));
        }
        Ok(Some(filled))
    }

    fn whole(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Argument(name)] => Some(name),
            _ => None,
        }
    }
}

impl JsonTemplate {
    /// Reads a value.
    pub fn new(value: &Value) -> Self {
        match value {
            Value::String(text) => {
                let template = Template::new(text);
                if template.arguments().next().is_none() {
                    Self::Value(value.clone())
                } else {
                    Self::Text(template)
                }
            }
            Value::Array(items) => Self::List(items.iter().map(Self::new).collect()),
            Value::Object(fields) => {
                let field = |(key, value): (&String, &Value)| (key.clone(), Self::new(value));
                Self::Object(fields.iter().map(field).collect())
            }
            other => Self::Value(other.clone()),
        }
    }

    /// The arguments that it names.
    pub fn arguments(&self) -> Vec<&str> {
        match self {
            Self::Value(_) => Vec::new(),
            Self::Text(template) => template.arguments().collect(),
            Self::List(items) => items.iter().flat_map(Self::arguments).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, item)| item.arguments()).collect(),
        }
    }

    /// The value with the arguments put in; `None` for an argument that was not given.
    pub fn fill(&self, arguments: &Map<String, Value>) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value.clone()),
            Self::Text(template) => match template.whole() {
                Some(name) => arguments.get(name).cloned(),
                None => Some(template.plain(arguments).into()),
            },
            Self::List(items) => {
                Some(items.iter().filter_map(|item| item.fill(arguments)).collect())
            }
            Self::Object(fields) => {
                let field =
                    |(key, item): &(String, Self)| Some((key.clone(), item.fill(arguments)?));
                Some(Value::Object(fields.iter().filter_map(field).collect()))
            }
        }
    }
}

/// A value as a text: a text is itself, anything else its JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text can name an argument.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(value: impl Into<Value>) -> Map<String, Value> {
        let Value::Object(arguments) = value.into() else { panic!("no object") };
        arguments
    }

    #[test]
    fn names_in_braces_are_placeholders_and_other_braces_are_themselves() {
        let template = Template::new(r#"{"a": {}} {room}-{ room } {x"#);
        assert_eq!(template.arguments().collect::<Vec<_>>(), ["room"]);
        assert_eq!(
            template.plain(&arguments(json!({"room": "{x}"}))),
            r#"{"a": {}} {x}-{ room } {x"#,
            "what is put in is not read again"
        );
    }

    #[test]
    fn a_topic_cannot_be_left_through_an_argument() {
        let topic = Template::new("home/{room}/set");
        let of = |room: Value| topic.topic(&arguments(json!({ "room": room })));
        assert_eq!(of(json!("kitchen")).unwrap(), "home/kitchen/set");
        assert_eq!(of(json!(4)).unwrap(), "home/4/set");
        for room in ["a/b", "#", "+", "", "a\0"] {
            assert!(of(json!(room)).is_err(), "{room:?}");
        }
    }

    #[test]
    fn a_url_cannot_be_left_through_an_argument() {
        let url = Template::new("https://example.org/{city}?q={city}");
        let of = |city: &str| url.url(&arguments(json!({ "city": city })));
        assert_eq!(of("a b/..?&#é").unwrap().matches("a%20b%2F..%3F%26%23%C3%A9").count(), 2);
        assert!(of("..").is_err() && of(".").is_err());
    }

    #[test]
    fn an_argument_of_a_program_is_one_and_no_option() {
        let entry = Template::new("{host}");
        let of = |host: &str, ended| entry.argv(&arguments(json!({ "host": host })), ended);
        assert_eq!(of("a b; rm -rf '$(x)'", false).unwrap().unwrap(), "a b; rm -rf '$(x)'");
        assert!(of("-oProxyCommand=x", false).is_err());
        assert_eq!(of("-x", true).unwrap().unwrap(), "-x");
        assert!(of("a\0b", true).is_err());
        assert_eq!(entry.argv(&Map::new(), false).unwrap(), None);
        let joined = Template::new("--to={host}").argv(&arguments(json!({"host": "-x"})), false);
        assert_eq!(joined.unwrap().unwrap(), "--to=-x");
    }

    #[test]
    fn json_keeps_types_and_leaves_out_what_is_not_given() {
        let template = JsonTemplate::new(&json!({
            "state": "{state}", "level": "{level}", "name": "a \"{state}\" b", "n": [1, "{level}"]
        }));
        let hostile = "on\", \"admin\": true, \"x\": \"";
        let filled = template.fill(&arguments(json!({ "state": hostile }))).unwrap();
        assert_eq!(
            filled,
            json!({"state": hostile, "name": format!("a \"{hostile}\" b"), "n": [1]})
        );
        let filled = template.fill(&arguments(json!({ "state": "on", "level": 40 }))).unwrap();
        assert_eq!((&filled["level"], &filled["n"]), (&json!(40), &json!([1, 40])));
    }
}
