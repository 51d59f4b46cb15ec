//! Tools by name, and what comes before a call: known, valid, allowed, and not there before.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::arguments::{Arguments, whole};
use crate::call::{Judged, Permit, RetryPolicy, Unconfirmed};
use crate::plain::short;
use crate::policy::{Caller, Moment, Origin, Policy, PolicyRules, Proposed, Verdict};
use crate::tool::{
    Callable, Class, Context, Definition, ErrorKind, Source, Spec, Tool, ToolError, ToolOutcome,
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

/// Letters of a name at most.
pub(crate) const MAX_NAME: usize = 64;

/// Whether the model could write a name: 1 to 64 letters, digits, `_` and `-`.
pub fn is_name(name: &str) -> bool {
    let is_usable = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_usable)
}

/// All tools. They come and go while others are called.
pub struct Registry {
    tools: RwLock<Vec<Arc<Entry>>>,
    policy: Mutex<Policy>,
    /// Ids of recent calls, oldest first.
    seen: Mutex<VecDeque<String>>,
}

/// A longer reason is cut, characters.
const MAX_FAULT: usize = 300;
/// Ids remembered; far more than can be under way.
const SEEN: usize = 4096;

pub(crate) struct Entry {
    pub(crate) definition: Definition,
    arguments: Arguments,
    pub(crate) tool: Arc<dyn Callable>,
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
        self.put_defined(definition, tool, false)
    }

    /// As [`add_defined`](Self::add_defined). Where it `replaces`, it takes the place of the tool of that name, if there is one:
    /// at no moment there is none.
    ///
    /// # Errors
    /// As there; then an earlier one is still there.
    pub fn put_defined(
        &self,
        definition: Definition,
        tool: impl Callable + 'static,
        replaces: bool,
    ) -> Result<(), AddError> {
        let name = definition.spec.name.clone();
        if !is_name(&name) {
            return Err(AddError::Name(name));
        }
        let unusable = |reason| AddError::Schema { name: name.clone(), reason };
        let arguments = match definition.full.as_ref().map(Arguments::of) {
            Some(Ok(arguments)) => arguments,
            full => {
                if let Some(Err(fault)) = full {
                    let fault = short(&fault, MAX_FAULT);
                    tracing::warn!(
                        tool = name,
                        fault,
                        "the schema makes no sense in full; calls are held against a part of it"
                    );
                }
                Arguments::of(&definition.spec.schema).map_err(unusable)?
            }
        };
        let entry = Arc::new(Entry { definition, arguments, tool: Arc::new(tool) });
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        match tools.iter_mut().find(|other| other.name() == name) {
            Some(other) if replaces => *other = entry,
            Some(_) => return Err(AddError::Duplicate(name)),
            None => tools.push(entry),
        }
        Ok(())
    }

    /// Takes a tool away; calls of it that are under way go on. False if there was none.
    pub fn remove(&self, name: &str) -> bool {
        let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
        let before = tools.len();
        tools.retain(|entry| entry.name() != name);
        tools.len() < before
    }

    /// The tools that can be offered to the model, in the order in which they were added: none that only the agent or nobody may
    /// call.
    pub fn specs(&self) -> Vec<Spec> {
        self.offered().into_iter().map(|(spec, _)| spec).collect()
    }

    /// As [`specs`](Self::specs), with who wrote each.
    pub fn offered(&self) -> Vec<(Spec, Source)> {
        let policy = self.policy();
        let offered = |entry: &&Arc<Entry>| {
            let class = policy.rules().class_of(entry.name(), entry.definition.class);
            matches!(class, Class::Open | Class::Guarded)
        };
        let tools = self.read();
        let shown = |entry: &Arc<Entry>| (entry.definition.spec.clone(), entry.definition.source);
        tools.iter().filter(offered).map(shown).collect()
    }

    /// Whether there is a tool of that name.
    pub fn knows(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Whether the rules guard the tool of that name.
    pub fn guards(&self, name: &str) -> bool {
        let Some(entry) = self.entry(name) else { return false };
        self.policy().rules().class_of(name, entry.definition.class) == Class::Guarded
    }

    /// Names in the rules that are of no tool, as a slip of the pen would be.
    pub fn rules_without_tool(&self) -> Vec<String> {
        let ruled: Vec<String> = self.policy().rules().tools.keys().cloned().collect();
        ruled.into_iter().filter(|name| !self.knows(name)).collect()
    }

    /// Judges a call: known, valid, allowed, and of an id that was not there before.
    ///
    /// # Errors
    /// [`ToolError`] saying why it may not be carried out.
    pub fn judge(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        caller: impl Into<Caller>,
        (id, now): (&str, Moment),
    ) -> Result<Judged, ToolError> {
        let unknown =
            || ToolError::new(ErrorKind::Unknown, format!("there is no tool named `{name}`"));
        let entry = self.entry(name).ok_or_else(unknown)?;
        let mut arguments = Value::Object(arguments);
        whole(&mut arguments);
        entry.validate(&arguments)?;
        let definition = entry.definition.clone();
        let (class, confirm) = (definition.class, &definition.confirm);
        let proposed = Proposed { tool: name, class, confirm, arguments: &arguments };
        let verdict = self.policy().decide(proposed, caller, now);
        if let Verdict::Refuse(reason) = verdict {
            return Err(ToolError::new(ErrorKind::Refused, reason));
        }
        self.first_time(id)?;
        let permit = Permit { definition, tool: entry.tool.clone(), arguments };
        match verdict {
            Verdict::DryRun => {
                let text = format!("this is a dry run: {name} was not carried out");
                Err(ToolError::new(ErrorKind::DryRun, text))
            }
            Verdict::Confirm => Ok(Judged::Unconfirmed(Unconfirmed(permit))),
            _ => Ok(Judged::Allowed(permit)),
        }
    }

    /// Carries out a call that needs nobody's yes.
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
        match self.judge(name, arguments, origin, (&context.call, Moment::now()))? {
            Judged::Allowed(permit) => permit.carry_out(context, RetryPolicy::once(limit)).await,
            Judged::Unconfirmed(_) => {
                let text = format!("{name} needs a person's yes, and nobody can be asked here");
                Err(ToolError::new(ErrorKind::Refused, text))
            }
        }
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.read().iter().find(|entry| entry.name() == name).cloned()
    }

    fn first_time(&self, call: &str) -> Result<(), ToolError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().any(|earlier| earlier == call) {
            let text = format!("call {call} was there before");
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
        let invalid =
            |faults| ToolError::new(ErrorKind::Invalid, format!("{}: {faults}", self.name()));
        self.arguments.check(arguments).map_err(invalid)
    }
}
