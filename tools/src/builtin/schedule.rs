//! `schedule`, `list_schedule` and `cancel_schedule`: what is to be asked of the agent later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::fault::Faults;
use crate::scheduled_prompts::{Entry, PlanError, ScheduledPrompts, When, moment};
use crate::tool::{Class, Context, ErrorKind, Tool, ToolError, ToolOutcome};

/// `[tools.schedule]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The file.
    pub path: Option<PathBuf>,
    /// Things that are planned at most.
    pub max_entries: usize,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { path: None, max_entries: 50 }
    }
}

impl ScheduleConfig {
    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        if self.path.is_none() {
            faults.add("tools.schedule.path", "", "name the file that keeps what is planned");
        }
        let fits = (1..=1000).contains(&self.max_entries);
        let key = "tools.schedule.max_entries";
        faults.require(fits, key, self.max_entries, "use a value from 1 to 1000");
    }
}

/// `schedule`
#[derive(Debug)]
pub struct Plan(pub Arc<ScheduledPrompts>);

/// Arguments of `schedule`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PlanArguments {
    /// What to do then, as a command
    prompt: String,
    /// Once, at this time: 07:30 or 2026-11-26T07:30
    at: Option<String>,
    /// Once, in so many minutes
    #[schemars(range(min = 1, max = 525_600))]
    in_minutes: Option<u32>,
    /// Again and again, as a cron pattern
    cron: Option<String>,
}

impl PlanArguments {
    fn plan(&self, prompts: &ScheduledPrompts, now: &Zoned) -> Result<Entry, ToolError> {
        let planned = match (&self.at, self.in_minutes, &self.cron) {
            (Some(at), None, None) => moment(at, now)
                .and_then(|moment| prompts.add(When::Once(moment), &self.prompt, now)),
            (None, Some(minutes), None) => {
                prompts.add_in(Duration::from_secs(60 * u64::from(minutes)), &self.prompt, now)
            }
            (None, None, Some(pattern)) => {
                prompts.add(When::Cron(pattern.trim().to_owned()), &self.prompt, now)
            }
            _ => {
                let text = "give one of at, in_minutes and cron";
                return Err(ToolError::new(ErrorKind::Invalid, text));
            }
        };
        planned.map_err(|fault| failure(&fault))
    }
}

fn failure(fault: &PlanError) -> ToolError {
    match fault {
        PlanError::Store(fault) => ToolError {
            kind: ErrorKind::Failed,
            for_model: "it could not be kept".into(),
            for_operator: fault.to_string(),
        },
        PlanError::Full(_) => ToolError::new(ErrorKind::Failed, fault.to_string()),
        _ => ToolError::new(ErrorKind::Invalid, fault.to_string()),
    }
}

fn shown(entry: &Entry) -> serde_json::Value {
    let local =
        |at: Timestamp| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%F %H:%M").to_string();
    let repeats = match &entry.when {
        When::Once(_) => None,
        When::Cron(pattern) => Some(pattern),
    };
    let mut shown = json!({ "id": entry.id, "next": local(entry.next), "prompt": entry.prompt });
    if let Some(pattern) = repeats {
        shown["cron"] = pattern.as_str().into();
    }
    shown
}

impl Tool for Plan {
    type Arguments = PlanArguments;
    const NAME: &'static str = "schedule";
    const DESCRIPTION: &'static str = "Plan a command for later.";
    /// Text that was read must not speak for somebody later.
    const CLASS: Class = Class::Guarded;

    async fn call(&self, arguments: PlanArguments, _: &Context) -> Result<ToolOutcome, ToolError> {
        let scheduled_prompts = Arc::clone(&self.0);
        let planned =
            tokio::task::spawn_blocking(move || arguments.plan(&scheduled_prompts, &Zoned::now()));
        let planned =
            planned.await.map_err(|fault| ToolError::new(ErrorKind::Failed, fault.to_string()))?;
        planned.map(|entry| ToolOutcome::data(shown(&entry)))
    }
}

/// `list_schedule`
#[derive(Debug)]
pub struct ListPlan(pub Arc<ScheduledPrompts>);

/// Arguments of `list_schedule`: none.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct NoArguments {}

impl Tool for ListPlan {
    type Arguments = NoArguments;
    const NAME: &'static str = "list_schedule";
    const DESCRIPTION: &'static str = "List what is planned.";
    const IDEMPOTENT: bool = true;

    async fn call(&self, _: NoArguments, _: &Context) -> Result<ToolOutcome, ToolError> {
        Ok(ToolOutcome::data(self.0.entries().iter().map(shown).collect()))
    }
}

/// `cancel_schedule`
#[derive(Debug)]
pub struct CancelPlan(pub Arc<ScheduledPrompts>);

/// Arguments of `cancel_schedule`.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CancelArguments {
    /// Its id, from the list
    id: u64,
}

impl Tool for CancelPlan {
    type Arguments = CancelArguments;
    const NAME: &'static str = "cancel_schedule";
    const DESCRIPTION: &'static str = "Take something out of the plan.";
    const CLASS: Class = Class::Guarded;
    const IDEMPOTENT: bool = true;

    async fn call(
        &self,
        arguments: CancelArguments,
        _: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        match self.0.cancel(arguments.id) {
            Ok(true) => Ok(ToolOutcome::done()),
            Ok(false) => Err(ToolError::new(ErrorKind::Failed, "nothing of that id is planned")),
            Err(fault) => Err(failure(&fault.into())),
        }
    }
}
