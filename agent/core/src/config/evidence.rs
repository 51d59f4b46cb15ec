//! `[evidence]`

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Faults;

/// `[evidence]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceConfig {
    /// Where pictures of alerts are kept; none: `evidence` in the state directory that systemd gives the service, else nowhere.
    pub folder: Option<PathBuf>,
    /// All of them together, megabytes; beyond that the oldest is deleted.
    pub limit_mb: u64,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self { folder: None, limit_mb: 200 }
    }
}

impl EvidenceConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.limit_mb == 0 {
            faults.add("evidence.limit_mb", 0, "use 1 or more");
        }
    }
}
