//! What is wrong with a configuration.

use std::fmt::{self, Display};

/// Maximum faults reported for an untrusted document.
const MOST: usize = 32;
/// Longest key or value reported for one, characters.
const LONGEST: usize = 200;

/// One invalid value: key, value and remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `agent.max_steps`; empty if nothing could be read.
    pub key: String,
    /// The value; empty if it says nothing.
    pub value: String,
    /// How to fix it.
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
    /// Adds a fault.
    pub fn add(&mut self, key: impl Into<String>, value: impl Display, remedy: impl Into<String>) {
        self.0.push(Fault { key: key.into(), value: value.to_string(), remedy: remedy.into() });
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
