//! Tools by name, and the calling: known, valid, allowed, in time, at most once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::policy::{Origin, Policy, PolicyRules, Verdict};
use crate::schema;
use crate::tool::{BoxFuture, Class, Context, ErrorKind, Spec, Tool, ToolError, ToolOutcome};

/// A tool of this name is there already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are two tools named `{0}`: rename one")]
pub struct Duplicate(pub String);

/// All tools.
pub struct Registry {
    tools: Vec<Entry>,
    policy: Mutex<Policy>,
    /// Ids of recent calls, oldest first.
    seen: Mutex<VecDeque<String>>,
}

/// Ids remembered; far more than can be under way.
const SEEN: usize = 4096;

struct Entry {
    spec: Spec,
    class: Class,
    validator: jsonschema::Validator,
    tool: Box<dyn Callable>,
}

/// A [`Tool`] whose arguments' type is forgotten.
trait Callable: Send + Sync {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>>;
}

impl<T: Tool> Callable for T {
    fn call<'a>(
        &'a self,
        arguments: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        match serde_json::from_value(arguments) {
            Ok(arguments) => Box::pin(Tool::call(self, arguments, context)),
            Err(fault) => Box::pin(std::future::ready(Err(ToolError::new(
                ErrorKind::Invalid,
                fault.to_string(),
            )))),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tools.iter().map(|entry| &entry.spec.name)).finish()
    }
}

impl Registry {
    /// No tools yet.
    pub fn new(rules: PolicyRules) -> Self {
        Self { tools: Vec::new(), policy: Mutex::new(Policy::new(rules)), seen: Mutex::default() }
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`Duplicate`] when there is one of that name.
    pub fn add<T: Tool>(&mut self, tool: T) -> Result<(), Duplicate> {
        let duplicate = || Duplicate(T::NAME.to_owned());
        if self.entry(T::NAME).is_some() {
            return Err(duplicate());
        }
        let schema = schema::of::<T::Arguments>();
        let validator = jsonschema::validator_for(&schema).map_err(|_| duplicate())?;
        let spec = Spec { name: T::NAME.into(), description: T::DESCRIPTION.into(), schema };
        self.tools.push(Entry { spec, class: T::CLASS, validator, tool: Box::new(tool) });
        Ok(())
    }

    /// The tools that can be offered to the model, in the order in which they were added.
    pub fn specs(&self) -> impl Iterator<Item = &Spec> {
        self.tools.iter().filter(|entry| entry.class != Class::Internal).map(|entry| &entry.spec)
    }

    /// Carries out a call.
    ///
    /// # Errors
    /// [`ToolError`] saying why it was not carried out, or that it may have been and took too long.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        origin: Origin,
        context: &Context,
        limit: Duration,
    ) -> Result<ToolOutcome, ToolError> {
        let unknown =
            || ToolError::new(ErrorKind::Unknown, format!("there is no tool named `{name}`"));
        let entry = self.entry(name).ok_or_else(unknown)?;
        let arguments = Value::Object(arguments);
        entry.validate(&arguments)?;
        let verdict = {
            let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
            policy.decide(name, entry.class, origin, Instant::now())
        };
        if let Verdict::Refuse(reason) = verdict {
            return Err(ToolError::new(ErrorKind::Refused, reason));
        }
        self.first_time(&context.call)?;
        tokio::time::timeout(limit, entry.tool.call(arguments, context)).await.unwrap_or_else(
            |_| {
                Err(ToolError::new(
                    ErrorKind::Timeout,
                    format!("{name} took longer than {limit:?}"),
                ))
            },
        )
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.tools.iter().find(|entry| entry.spec.name == name)
    }

    fn first_time(&self, call: &str) -> Result<(), ToolError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|earlier| earlier == call) {
            let text = format!("call {call} was carried out before");
            return Err(ToolError::new(ErrorKind::Refused, text));
        }
        if seen.len() == SEEN {
            seen.pop_front();
        }
        seen.push_back(call.to_owned());
        Ok(())
    }
}

impl Entry {
    fn validate(&self, arguments: &Value) -> Result<(), ToolError> {
        let faults: Vec<String> = self
            .validator
            .iter_errors(arguments)
            .map(|fault| {
                let path = fault.instance_path().to_string();
                let place = if path.is_empty() {
                    "arguments".to_owned()
                } else {
                    path.trim_start_matches('/').to_owned()
                };
                format!("{place}: {fault}")
            })
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(ToolError::new(
            ErrorKind::Invalid,
            format!("{}: {}", self.spec.name, faults.join("; ")),
        ))
    }
}
