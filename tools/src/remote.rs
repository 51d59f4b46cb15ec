//! Tools that other programs offer over MQTT: they come with a retained definition, and go when it is cleared, when their
//! availability says `offline`, or with the connection.
//!
//! What arrives is of strangers. It is bounded in number and size, brought into a plain form, never takes the name of a tool of
//! our own, and never a class that the configuration does not allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::bus::{Bus, RemoteCall, is_topic, lost, unavailable};
use crate::confirm::Confirm;
use crate::fault::{ClassName, Faults, plainly, unmarked};
use crate::plain::{plain, short};
use crate::registry::{AddError, Registry};
use crate::requests::{Heard, Requests, unless_undelivered};
use crate::tool::{
    BoxFuture, Callable, Context, Definition, ErrorKind, Media, Source, Spec, ToolError,
    ToolOutcome,
};

/// A longer definition is refused, bytes.
const MAX_DEFINITION: usize = 16 * 1024;
/// A longer text or value in a result is refused, bytes.
const MAX_RESULT: usize = 64 * 1024;
/// Media in a result have at most this many bytes, together and before base64.
const MAX_MEDIA: usize = 640 * 1024;
/// A longer description is cut, characters.
const MAX_DESCRIPTION: usize = 300;
/// How long a call may take where nothing is said of it.
const LIMIT: Duration = Duration::from_secs(10);

/// `[tools.mqtt]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteConfig {
    /// Tools that are offered at a time at most.
    pub max_tools: usize,
    /// The only names that may be offered; none: any.
    pub names: Option<Vec<String>>,
    /// Names of tools whose definitions are trusted as the operator's own are.
    pub trusted: Vec<String>,
    /// The laxest class that a tool can have.
    pub class: ClassName,
    /// The longest that a tool can ask to be waited for.
    pub max_timeout_seconds: f64,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            max_tools: 16,
            names: None,
            trusted: Vec::new(),
            class: ClassName::Guarded,
            max_timeout_seconds: 60.0,
        }
    }
}

impl RemoteConfig {
    fn source(&self, name: &str) -> Source {
        let trusted = self.trusted.iter().any(|trusted| trusted == name);
        if trusted { Source::Trusted } else { Source::Foreign }
    }

    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        let fits = (1..=64).contains(&self.max_tools);
        faults.require(fits, "tools.mqtt.max_tools", self.max_tools, "use a value from 1 to 64");
        let fits = (1.0..=600.0).contains(&self.max_timeout_seconds);
        let (key, value) = ("tools.mqtt.max_timeout_seconds", self.max_timeout_seconds);
        faults.require(fits, key, value, "use a value from 1 to 600");
    }
}

/// A definition as it arrives.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offered {
    description: String,
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default)]
    class: Option<ClassName>,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    #[serde(default)]
    availability: Option<String>,
    #[serde(default)]
    idempotent: bool,
}

/// A result as it arrives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResultPayload {
    call: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    media: Vec<MediaPayload>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MediaPayload {
    mime: String,
    base64: String,
}

type Answer = Result<ToolOutcome, ToolError>;

#[derive(Debug, Default)]
struct State {
    offers: BTreeMap<String, Offer>,
    /// Calls under way, with the tool of each.
    waiting: BTreeMap<String, (String, oneshot::Sender<Answer>)>,
    /// Availability topics that were subscribed to, which stays so while the program runs.
    listened: BTreeSet<String>,
    /// Those of them that said `offline` last, also on an earlier connection.
    offline: BTreeSet<String>,
}

#[derive(Debug)]
struct Offer {
    definition: Definition,
    availability: Option<String>,
    /// Whether it is among the tools now.
    offered: bool,
}

/// The tools that are offered over MQTT, and the calls of them.
#[derive(Debug, Clone)]
pub struct Switchboard {
    registry: Arc<Registry>,
    bus: Arc<dyn Bus>,
    config: RemoteConfig,
    /// What names of other tools begin with that may come later.
    reserved: Vec<String>,
    requests: Requests,
    state: Arc<Mutex<State>>,
}

impl Switchboard {
    /// A switchboard that adds to `registry`, where no name may begin with one of `reserved`. Answers to the questions of other
    /// tools go to `requests`.
    pub fn new(
        registry: Arc<Registry>,
        bus: Arc<dyn Bus>,
        (config, reserved): (RemoteConfig, Vec<String>),
        requests: Requests,
    ) -> Self {
        Self { registry, bus, config, reserved, requests, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A definition arrived; an empty one withdraws the tool.
    ///
    /// # Errors
    /// A sentence that says why the tool cannot be offered. An earlier one of its name is withdrawn all the same.
    pub fn define(&self, name: &str, payload: &[u8]) -> Result<(), String> {
        let mut state = self.state();
        let was_offered = state.offers.remove(name).is_some_and(|offer| offer.offered);
        let taken = match payload {
            [] => Ok(()),
            payload => self.take(&mut state, name, payload, was_offered),
        };
        let is_offered = state.offers.get(name).is_some_and(|offer| offer.offered);
        if was_offered && !is_offered {
            self.registry.remove(name);
        }
        taken
    }

    /// Takes a definition, in the place of an earlier one if that is among the tools.
    fn take(
        &self,
        state: &mut State,
        name: &str,
        payload: &[u8],
        replaces: bool,
    ) -> Result<(), String> {
        if state.offers.len() >= self.config.max_tools {
            return Err(format!("{} tools are offered already", state.offers.len()));
        }
        let mut offer = self.read(name, payload)?;
        if let Some(topic) = &offer.availability
            && !state.listened.contains(topic)
        {
            if state.listened.len() >= 4 * self.config.max_tools {
                return Err("there were too many availability topics: let tools share one".into());
            }
            state.listened.insert(topic.clone());
            self.bus.listen(topic);
        }
        let is_away =
            offer.availability.as_ref().is_some_and(|topic| state.offline.contains(topic));
        if !is_away {
            self.add(&offer.definition, replaces).map_err(|fault| fault.to_string())?;
        } else if !replaces && self.registry.knows(name) {
            return Err(AddError::Duplicate(name.to_owned()).to_string());
        }
        offer.offered = !is_away;
        state.offers.insert(name.to_owned(), offer);
        Ok(())
    }

    fn read(&self, name: &str, payload: &[u8]) -> Result<Offer, String> {
        if payload.len() > MAX_DEFINITION {
            return Err(format!("{} bytes are more than {MAX_DEFINITION}", payload.len()));
        }
        if self.config.names.as_ref().is_some_and(|names| !names.iter().any(|known| known == name))
        {
            return Err("the name is not one of tools.mqtt.names".into());
        }
        if let Some(prefix) = self.reserved.iter().find(|prefix| name.starts_with(prefix.as_str()))
        {
            return Err(format!("names that begin with {prefix} belong to other tools"));
        }
        let offered: Offered = serde_json::from_slice(unmarked(payload)).map_err(|fault| {
            let fault = plainly(&fault.to_string());
            format!("expected {{\"description\": \"…\", \"parameters\": {{…}}}}, as docs/tools.md has it: {fault}")
        })?;
        let description = short(&offered.description, MAX_DESCRIPTION);
        if description.is_empty() {
            return Err("the description is empty".into());
        }
        if offered.availability.as_deref().is_some_and(|topic| !is_topic(topic)) {
            return Err("availability must be a topic, without wildcards and not below $".into());
        }
        let parameters = offered.parameters.unwrap_or_else(|| json!({ "type": "object" }));
        let schema = plain(&parameters).map_err(|fault| format!("parameters: {fault}"))?;
        let seconds = offered.timeout_seconds.unwrap_or(LIMIT.as_secs_f64());
        let seconds = seconds.clamp(0.1, self.config.max_timeout_seconds);
        let class = match self.config.class {
            ClassName::Open => offered.class.unwrap_or(ClassName::Guarded),
            ClassName::Guarded => ClassName::Guarded,
        };
        let definition = Definition {
            spec: Spec { name: name.to_owned(), description, schema },
            full: Some(parameters).filter(Value::is_object),
            class: class.into(),
            confirm: Confirm::Never,
            idempotent: offered.idempotent,
            limit: Some(Duration::try_from_secs_f64(seconds).unwrap_or(LIMIT)),
            source: self.config.source(name),
        };
        Ok(Offer { definition, availability: offered.availability, offered: false })
    }

    fn add(&self, definition: &Definition, replaces: bool) -> Result<(), AddError> {
        let tool = RemoteTool {
            name: definition.spec.name.clone(),
            limit: definition.limit.unwrap_or(LIMIT),
            bus: Arc::clone(&self.bus),
            state: Arc::clone(&self.state),
        };
        self.registry.put_defined(definition.clone(), tool, replaces)
    }

    /// A result arrived. One that nobody waits for is ignored, as a late or second one is.
    ///
    /// # Errors
    /// A sentence that says why it cannot be used.
    pub fn result(&self, name: &str, heard: &Heard) -> Result<(), String> {
        if heard.retained || heard.payload.is_empty() {
            return Ok(());
        }
        let result: ResultPayload = serde_json::from_slice(unmarked(&heard.payload)).map_err(|fault| {
            let fault = plainly(&fault.to_string());
            format!(
                "expected {{\"call\": \"…\", \"text\": \"…\"}}, as docs/tools.md has it: {fault}"
            )
        })?;
        let mut state = self.state();
        if state.waiting.get(&result.call).is_none_or(|(tool, _)| tool != name) {
            return Ok(());
        }
        let Some((_, answer)) = state.waiting.remove(&result.call) else { return Ok(()) };
        let (told, fault) = match outcome(result) {
            Ok(told) => (told, None),
            Err(fault) => {
                let text = "the tool's result cannot be used";
                let error = ToolError {
                    kind: ErrorKind::Failed,
                    for_model: text.into(),
                    for_operator: format!("{text}: {fault}"),
                };
                (Err(error), Some(fault))
            }
        };
        // Where the caller is gone, nobody wants it.
        answer.send(told).ok();
        fault.map_or(Ok(()), Err)
    }

    /// Something else arrived that was listened to: an availability, or the answer to a question.
    pub fn other(&self, heard: &Heard) {
        self.requests.hear(heard);
        let State { offers, listened, offline, .. } = &mut *self.state();
        if !listened.contains(&heard.topic) {
            return;
        }
        let is_away = heard.payload.trim_ascii().eq_ignore_ascii_case(b"offline");
        if is_away {
            offline.insert(heard.topic.clone());
        } else {
            offline.remove(&heard.topic);
        }
        let is_of = |offer: &&mut Offer| offer.availability.as_ref() == Some(&heard.topic);
        for offer in offers.values_mut().filter(is_of).filter(|offer| offer.offered == is_away) {
            if is_away {
                self.registry.remove(&offer.definition.spec.name);
            } else if let Err(fault) = self.add(&offer.definition, false) {
                // Another took the name meanwhile.
                tracing::debug!(%fault, "not offered");
                continue;
            }
            offer.offered = !is_away;
        }
    }

    /// The connection was lost: what was offered comes again with the next one, or is no longer there.
    pub fn lose(&self) {
        self.requests.lose();
        let mut state = self.state();
        for (name, offer) in std::mem::take(&mut state.offers) {
            if offer.offered {
                self.registry.remove(&name);
            }
        }
        for (_, answer) in std::mem::take(&mut state.waiting).into_values() {
            answer.send(Err(lost())).ok();
        }
    }
}

/// What a result says, within its bounds.
fn outcome(result: ResultPayload) -> Result<Answer, String> {
    let too_long = |length: usize, what: &str| {
        (length > MAX_RESULT).then(|| format!("the {what} is longer than {MAX_RESULT} bytes"))
    };
    let data = result.data.as_ref().map_or(0, |data| data.to_string().len());
    let text = result.text.as_ref().map_or(0, String::len);
    if let Some(fault) = too_long(data, "data").or_else(|| too_long(text, "text")) {
        return Err(fault);
    }
    if let Some(error) = result.error {
        return Ok(Err(ToolError::new(ErrorKind::Failed, short(&error, MAX_DESCRIPTION))));
    }
    let mut media = Vec::new();
    for MediaPayload { mime, base64 } in result.media {
        let bytes = BASE64.decode(base64).map_err(|fault| format!("media: no base64: {fault}"))?;
        media.push(Media { mime: short(&mime, 100), bytes });
    }
    if media.iter().map(|media| media.bytes.len()).sum::<usize>() > MAX_MEDIA {
        return Err(format!("the media have more than {MAX_MEDIA} bytes"));
    }
    Ok(Ok(ToolOutcome { text: result.text, data: result.data, media }))
}

/// A tool whose program is elsewhere.
#[derive(Debug)]
struct RemoteTool {
    name: String,
    limit: Duration,
    bus: Arc<dyn Bus>,
    state: Arc<Mutex<State>>,
}

impl Callable for RemoteTool {
    fn call<'a>(&'a self, arguments: Value, context: &'a Context) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            if !self.bus.is_up() {
                return Err(unavailable());
            }
            let (answer, answered) = oneshot::channel();
            let waiting = (self.name.clone(), answer);
            let call = context.call.clone();
            let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
            lock().waiting.insert(call.clone(), waiting);
            let _guard = Forget(&self.state, &call);
            let sent = RemoteCall {
                call: call.clone(),
                tool: self.name.clone(),
                arguments: arguments.as_object().cloned().unwrap_or_default(),
                limit: self.limit,
            };
            let given_up = |_| Err(ToolError::new(ErrorKind::Failed, "the call was given up"));
            let answered = async { answered.await.unwrap_or_else(given_up) };
            unless_undelivered(self.bus.call(sent, context.deadline), answered).await
        })
    }
}

/// Forgets a call when nobody waits for its result any more.
struct Forget<'a>(&'a Mutex<State>, &'a str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(self.1);
    }
}

#[cfg(test)]
mod tests;
