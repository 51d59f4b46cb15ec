//! The Model Context Protocol, in both directions: tools of other servers here, and our own for other agents. Nothing outside
//! names rmcp.

pub mod client;
mod content;
pub mod server;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use crate::fault::{ClassName, Faults};
use crate::http::shown;
use crate::secret::Header;

/// `[[mcp]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct McpConfig {
    /// Names the server.
    pub name: String,
    /// The program to start, which speaks over its standard streams.
    pub command: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beside `PATH`, `HOME` and `LANG`.
    pub environment: BTreeMap<String, String>,
    /// Its working directory; none: that of the agent.
    pub folder: Option<PathBuf>,
    /// The address of a server that is there already.
    pub url: Option<String>,
    /// Headers for it.
    pub headers: BTreeMap<String, Header>,
    /// The only tools of it that are offered, by their names there; none: all.
    pub tools: Option<Vec<String>>,
    /// Tools of it that are offered at most.
    pub max_tools: usize,
    /// What the names of its tools begin with here; none: its name and `_`.
    pub prefix: Option<String>,
    /// Who may call its tools.
    pub class: ClassName,
    /// Whether its definitions are trusted as the operator's own are.
    pub trusted: bool,
    /// A call that takes longer has failed.
    pub timeout_seconds: f64,
}

impl Default for McpConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: None,
            args: Vec::new(),
            environment: BTreeMap::new(),
            folder: None,
            url: None,
            headers: BTreeMap::new(),
            tools: None,
            max_tools: 16,
            prefix: None,
            class: ClassName::Guarded,
            trusted: false,
            timeout_seconds: 30.0,
        }
    }
}

impl McpConfig {
    /// What the names of its tools begin with here.
    pub fn prefix(&self) -> String {
        self.prefix.clone().unwrap_or_else(|| format!("{}_", self.name))
    }

    fn limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_seconds).unwrap_or_default()
    }

    /// Notes what cannot be used; it stands at `key`.
    pub fn check(&self, key: &str, faults: &mut Faults) {
        let fits = crate::registry::is_name(&self.name) && self.name.len() <= 32;
        let remedy = "use 1 to 32 letters, digits, _ and -";
        faults.require(fits, format!("{key}.name"), format!("{:?}", self.name), remedy);
        let prefix = self.prefix();
        let fits = prefix.is_empty() || (crate::registry::is_name(&prefix) && prefix.len() <= 33);
        let remedy = "use at most 33 letters, digits, _ and -";
        faults.require(fits, format!("{key}.prefix"), format!("{prefix:?}"), remedy);
        if self.command.is_some() == self.url.is_some() {
            faults.add(
                key,
                "",
                "give either command, for a program, or url, for a server that is there",
            );
        }
        if let Some(url) = &self.url {
            let parsed = Url::parse(url).ok();
            let fits = parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https"));
            let remedy = "use a whole http or https address";
            faults.require(fits, format!("{key}.url"), format!("{:?}", shown(url)), remedy);
        }
        for (name, header) in &self.headers {
            header.check(name, &format!("{key}.headers.{name}"), faults);
        }
        let fits = (1..=64).contains(&self.max_tools);
        faults.require(
            fits,
            format!("{key}.max_tools"),
            self.max_tools,
            "use a value from 1 to 64",
        );
        let fits = (0.1..=600.0).contains(&self.timeout_seconds);
        let (key, value) = (format!("{key}.timeout_seconds"), self.timeout_seconds);
        faults.require(fits, key, value, "use a value from 0.1 to 600");
    }
}

/// What a client or server goes by.
fn ourselves() -> rmcp::model::Implementation {
    rmcp::model::Implementation::new("outpost", env!("CARGO_PKG_VERSION"))
}
