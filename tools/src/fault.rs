//! What is wrong with a table of the configuration: found by its owner here, told by the program with all the others.

use std::fmt::Display;

use serde::Deserialize;

use crate::tool::Class;

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
