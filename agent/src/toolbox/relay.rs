//! Calls the tools of a running agent from another process, over its broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outpost_agent_core::config::MqttConfig;
use outpost_mqtt::session::Fault;
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_mqtt::topics::{self, Topics};
use outpost_tools::mcp::server::Backend;
use outpost_tools::tool::BoxFuture;
use outpost_tools::{ErrorKind, Spec, ToolError, ToolOutcome};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

/// Timeout of an answer: other turns may come first.
const TIMEOUT: Duration = Duration::from_secs(150);
/// Timeout of the retained list of tools.
const FIRST: Duration = Duration::from_secs(3);
/// Queued requests.
const CAPACITY: usize = 16;
/// Topics whose latest messages are kept, at most.
const MAX_LATEST: usize = 64;
/// Topics whose latest message `status` returns.
const SENSES: [&str; 8] = [
    "status",
    "state",
    "camera",
    "firmware",
    "event/voice",
    "event/camera",
    "event/input",
    "alert",
];

/// A connection to an agent.
#[derive(Debug)]
pub struct Relay {
    known: Arc<Known>,
    questions: mpsc::Sender<String>,
}

#[derive(Debug, Default)]
struct Known {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    tools: Vec<Spec>,
    latest: BTreeMap<String, Value>,
    waiting: HashMap<String, oneshot::Sender<Value>>,
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles a message; returns true for the list of tools.
    fn hear(&self, path: &str, payload: Value) -> bool {
        let mut state = self.state();
        match path {
            "tools" => {
                state.tools =
                    payload["tools"].as_array().into_iter().flatten().filter_map(spec).collect();
                self.changed.notify_one();
                return true;
            }
            "answer" => {
                let transaction = payload["transaction"].as_str().unwrap_or_default();
                if let Some(waiting) = state.waiting.remove(transaction) {
                    waiting.send(payload).ok();
                }
            }
            path if SENSES.contains(&path) => {
                state.latest.insert(path.to_owned(), payload);
            }
            path if path.starts_with("sensor/") => {
                let is_known = state.latest.contains_key(path);
                if is_known || state.latest.len() < MAX_LATEST {
                    state.latest.insert(path.to_owned(), payload);
                }
            }
            _ => {}
        }
        false
    }
}

fn spec(tool: &Value) -> Option<Spec> {
    Some(Spec {
        name: tool["name"].as_str()?.to_owned(),
        description: tool["description"].as_str()?.to_owned(),
        schema: tool["parameters"].clone(),
    })
}

impl Relay {
    /// Connects. The future must be polled while the connection is in use, and ends it when
    /// dropped.
    ///
    /// # Errors
    /// If the broker is unreachable.
    pub async fn connect(
        config: &MqttConfig,
    ) -> Result<(Self, impl Future<Output = ()> + use<>), Fault> {
        let topics = Topics::new(&config.device);
        let name = topics::passing_client("mcp");
        let mut subscriber = Subscriber::to(config, &name, &topics.below("#")).await?;
        let (questions, asked) = mpsc::channel(CAPACITY);
        let known = Arc::<Known>::default();
        // A client that lists tools first should see them.
        let end = Instant::now() + FIRST;
        while let Ok(Some(received)) = timeout_at(end, subscriber.next(FIRST)).await {
            if known.hear(path(&topics, &received), received.payload.clone()) {
                break;
            }
        }
        let work = work(subscriber, topics, Arc::clone(&known), asked);
        Ok((Self { known, questions }, work))
    }

    async fn put(&self, mut question: Value) -> Result<Value, ToolError> {
        let transaction = Uuid::now_v7().to_string();
        question["transaction"] = transaction.as_str().into();
        let (answer, answered) = oneshot::channel();
        self.known.state().waiting.insert(transaction.clone(), answer);
        let _guard = Forget(&self.known, &transaction);
        let gone = || ToolError::new(ErrorKind::Failed, "the agent's broker is gone");
        self.questions.send(question.to_string()).await.map_err(|_| gone())?;
        let late = || ToolError::new(ErrorKind::Timeout, "the agent did not answer in time");
        timeout(TIMEOUT, answered).await.map_err(|_| late())?.map_err(|_| gone())
    }

    async fn ask(&self, prompt: &str) -> Result<ToolOutcome, ToolError> {
        let answer = self.put(json!({ "prompt": prompt })).await?;
        match answer["error"].as_str() {
            Some(error) => Err(ToolError::new(ErrorKind::Failed, error)),
            None => {
                Ok(ToolOutcome::data(json!({ "text": answer["text"], "calls": answer["calls"] })))
            }
        }
    }

    async fn pass_on(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<ToolOutcome, ToolError> {
        let answer = self.put(json!({ "call": { "name": name, "arguments": arguments } })).await?;
        let result = &answer["result"];
        if result["ok"] == true {
            let text = result["text"].as_str().map(str::to_owned);
            let data = result.get("data").cloned();
            return Ok(ToolOutcome { text, data, media: Vec::new() });
        }
        let error = result["error"].as_str().or(answer["error"].as_str());
        Err(ToolError::new(ErrorKind::Failed, error.unwrap_or("the agent did not carry it out")))
    }
}

impl Backend for Relay {
    fn specs(&self) -> Vec<Spec> {
        let own = [
            (
                "ask",
                "Ask the device's own model, or give it a command.",
                json!({"type": "object",
                "properties": {"prompt": {"type": "string", "description": "The question or command"}},
                "required": ["prompt"], "additionalProperties": false}),
            ),
            (
                "status",
                "What the device does, and what it heard and saw last.",
                json!({"type": "object", "properties": {}, "additionalProperties": false}),
            ),
        ];
        let own = own.map(|(name, description, schema)| Spec {
            name: name.into(),
            description: description.into(),
            schema,
        });
        let state = self.known.state();
        let others = state.tools.iter().filter(|tool| !["ask", "status"].contains(&&*tool.name));
        own.into_iter().chain(others.cloned()).collect()
    }

    fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> BoxFuture<'_, Result<ToolOutcome, ToolError>> {
        let name = name.to_owned();
        Box::pin(async move {
            match name.as_str() {
                "ask" => {
                    self.ask(arguments.get("prompt").and_then(Value::as_str).unwrap_or_default())
                        .await
                }
                "status" => {
                    let latest = self.known.state().latest.clone();
                    Ok(ToolOutcome::data(latest.into_iter().collect()))
                }
                name => self.pass_on(name, arguments).await,
            }
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.known.changed.notified())
    }
}

/// Removes a request nobody waits for any more.
struct Forget<'a>(&'a Known, &'a str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.state().waiting.remove(self.1);
    }
}

fn path<'a>(topics: &Topics, received: &'a Received) -> &'a str {
    received.topic.strip_prefix(&topics.below("")).unwrap_or_default()
}

async fn work(
    mut subscriber: Subscriber,
    topics: Topics,
    known: Arc<Known>,
    mut asked: mpsc::Receiver<String>,
) {
    loop {
        tokio::select! {
            received = subscriber.received() => match received {
                Some(received) => {
                    known.hear(path(&topics, &received), received.payload.clone());
                }
                None => return,
            },
            Some(question) = asked.recv() => {
                if subscriber.publish(&topics.below("ask"), &question).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sensors_are_updated_however_many_there_are() {
        let known = Known::default();
        for round in 0..2 {
            for sensor in 0..2 * MAX_LATEST {
                known.hear(&format!("sensor/{sensor}"), json!({ "value": round }));
            }
        }
        let state = known.state();
        assert_eq!(state.latest.len(), MAX_LATEST, "their number is bounded");
        assert!(state.latest.values().all(|latest| latest["value"] == 1), "{:?}", state.latest);
    }
}
