//! `[evidence]`

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Faults;

/// `[evidence]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvidenceConfig {
    /// Folder for pictures of alerts. Default: `evidence` in systemd's state directory, else
    /// nothing is kept.
    pub folder: Option<PathBuf>,
    /// Total size in megabytes; the oldest pictures are deleted beyond it.
    pub limit_mb: u64,
    /// Whether the picture of each alert is published too, on `alert/image`.
    pub publish: bool,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self { folder: None, limit_mb: 200, publish: false }
    }
}

impl EvidenceConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if self.limit_mb == 0 {
            faults.add("evidence.limit_mb", 0, "use 1 or more");
        }
    }
}
