//! A daemon over a real broker, and a model that follows a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outpost_agent::app::{App, AppError, Running};
use outpost_agent_core::config::{Config, MqttConfig};
use outpost_agent_core::model_thread::Model;
use outpost_broker::Broker;
use outpost_mqtt::message::Message;
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_runtime::{
    Capabilities, Confidence, Error, Finish, Generation, Request, Stop, ToolCall, Usage,
};
use outpost_tools::{AddError, Registry};
use serde_json::Value;

use crate::contract;

/// What the scripted model does next.
#[derive(Debug, Clone)]
pub enum Line {
    /// Says something.
    Say(&'static str),
    /// Calls tools.
    Call(Vec<(&'static str, Value)>),
    /// Calls tools, with this probability of the token that it is least sure of.
    Doubt(f32, Vec<(&'static str, Value)>),
    /// Does not answer before it is stopped.
    Hang,
    /// Panics.
    Panic,
    /// Panics, and can't compute any more, like a GPU after a fault in a kernel.
    LoseDevice,
}

/// A model that answers request after request from a list, and keeps the requests.
#[derive(Debug, Clone, Default)]
pub struct Script {
    lines: Arc<Mutex<VecDeque<Line>>>,
    requests: Arc<Mutex<Vec<Request>>>,
    capabilities: Capabilities,
    is_lost: bool,
}

impl Script {
    /// A script; after its last line the model says nothing.
    pub fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        let lines = Arc::new(Mutex::new(lines.into_iter().collect()));
        Self { lines, ..Self::default() }
    }

    /// The same script of a model that was made for this.
    #[must_use]
    pub fn made_for(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Model for Script {
    #[expect(clippy::panic, reason = "the script says so")]
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> Result<Generation, Error> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let line = self.lines.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut confidence = None;
        let (text, calls) = match line {
            Some(Line::Say(text)) => (text, Vec::new()),
            Some(Line::Call(calls)) => ("", calls),
            Some(Line::Doubt(least, calls)) => {
                confidence = Some(Confidence::of(least.ln()));
                ("", calls)
            }
            Some(Line::Panic) => panic!("the script says so"),
            Some(Line::LoseDevice) => {
                self.is_lost = true;
                panic!("the script says so")
            }
            Some(Line::Hang) => loop {
                stop.check()?;
                std::thread::yield_now();
            },
            None => ("", Vec::new()),
        };
        text.split_inclusive(' ').for_each(say);
        let call = |(name, arguments): (&str, Value)| ToolCall {
            name: name.to_owned(),
            arguments: arguments.as_object().cloned().unwrap_or_default(),
        };
        let calls = calls.into_iter().map(call).collect();
        Ok(Generation {
            text: text.to_owned(),
            calls,
            finish: Finish::EndOfTurn,
            confidence,
            usage: Usage::default(),
        })
    }

    fn warm_up(&mut self, _request: &Request) -> Result<(), Error> {
        Ok(())
    }

    fn forget(&mut self) {}

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn synchronize(&mut self) {
        assert!(!self.is_lost, "the device is lost");
    }
}

/// A configuration in which the daemon has the name and the port that tests expect, where it doesn't say otherwise.
#[must_use]
pub fn at_home(mut config: Config) -> Config {
    let mqtt = &mut config.mqtt;
    if mqtt.device == MqttConfig::default().device {
        mqtt.device = "outpost".into();
    }
    if mqtt.host.is_none() {
        mqtt.listen.get_or_insert(Broker::ANY);
    }
    config
}

/// A daemon at work and a subscriber to all that it says.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    subscriber: Subscriber,
    broker: SocketAddr,
}

/// How long a report may take.
const TIMEOUT: Duration = Duration::from_secs(20);

impl Daemon {
    /// Starts a daemon with a scripted model on an embedded broker.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn scripted(config: Config, script: &Script) -> Result<Self, AppError> {
        Self::equipped(config, script, |_| Ok(())).await
    }

    /// As [`Daemon::scripted`], with tools that `equip` adds.
    ///
    /// # Errors
    /// As there, and when there are two tools of one name.
    pub async fn equipped(
        config: Config,
        script: &Script,
        equip: impl FnOnce(&Registry) -> Result<(), AddError>,
    ) -> Result<Self, AppError> {
        let script = script.clone();
        let load = move || Ok(Box::new(script) as Box<dyn Model>);
        let app = App::with_model(at_home(config), load).await?;
        equip(app.tools())?;
        Self::start(app).await
    }

    /// Subscribes and lets a daemon begin.
    ///
    /// # Errors
    /// When it cannot be started.
    ///
    /// # Panics
    /// When the embedded broker does not take the subscription.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its subscriber")]
    pub async fn start(app: App) -> Result<Self, AppError> {
        let broker = app.broker().expect("the embedded broker");
        Self::on(app, broker).await
    }

    /// As [`Daemon::start`], on a broker of its own.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When the broker does not take the subscription.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its subscriber")]
    pub async fn on(app: App, broker: SocketAddr) -> Result<Self, AppError> {
        let subscriber =
            Subscriber::connect(broker, "test", "outpost/outpost/#").await.expect("a subscription");
        let mut daemon = Self { running: app.spawn()?, subscriber, broker };
        // It subscribes before it says so; what is told to it earlier would be lost.
        daemon.expect("status").await;
        Ok(daemon)
    }

    /// Where its broker listens.
    pub fn broker(&self) -> SocketAddr {
        self.broker
    }

    /// The next message, which has to be as the contract says; none when there is none within `limit`.
    async fn next(&mut self, limit: Duration) -> Option<Received> {
        let received = self.subscriber.next(limit).await?;
        contract::check(&received);
        Some(received)
    }

    /// The next message, whatever its topic.
    ///
    /// # Panics
    /// When none arrives in time.
    #[expect(clippy::expect_used, reason = "this is the assertion")]
    pub async fn next_message(&mut self) -> Received {
        self.next(TIMEOUT).await.expect("a message")
    }

    /// The next message on a topic below the base, skipping others.
    ///
    /// # Panics
    /// When none arrives in time; the message lists what did.
    #[expect(clippy::panic, reason = "this is the assertion")]
    pub async fn expect(&mut self, topic: &str) -> Value {
        let full = format!("outpost/outpost/{topic}");
        let mut others = Vec::new();
        while let Some(Received { topic, payload, .. }) = self.next(TIMEOUT).await {
            if topic == full {
                return payload;
            }
            others.push(format!("{topic} {payload}"));
        }
        panic!("nothing on {full}, but:\n{}", others.join("\n"))
    }

    /// The next message on each of two topics, whichever comes first: an alert overtakes what was reported before it.
    ///
    /// # Panics
    /// As [`Daemon::expect`].
    #[expect(clippy::panic, reason = "this is the assertion")]
    pub async fn expect_both(&mut self, topics: [&str; 2]) -> [Value; 2] {
        let full = topics.map(|topic| format!("outpost/outpost/{topic}"));
        let mut seen = [None, None];
        while let Some(Received { topic, payload, .. }) = self.next(TIMEOUT).await {
            if let Some(index) = full.iter().position(|wanted| *wanted == topic) {
                seen[index].get_or_insert(payload);
            }
            if let [Some(first), Some(second)] = &seen {
                return [first.clone(), second.clone()];
            }
        }
        panic!("not both of {topics:?}, but: {seen:?}")
    }

    /// All messages until the daemon has been quiet for a while.
    pub async fn until_quiet(&mut self, quiet: Duration) -> Vec<Received> {
        let mut all = Vec::new();
        while let Some(received) = self.next(quiet).await {
            all.push(received);
        }
        all
    }

    /// Publishes bytes below the base topic.
    ///
    /// # Panics
    /// When the connection is gone.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its broker")]
    pub async fn tell_bytes(&self, topic: &str, payload: Vec<u8>) {
        let message = Message::new(format!("outpost/outpost/{topic}"), payload);
        self.subscriber.send(message).await.expect("a connection");
    }

    /// Retains below the base topic; an empty text takes back what was retained.
    ///
    /// # Panics
    /// When the connection is gone.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its broker")]
    pub async fn retain(&self, topic: &str, payload: &str) {
        let message = Message::new(format!("outpost/outpost/{topic}"), payload);
        self.subscriber.send(Message { retain: true, ..message }).await.expect("a connection");
    }

    /// Publishes below the base topic.
    ///
    /// # Panics
    /// When the connection is gone.
    #[expect(clippy::expect_used, reason = "a test cannot go on without its broker")]
    pub async fn tell(&self, topic: &str, payload: &str) {
        self.subscriber
            .publish(&format!("outpost/outpost/{topic}"), payload)
            .await
            .expect("a connection");
    }

    /// Waits until the daemon is of no use any more.
    pub async fn broken(&self) {
        self.running.broken().await;
    }

    /// Ends the daemon; whether all its reports reached the broker.
    pub async fn end(self) -> bool {
        self.running.drain(Duration::from_secs(5)).await
    }
}
