//! What is wrong with a table of the configuration: found by its owner here, told by the program with all the others.

use std::fmt::{self, Display};

use serde::Deserialize;

use crate::tool::Class;

/// Maximum faults reported for an untrusted document.
const MOST: usize = 32;
/// Longest key or value reported for one, characters.
const LONGEST: usize = 200;

/// One value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, with all tables that it is in.
    pub key: String,
    /// What is there; empty where something is missing.
    pub value: String,
    /// What to do about it.
    pub remedy: String,
}

/// The faults found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, key: impl Into<String>, value: impl Display, remedy: impl Into<String>) {
        let (key, value, remedy) = (key.into(), value.to_string(), remedy.into());
        self.0.push(Fault { key, value, remedy });
    }

    /// Notes a fault where `fits` is false.
    pub fn require(
        &mut self,
        fits: bool,
        key: impl Into<String>,
        value: impl Display,
        remedy: &str,
    ) {
        if !fits {
            self.add(key, value, remedy);
        }
    }

    /// The faults of an untrusted document, cut to fit into a message.
    #[must_use]
    pub fn bounded(self) -> Self {
        let cut = |text: String, most: usize| text.chars().take(most).collect();
        let more = self.0.len().saturating_sub(MOST);
        let first = self.0.into_iter().take(MOST).map(|Fault { key, value, remedy }| Fault {
            key: cut(key, LONGEST),
            value: cut(value, LONGEST),
            remedy: cut(remedy, 4 * LONGEST),
        });
        let mut faults = Self(first.collect());
        if more > 0 {
            faults.add("", "", format!("and {more} more"));
        }
        faults
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, remedy } = self;
        match (key.is_empty(), value.is_empty()) {
            (true, _) => f.write_str(remedy),
            (false, true) => write!(f, "{key}: {remedy}"),
            (false, false) => write!(f, "{key} = {value}: {remedy}"),
        }
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "  {fault}")?;
        }
        Ok(())
    }
}

/// What a reader of JSON or TOML says, without the names of Rust's types: those are nobody's business outside.
pub fn plainly(fault: &str) -> String {
    const NUMBERS: [&str; 12] =
        ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];
    let mut said = Vec::new();
    let mut words = fault.split(' ').peekable();
    while let Some(word) = words.next() {
        let bare = word.trim_end_matches([',', ';', '.']);
        let tail = &word[bare.len()..];
        let plain = match bare {
            "f32" | "f64" => "a number",
            "map" if said.last().is_some_and(|last| last == "a") => "table of keys and values",
            "struct" | "tuple" | "newtype" | "enum" | "variant"
                if words.peek().is_some_and(|next| is_type(next)) =>
            {
                words.next();
                if bare == "struct" { "a table of keys and values" } else { "another form" }
            }
            number if NUMBERS.contains(&number) => "a whole number within its bounds",
            other => other,
        };
        said.push(format!("{plain}{tail}"));
    }
    said.join(" ")
}

/// Whether a word looks like the name of a type.
fn is_type(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_uppercase())
}

/// A document without the mark that some programs put before UTF-8.
pub fn unmarked(document: &[u8]) -> &[u8] {
    document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document)
}

/// The classes that a configuration can give a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassName {
    /// Anyone may call it.
    Open,
    /// Only who the rules allow.
    #[default]
    Guarded,
}

impl From<ClassName> for Class {
    fn from(name: ClassName) -> Self {
        match name {
            ClassName::Open => Self::Open,
            ClassName::Guarded => Self::Guarded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_rust_are_not_told() {
        for (fault, plain) in [
            (
                "invalid type: floating point `30.0`, expected u8",
                "invalid type: floating point `30.0`, expected a whole number within its bounds",
            ),
            (
                "invalid type: integer `3`, expected struct CallPayload at line 1",
                "invalid type: integer `3`, expected a table of keys and values at line 1",
            ),
            (
                "invalid type: string \"x\", expected f64",
                "invalid type: string \"x\", expected a number",
            ),
            (
                "invalid type: null, expected a map",
                "invalid type: null, expected a table of keys and values",
            ),
            (
                "unknown field `x`, expected one of `a`, `b`",
                "unknown field `x`, expected one of `a`, `b`",
            ),
        ] {
            assert_eq!(plainly(fault), plain);
        }
    }
}
