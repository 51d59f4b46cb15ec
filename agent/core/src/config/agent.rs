//! `[agent]`

use std::time::Duration;

use serde::Deserialize;

use crate::config::Faults;
use crate::config::duration::seconds;
use crate::toolset::{BOARD_TOOLS, bundled_tools};

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Names of the tools to offer; all if left out.
    pub tools: Option<Vec<String>>,
    /// Maximum rounds of tool calls per event.
    pub max_steps: usize,
    /// Deadline of a tool call.
    #[serde(with = "seconds", rename = "tool_timeout_seconds")]
    pub tool_timeout: Duration,
    /// Maximum number of calls that run in parallel.
    pub parallel_calls: usize,
    /// Retries of an idempotent call that timed out or could not reach its target.
    pub retries: u32,
    /// Calls of which the model is less sure are not made; 0 for off. A probability.
    pub min_confidence: f64,
    /// The same for guarded tools, if it is more.
    pub min_confidence_guarded: f64,
    /// Whether utterances are transcribed in reports; costs a second pass of the model.
    pub transcribe: bool,
    /// Time for work in progress at shutdown.
    #[serde(with = "seconds", rename = "grace_seconds")]
    pub grace: Duration,
    /// Interval of `metrics`; 0 for never.
    #[serde(with = "seconds", rename = "metrics_seconds")]
    pub metrics: Duration,
    /// Time limits per state.
    pub limits: Limits,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            tools: None,
            max_steps: 3,
            tool_timeout: Duration::from_secs(10),
            parallel_calls: 4,
            retries: 1,
            min_confidence: 0.0,
            min_confidence_guarded: 0.0,
            transcribe: false,
            grace: Duration::from_secs(2),
            metrics: Duration::from_mins(1),
            limits: Limits::default(),
        }
    }
}

impl AgentConfig {
    /// Validates. `more` lists the tools beyond the bundled ones and the board's, if all are known.
    pub(crate) fn check(&self, more: Option<&[String]>, faults: &mut Faults) {
        if !(1..=16).contains(&self.max_steps) {
            faults.add("agent.max_steps", self.max_steps, "use a value from 1 to 16");
        }
        if self.tool_timeout.is_zero() {
            faults.add("agent.tool_timeout_seconds", 0, "use more than 0");
        }
        if !(1..=16).contains(&self.parallel_calls) {
            faults.add("agent.parallel_calls", self.parallel_calls, "use a value from 1 to 16");
        }
        if self.retries > 5 {
            faults.add("agent.retries", self.retries, "use a value from 0 to 5");
        }
        for (key, least) in [
            ("agent.min_confidence", self.min_confidence),
            ("agent.min_confidence_guarded", self.min_confidence_guarded),
        ] {
            let remedy = "use a probability from 0 (off) to 1";
            faults.require((0.0..=1.0).contains(&least), key, least, remedy);
        }
        let seconds = self.metrics.as_secs_f64();
        if !(seconds == 0.0 || (1.0..=86_400.0).contains(&seconds)) {
            let remedy = "use a value from 1 to 86400, or 0 for never";
            faults.add("agent.metrics_seconds", seconds, remedy);
        }
        self.limits.check(faults);
        let Some(more) = more else { return };
        let known = bundled_tools();
        let bundled = known.iter().map(|tool| tool.name.as_str());
        let more = more.iter().map(String::as_str);
        let names: Vec<&str> = bundled.chain(BOARD_TOOLS).chain(more).collect();
        for name in self.tools.iter().flatten().filter(|name| !names.contains(&name.as_str())) {
            faults.add(
                "agent.tools",
                format!("{name:?}"),
                format!("no such tool; known are {}", names.join(", ")),
            );
        }
    }
}

/// `[agent.limits]`: time limits per state. `idle` and `muted` have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Speech without an end.
    #[serde(with = "seconds", rename = "listening_seconds")]
    pub listening: Duration,
    /// One pass of the model.
    #[serde(with = "seconds", rename = "thinking_seconds")]
    pub thinking: Duration,
    /// One round of tools.
    #[serde(with = "seconds", rename = "acting_seconds")]
    pub acting: Duration,
    /// How long the error state lasts.
    #[serde(with = "seconds", rename = "error_seconds")]
    pub error: Duration,
}

impl Limits {
    pub(crate) fn check(&self, faults: &mut Faults) {
        let limits = [
            ("listening", self.listening),
            ("thinking", self.thinking),
            ("acting", self.acting),
            ("error", self.error),
        ];
        for (state, _) in limits.iter().filter(|(_, limit)| limit.is_zero()) {
            faults.add(format!("agent.limits.{state}_seconds"), 0, "use more than 0");
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            listening: Duration::from_mins(1),
            thinking: Duration::from_mins(2),
            acting: Duration::from_mins(1),
            error: Duration::from_secs(5),
        }
    }
}
