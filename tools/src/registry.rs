//! Tools by name, and the calling: known, valid, allowed, in time, at most once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::policy::{Origin, Policy, PolicyRules, Verdict};
use crate::tool::{
    Callable, Class, Context, Definition, ErrorKind, Spec, Tool, ToolError, ToolOutcome,
};

/// Why a tool cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// There is one of that name.
    #[error("there are two tools named `{0}`: rename one")]
    Duplicate(String),
    /// The model could not write the name.
    #[error("`{0}` is no name for a tool: use 1 to 64 letters, digits, `_` and `-`")]
    Name(String),
    /// The schema of the arguments cannot be used.
    #[error("the schema of `{name}` cannot be used: {reason}")]
    Schema {
        /// The tool.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// All tools. They come and go while others are called.
pub struct Registry {
    tools: RwLock<Vec<Arc<Entry>>>,
    policy: Mutex<Policy>,
    /// Ids of recent calls, oldest first.
    seen: Mutex<VecDeque<String>>,
}

/// Ids remembered; far more than can be under way.
const SEEN: usize = 4096;

struct Entry {
    definition: Definition,
    validator: jsonschema::Validator,
    tool: Box<dyn Callable>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read().iter().map(|entry| entry.name())).finish()
    }
}

impl Registry {
    /// No tools yet.
    pub fn new(rules: PolicyRules) -> Self {
        Self {
            tools: RwLock::default(),
            policy: Mutex::new(Policy::new(rules)),
            seen: Mutex::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Entry>>> {
        self.tools.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a tool with typed arguments.
    ///
    /// # Errors
    /// As [`add_defined`](Self::add_defined).
    pub fn add<T: Tool>(&self, tool: T) -> Result<(), AddError> {
        self.add_defined(Definition::of::<T>(), tool)
    }

    /// Adds a tool that is known by its definition only.
    ///
    /// # Errors
    /// When there is one of that name, or name or schema cannot be used.
    pub fn add_defined(
        &self,
        definition: Definition,
        tool: impl Callable + 'static,
    ) -> Result<(), AddError> {
        let name = definition.spec.name.clone();
        let is_usable = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        if !(1..=64).contains(&name.len()) || !name.chars().all(is_usable) {
            return Err(AddError::Name(name));
        }
        let validator = jsonschema::validator_for(&definition.spec.schema)
            .map_err(|fault| AddError::Schema { name: name.clone(), reason: fault.to_string() })?;
        let entry = Arc::new(Entry { definition, validator, tool: Box::new(tool) });
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        if tools.iter().any(|other| other.name() == name) {
            return Err(AddError::Duplicate(name));
        }
        tools.push(entry);
        Ok(())
    }

    /// Takes a tool away; calls of it that are under way go on. False if there was none.
    pub fn remove(&self, name: &str) -> bool {
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        let before = tools.len();
        tools.retain(|entry| entry.name() != name);
        tools.len() < before
    }

    /// The tools that can be offered to the model, in the order in which they were added.
    pub fn specs(&self) -> Vec<Spec> {
        let tools = self.read();
        let offered = tools.iter().filter(|entry| entry.definition.class != Class::Internal);
        offered.map(|entry| entry.definition.spec.clone()).collect()
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
            policy.decide(name, entry.definition.class, origin, Instant::now())
        };
        if let Verdict::Refuse(reason) = verdict {
            return Err(ToolError::new(ErrorKind::Refused, reason));
        }
        self.first_time(&context.call)?;
        let limit = entry.definition.limit.unwrap_or(limit);
        tokio::time::timeout(limit, entry.tool.call(arguments, context)).await.unwrap_or_else(
            |_| {
                Err(ToolError::new(
                    ErrorKind::Timeout,
                    format!("{name} took longer than {limit:?}"),
                ))
            },
        )
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.read().iter().find(|entry| entry.name() == name).cloned()
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
    fn name(&self) -> &str {
        &self.definition.spec.name
    }

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
        Err(ToolError::new(ErrorKind::Invalid, format!("{}: {}", self.name(), faults.join("; "))))
    }
}
