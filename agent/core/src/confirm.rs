//! Calls that wait for a person's yes. One at a time, so that nobody agrees to something else than what was asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::event::{Consent, Origin};
use crate::report::{Body, ConfirmReport, Report, ReportId, Sink};

/// A yes that names no call counts only for one that waited so long: a button may be pressed twice for the one before.
const SETTLE: Duration = Duration::from_millis(700);

/// A call to be agreed to.
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

/// What came of it.
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

/// The questions. Clones are the same.
#[derive(Debug, Clone)]
pub struct Confirmations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sink: Arc<dyn Sink>,
    patience: Duration,
    /// Held by the call that is asked about.
    floor: tokio::sync::Mutex<()>,
    waiting: Mutex<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    call: ReportId,
    since: Instant,
    answer: oneshot::Sender<bool>,
}

/// Takes the question back, also where the turn is dropped.
struct Asked<'a>(&'a Confirmations);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.waiting() = None;
        self.0.say(None);
    }
}

impl Confirmations {
    /// Questions that wait for an answer as long as `patience`.
    pub fn new(sink: Arc<dyn Sink>, patience: Duration) -> Self {
        let (floor, waiting) = <_>::default();
        Self(Arc::new(Inner { sink, patience, floor, waiting }))
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what waits now.
    pub fn say(&self, waits: Option<ConfirmReport>) {
        self.0.sink.send(Report::now(Body::Confirm(waits)));
    }

    /// Asks, once the calls before it were answered.
    pub async fn ask(&self, question: Question) -> Decision {
        let _floor = self.0.floor.lock().await;
        let (answer, answered) = oneshot::channel();
        let Question { call, origin, name, arguments } = question;
        *self.waiting() = Some(Waiting { call, since: Instant::now(), answer });
        let _asked = Asked(self);
        let patience = self.0.patience;
        self.say(Some(ConfirmReport { call, origin, name, arguments, patience }));
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(true)) => Decision::Yes,
            Ok(_) => Decision::No,
            Err(_) => Decision::Silence,
        }
    }

    /// The call that waits for an answer to something that was said for `length` until now, if it was asked before.
    pub fn asked_before(&self, length: Duration) -> Option<ReportId> {
        let waiting = self.waiting();
        waiting.as_ref().filter(|asked| asked.since.elapsed() >= length).map(|asked| asked.call)
    }

    /// Takes an answer. False where it is to nothing that waits.
    pub fn answer(&self, consent: &Consent) -> bool {
        let mut waiting = self.waiting();
        let fits = waiting.as_ref().is_some_and(|asked| match &consent.call {
            Some(call) => asked.call.to_string() == *call,
            None => !consent.yes || asked.since.elapsed() >= SETTLE,
        });
        match waiting.take_if(|_| fits) {
            // Where nobody waits for it any more, the time was up.
            Some(asked) => asked.answer.send(consent.yes).is_ok(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Intent;

    #[derive(Debug, Default)]
    struct Said(Mutex<Vec<Option<String>>>);

    impl Sink for Said {
        fn send(&self, report: Report) {
            let Body::Confirm(waits) = report.body else { panic!("{report:?}") };
            self.0.lock().unwrap().push(waits.map(|waits| waits.name));
        }
        fn intend(&self, _intent: &Intent) {}
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
        let (first, second) = (question("first"), question("second"));
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
