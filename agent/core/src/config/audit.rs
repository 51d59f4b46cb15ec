//! `[audit]`

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Faults;

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// The file. Default: `audit.jsonl` in systemd's state directory, else no log.
    pub path: Option<PathBuf>,
    /// Size at which the file is rotated, MiB.
    pub max_mib: u64,
    /// Number of rotated files to keep.
    pub keep: u32,
    /// Arguments whose values are redacted.
    pub redact: Vec<String>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { path: None, max_mib: 8, keep: 4, redact: Vec::new() }
    }
}

impl AuditConfig {
    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(1..=1024).contains(&self.max_mib) {
            faults.add("audit.max_mib", self.max_mib, "use a value from 1 to 1024");
        }
        if self.keep > 100 {
            faults.add("audit.keep", self.keep, "use a value from 0 to 100");
        }
    }
}
