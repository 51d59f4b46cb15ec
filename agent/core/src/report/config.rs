//! Which settings are in force, and where they come from.

use crate::config::{Faults, LiveSettings};

/// The settings in force, and the documents over the file.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigReport {
    /// The settings.
    pub live: LiveSettings,
    /// What is desired of the group; none: nothing.
    pub group: Option<Standing>,
    /// What is desired of the device; none: nothing.
    pub device: Option<Standing>,
    /// Settings in force that the model was not made for.
    pub warnings: Faults,
}

/// What became of the documents of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether one of them is in force.
    pub applied: bool,
    /// The id of that one, if it has one.
    pub desired: Option<String>,
    /// The latest, if it cannot be used.
    pub refused: Option<RefusedConfig>,
}

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedConfig {
    /// Its id, if it has one.
    pub desired: Option<String>,
    /// All that is wrong with it.
    pub faults: Faults,
}
