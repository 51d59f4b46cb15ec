//! What a model was made for, as its publisher states it in `capabilities.json` beside `config.json`; an import carries it into the
//! manifest. A model without the file is taken to be able to do anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, Result};

/// What a model was made for. What isn't stated is anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Tools that it calls.
    pub tools: Names,
    /// Tasks that it does, by the names of `outpost tasks`.
    pub tasks: Names,
    /// Whether it answers questions in its own words.
    pub chat: bool,
    /// Languages that it understands, after ISO 639-1.
    pub languages: Names,
    /// What it says once a call has succeeded. Said without such a call, it is a false claim. A `*` at the end stands for any text.
    pub acknowledgements: Vec<String>,
    /// Values that it knows, by tool and argument; any for arguments that are not named.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
}

/// Some names, or any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Names {
    /// Any.
    #[default]
    Any,
    /// These.
    Only(Vec<String>),
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            tools: Names::Any,
            tasks: Names::Any,
            chat: true,
            languages: Names::Any,
            acknowledgements: Vec::new(),
            words: BTreeMap::new(),
        }
    }
}

impl Capabilities {
    /// Name of the file in a checkpoint's folder.
    pub const FILE: &str = "capabilities.json";

    /// Reads the statement in a checkpoint's folder; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Config`] naming the key that cannot be used.
    pub fn of_checkpoint(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(Self::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        Self::parse(&text, &path).map(Some)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        serde_json::from_str(text).map_err(|fault| Error::config(path, fault.to_string()))
    }

    /// Whether a text acknowledges a call. Case, white space around it and stops at its end do not matter.
    pub fn acknowledges(&self, text: &str) -> bool {
        let plain = |text: &str| text.trim().trim_end_matches(['.', '!']).to_lowercase();
        let text = plain(text);
        self.acknowledgements.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => text.starts_with(&start.to_lowercase()),
            None => text == plain(known),
        })
    }
}

impl Names {
    /// Whether a name is among them.
    pub fn include(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.iter().any(|known| known == name),
        }
    }

    /// Whether there is any name among them.
    pub fn include_some(&self) -> bool {
        *self != Self::Only(Vec::new())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(names) if names.is_empty() => f.write_str("none"),
            Self::Only(names) => f.write_str(&names.join(", ")),
        }
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Only(names) => names.serialize(serializer),
        }
    }
}

/// `"any"`, or a list of names.
struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"any\" or a list of names")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Names, E> {
        if text == "any" {
            Ok(Names::Any)
        } else {
            Err(E::custom("use \"any\" or a list of names"))
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = seq.next_element::<String>()? {
            if name.is_empty() {
                return Err(A::Error::custom("a name is empty"));
            }
            names.push(name);
        }
        Ok(Names::Only(names))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Capabilities> {
        Capabilities::parse(text, Path::new("capabilities.json"))
    }

    #[test]
    fn what_is_not_stated_is_anything() {
        let stated = parse(r#"{"tools": ["set_light"], "tasks": "any", "chat": false}"#).unwrap();
        assert!(stated.tools.include("set_light") && !stated.tools.include("set_fan"));
        assert!(stated.tasks.include("ocr") && !stated.chat);
        assert_eq!(stated.languages, Names::Any);
        assert_eq!(parse("{}").unwrap(), Capabilities::default());
        let text = serde_json::to_string(&stated).unwrap();
        assert_eq!(parse(&text).unwrap(), stated);
    }

    #[test]
    fn a_slip_in_a_statement_is_named() {
        for (text, part) in [
            (r#"{"tool": []}"#, "unknown field `tool`"),
            (r#"{"tools": "all"}"#, "\"any\" or a list of names"),
            (r#"{"tasks": 3}"#, "\"any\" or a list of names"),
            (r#"{"tools": [""]}"#, "a name is empty"),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.contains(part) && fault.contains("capabilities.json"), "{fault}");
        }
    }

    #[test]
    fn acknowledgements_are_told_from_other_sentences() {
        let stated = parse(r#"{"acknowledgements": ["Done.", "It says *"]}"#).unwrap();
        for text in ["Done.", " done", "DONE!", "It says EXIT 4."] {
            assert!(stated.acknowledges(text), "{text}");
        }
        for text in ["", "Done with it.", "That did not work.", "He says so."] {
            assert!(!stated.acknowledges(text), "{text}");
        }
        assert!(!Capabilities::default().acknowledges("Done."));
    }
}
