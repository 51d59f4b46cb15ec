//! Calls awaiting confirmation. One at a time, so that a "yes" is never applied to the wrong call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::event::{Consent, Origin};
use crate::report::{Body, ConfirmReport, Report, ReportId, Sink};

/// A yes without a call id counts only after this long: a button may be pressed twice for the
/// previous call.
const SETTLE: Duration = Duration::from_millis(700);

/// A call to confirm.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Names the call.
    pub call: ReportId,
    /// Who is behind it.
    pub origin: Origin,
    /// The tool.
    pub name: String,
    /// What it would be called with.
    pub arguments: Map<String, Value>,
}

/// Result of a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A person agreed.
    Yes,
    /// A person declined, or said something else.
    No,
    /// Nobody answered in time.
    Silence,
}

impl Decision {
    /// The name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Silence => "none",
        }
    }
}

/// Confirmations. Clones share state.
#[derive(Debug, Clone)]
pub struct Confirmations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sink: Arc<dyn Sink>,
    timeout: Duration,
    /// Held by the call being confirmed.
    floor: tokio::sync::Mutex<()>,
    waiting: Mutex<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    call: ReportId,
    since: Instant,
    answer: oneshot::Sender<bool>,
}

/// Withdraws the question, also when the turn is dropped.
struct Asked<'a>(&'a Confirmations);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.waiting() = None;
        self.0.say(None);
    }
}

impl Confirmations {
    /// Creates confirmations that time out after `timeout`.
    pub fn new(sink: Arc<dyn Sink>, timeout: Duration) -> Self {
        let (floor, waiting) = <_>::default();
        Self(Arc::new(Inner { sink, timeout, floor, waiting }))
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports which call is waiting.
    pub fn say(&self, waits: Option<ConfirmReport>) {
        self.0.sink.send(Report::now(Body::Confirm(waits)));
    }

    /// Asks, after the calls before it.
    pub async fn ask(&self, question: Question) -> Decision {
        let _floor = self.0.floor.lock().await;
        let (answer, answered) = oneshot::channel();
        let Question { call, origin, name, arguments } = question;
        *self.waiting() = Some(Waiting { call, since: Instant::now(), answer });
        let _asked = Asked(self);
        let timeout = self.0.timeout;
        self.say(Some(ConfirmReport { call, origin, name, arguments, timeout }));
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(true)) => Decision::Yes,
            Ok(_) => Decision::No,
            Err(_) => Decision::Silence,
        }
    }

    /// The call that an utterance of this `length`, ending now, may answer: one asked before it
    /// began.
    pub fn asked_before(&self, length: Duration) -> Option<ReportId> {
        let waiting = self.waiting();
        waiting.as_ref().filter(|asked| asked.since.elapsed() >= length).map(|asked| asked.call)
    }

    /// Takes an answer. Returns false if it matches no waiting call.
    pub fn answer(&self, consent: &Consent) -> bool {
        let mut waiting = self.waiting();
        let fits = waiting.as_ref().is_some_and(|asked| match &consent.call {
            Some(call) => asked.call.to_string() == *call,
            None => !consent.yes || asked.since.elapsed() >= SETTLE,
        });
        match waiting.take_if(|_| fits) {
            // Fails if the call has timed out.
            Some(asked) => asked.answer.send(consent.yes).is_ok(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use outpost_tools::ToolError;
    use outpost_tools::tool::BoxFuture;
    use tokio::time::Instant;

    use super::*;
    use crate::report::{Act, Intent};

    #[derive(Debug, Default)]
    struct Said(Mutex<Vec<Option<String>>>);

    impl Sink for Said {
        fn send(&self, report: Report) {
            let Body::Confirm(waits) = report.body else { panic!("{report:?}") };
            self.0.lock().unwrap().push(waits.map(|waits| waits.name));
        }
        fn act(&self, act: Act, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
            panic!("{act:?}")
        }
        fn intend<'a>(&'a self, _intent: &'a Intent) -> BoxFuture<'a, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn question(name: &str) -> Question {
        let call = ReportId::new();
        Question { call, origin: Origin::Voice, name: name.into(), arguments: Map::new() }
    }

    fn bare(yes: bool) -> Consent {
        Consent { call: None, yes }
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_is_asked_about_at_a_time_and_an_answer_is_for_it_alone() {
        let said = Arc::new(Said::default());
        let confirmations = Confirmations::new(said.clone(), Duration::from_secs(30));
        assert!(!confirmations.answer(&bare(true)), "nothing waits");
        let first = question("first");
        let second = question("second");
        let of_second = Consent { call: Some(second.call.to_string()), yes: true };
        let person = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!confirmations.answer(&of_second), "it was not asked about yet");
            assert!(confirmations.answer(&bare(true)));
            tokio::time::sleep(Duration::from_millis(1)).await;
            // The button pressed twice.
            assert!(!confirmations.answer(&bare(true)));
            assert!(confirmations.answer(&of_second));
        };
        let asked = async { tokio::join!(confirmations.ask(first), confirmations.ask(second)) };
        let (decisions, ()) = tokio::join!(asked, person);
        assert_eq!(decisions, (Decision::Yes, Decision::Yes));
        let first = Some("first".to_owned());
        assert_eq!(*said.0.lock().unwrap(), [first, None, Some("second".to_owned()), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_no_are_no_yes_and_a_dropped_question_is_taken_back() {
        let said = Arc::new(Said::default());
        let confirmations = Confirmations::new(said.clone(), Duration::from_secs(30));
        assert_eq!(confirmations.ask(question("a")).await, Decision::Silence);
        let (decision, ()) = tokio::join!(confirmations.ask(question("b")), async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(confirmations.answer(&bare(false)));
        });
        assert_eq!(decision, Decision::No);
        let dropped = confirmations.ask(question("c"));
        assert!(tokio::time::timeout(Duration::from_secs(1), dropped).await.is_err());
        assert!(!confirmations.answer(&bare(true)));
        assert_eq!(said.0.lock().unwrap().last(), Some(&None));
    }
}
