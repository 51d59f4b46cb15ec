//! Questions over MQTT and their answers: which answer belongs to which question.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bus::{Bus, Publication, lost, unavailable};
use crate::tool::{BoxFuture, ErrorKind, ToolError, ToolOutcome};

/// A message that arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether it had been waiting at the broker.
    pub retained: bool,
    /// MQTT 5: what the sender was given to send back.
    pub correlation: Option<Vec<u8>>,
}

/// How an answer is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Correlate {
    /// Its JSON carries the question's `transaction`.
    #[default]
    Transaction,
    /// It carries the question's correlation data, as MQTT 5 has it.
    Properties,
    /// It is the first that arrives after the question; one question at a time.
    Arrival,
}

#[derive(Debug)]
struct Waiting {
    call: String,
    topic: String,
    correlate: Correlate,
    answer: oneshot::Sender<Result<Vec<u8>, ToolError>>,
}

impl Waiting {
    fn is_answered_by(&self, heard: &Heard) -> bool {
        self.topic == heard.topic
            && match self.correlate {
                Correlate::Arrival => true,
                Correlate::Properties => heard.correlation.as_deref() == Some(self.call.as_bytes()),
                Correlate::Transaction => serde_json::from_slice::<Value>(&heard.payload)
                    .is_ok_and(|answer| answer["transaction"] == self.call.as_str()),
            }
    }
}

/// Questions that wait for their answers.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<Vec<Waiting>>>);

impl Requests {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, and waits for the answer for as long as the caller does.
    ///
    /// # Errors
    /// When there is no connection, or it is lost, or another question waits where only one can.
    pub async fn ask(
        &self,
        bus: &dyn Bus,
        call: &str,
        (question, topic, correlate): (Publication, &str, Correlate),
        deadline: Instant,
    ) -> Result<ToolOutcome, ToolError> {
        if !bus.is_up() {
            return Err(unavailable());
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            let is_taken = |other: &Waiting| other.topic == topic;
            if correlate == Correlate::Arrival && waiting.iter().any(is_taken) {
                let text = "another call waits for its answer there: try again later";
                return Err(ToolError::new(ErrorKind::Failed, text));
            }
            let (call, topic) = (call.to_owned(), topic.to_owned());
            waiting.push(Waiting { call, topic, correlate, answer });
        }
        let _guard = Forget(self, call);
        let answered = async { answered.await.unwrap_or_else(|_| Err(given_up())) };
        Ok(outcome(&unless_undelivered(bus.publish(question, deadline), answered).await?))
    }

    /// Takes a message that arrived; one that answers nothing is ignored, as a late or second answer is.
    pub fn hear(&self, heard: &Heard) {
        if heard.retained {
            return;
        }
        let mut waiting = self.waiting();
        if let Some(index) = waiting.iter().position(|waiting| waiting.is_answered_by(heard)) {
            // Where the caller is gone, nobody wants it.
            waiting.remove(index).answer.send(Ok(heard.payload.clone())).ok();
        }
    }

    /// The connection was lost, and with it what was about to come.
    pub fn lose(&self) {
        for waiting in self.waiting().drain(..) {
            waiting.answer.send(Err(lost())).ok();
        }
    }
}

fn given_up() -> ToolError {
    ToolError::new(ErrorKind::Failed, "the question was given up")
}

/// Waits for an answer, which may come before the broker acknowledges the question; a question that was not delivered has none.
pub(crate) async fn unless_undelivered<T>(
    delivery: BoxFuture<'_, Result<(), ToolError>>,
    answer: impl Future<Output = Result<T, ToolError>>,
) -> Result<T, ToolError> {
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answered = &mut answer => return answered,
        delivered = delivery => delivered?,
    }
    answer.await
}

/// Forgets a question when nobody waits for its answer any more.
struct Forget<'a>(&'a Requests, &'a str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting().retain(|waiting| waiting.call != self.1);
    }
}

/// JSON as data, anything else as text.
pub fn outcome(payload: &[u8]) -> ToolOutcome {
    match serde_json::from_slice(payload) {
        Ok(data) => ToolOutcome::data(data),
        Err(_) => ToolOutcome::text(String::from_utf8_lossy(payload)),
    }
}
