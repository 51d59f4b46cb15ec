//! What is wrong with a configuration.

use std::fmt::{self, Display};

/// Faults of a stranger's document that are told at most.
const MOST: usize = 32;
/// A longer key or value of it is cut, characters.
const LONGEST: usize = 200;

/// One unusable value: which, what it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands, as `agent.max_steps`; empty where nothing could be read.
    pub key: String,
    /// What stands there; empty where that says nothing.
    pub value: String,
    /// What to do.
    pub remedy: String,
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

/// The faults found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, key: impl Into<String>, value: impl Display, remedy: impl Into<String>) {
        self.0.push(Fault { key: key.into(), value: value.to_string(), remedy: remedy.into() });
    }

    /// Those of a document of a stranger, no more and no longer than a message can bear.
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

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
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
