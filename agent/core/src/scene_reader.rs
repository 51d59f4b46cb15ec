//! Reads a scene through the camera: several readings, alerts of the watch list, questions,
//! evidence.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use outpost_tools::Moment;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::camera::{Camera, Counters};
use crate::config::{AgreementConfig, Answer, LiveSettings};
use crate::dispatch::Dispatcher;
use crate::event::{Event, EventId, Frame, Origin};
use crate::evidence::{Evidence, EvidenceError};
use crate::live::Settings;
use crate::model_thread::{ModelError, ModelHandle};
use crate::ocr::read_text;
use crate::prompting;
use crate::report::{AlertReport, Body, CameraReport, EvidenceReport, Report, Sink};
use crate::watch::agreement::{Agreement, Verdict};
use crate::watch::{Match, WatchList};

/// How long to wait for the next picture of a scene.
const NEXT_PICTURE: Duration = Duration::from_secs(3);

/// Reads the pictures that passed motion detection.
#[derive(Debug)]
pub struct SceneReader {
    model: ModelHandle,
    camera: Arc<dyn Camera>,
    counters: Arc<Counters>,
    agreement: AgreementConfig,
    live: tokio::sync::watch::Receiver<LiveSettings>,
    watch: Mutex<WatchList>,
    evidence: Option<Evidence>,
    sink: Arc<dyn Sink>,
    max_new_tokens: usize,
    deadline: Duration,
}

/// What to ask about a picture.
enum Query<'a> {
    /// Its text.
    Text,
    /// Yes or no.
    Question(&'a str),
}

/// Result of reading a scene.
#[derive(Debug)]
pub struct Seen {
    /// What enough readings agree on.
    said: Option<String>,
    readings: usize,
    rejected: Vec<String>,
}

impl SceneReader {
    /// Creates a reader.
    pub fn new(
        model: ModelHandle,
        camera: Arc<dyn Camera>,
        counters: Arc<Counters>,
        evidence: Option<Evidence>,
        sink: Arc<dyn Sink>,
        settings: &Settings<'_>,
    ) -> Self {
        let Settings { file: config, live } = settings;
        Self {
            model,
            camera,
            counters,
            agreement: config.camera.agreement(),
            live: live.clone(),
            watch: Mutex::default(),
            evidence,
            sink,
            max_new_tokens: config.model.max_new_tokens,
            deadline: config.model.deadline,
        }
    }

    /// Reads a scene: picture after picture until enough readings agree.
    ///
    /// # Errors
    /// If the model fails.
    pub async fn read(&self, frame: &Frame) -> Result<Seen, ModelError> {
        self.agree(frame, &Query::Text).await
    }

    /// Reports a reading, raises alerts and asks due questions, unless interrupted. Returns false
    /// if the model failed.
    pub async fn report(
        &self,
        event: EventId,
        started: Timestamp,
        frame: &Frame,
        read: Result<Seen, ModelError>,
        dispatcher: &Dispatcher,
        give_way: &CancellationToken,
    ) -> bool {
        let source = frame.source.clone();
        let latency = Event::age(started);
        self.follow();
        let Seen { said: text, readings, rejected } = match read {
            Ok(seen) => seen,
            Err(error) => {
                let report = CameraReport::failed(event, source, latency, error.to_string());
                self.sink.send(Report::now(Body::Camera(report)));
                return false;
            }
        };
        // Disagreeing readings do not tell whether a text is still there.
        let known = text.is_some() || rejected.is_empty();
        let answers = Vec::new();
        let error = None;
        let report =
            CameraReport { event, source, text, readings, rejected, answers, latency, error };
        self.sink.send(Report::now(Body::Camera(report.clone())));
        if known {
            let matches = self.watch().read(report.text.as_deref(), Moment::now());
            for found in matches {
                let text = report.text.as_deref().unwrap_or_default();
                self.alert(event, found, text, frame, dispatcher).await;
            }
        }
        self.questions(report, frame, dispatcher, give_way).await
    }

    /// Asks the watch list's questions; the event is reported again with the answers.
    async fn questions(
        &self,
        mut report: CameraReport,
        frame: &Frame,
        dispatcher: &Dispatcher,
        give_way: &CancellationToken,
    ) -> bool {
        let questions = self.watch().questions(Moment::now());
        for question in &questions {
            let query = Query::Question(&question.question);
            let seen = tokio::select! {
                biased;
                () = give_way.cancelled() => break,
                seen = self.agree(frame, &query) => seen,
            };
            let said = match seen {
                Ok(seen) => seen.said.unwrap_or_else(|| "unclear".to_owned()),
                Err(error) => {
                    warn!(%error, rule = question.name, "the model failed on a question of the watch list");
                    return false;
                }
            };
            let found = self.watch().answer(question, Answer::read(&said), Moment::now());
            if let Some(found) = found {
                self.alert(report.event, found, &said, frame, dispatcher).await;
            }
            report.answers.push((question.name.clone(), said));
        }
        if !report.answers.is_empty() {
            self.sink.send(Report::now(Body::Camera(report)));
        }
        true
    }

    /// Raises the alert right away; then stores the evidence and reports it under the same id.
    async fn alert(
        &self,
        event: EventId,
        found: Match,
        text: &str,
        frame: &Frame,
        dispatcher: &Dispatcher,
    ) {
        let first = found.count == 1;
        let alert = dispatcher.raise_alert(event, found, text).await;
        let Some(evidence) = self.evidence.clone().filter(|_| first) else { return };
        let id = alert.alert;
        let frame = frame.clone();
        let keep = move || evidence.save(id, &frame.image, &frame.before);
        match tokio::task::spawn_blocking(keep).await {
            Ok(Ok(evidence)) => {
                self.sink.send(Report::now(Body::Alert(AlertReport { evidence, ..alert })));
            }
            Ok(Err(error)) => warn!(%error, "cannot store evidence of an alert"),
            Err(error) => warn!(%error, "cannot store evidence of an alert"),
        }
    }

    /// Repeats a query on successive pictures until enough answers agree.
    async fn agree(&self, first: &Frame, query: &Query<'_>) -> Result<Seen, ModelError> {
        let mut agreement = Agreement::new(self.agreement);
        let mut frame = first.clone();
        let verdict = loop {
            let verdict = agreement.add(self.ask(&frame, query).await?);
            self.counters.readings.add(1);
            if verdict != Verdict::Undecided {
                break verdict;
            }
            match self.camera.newer(frame.number, NEXT_PICTURE).await {
                Some(newer) => frame = newer,
                None => break agreement.finish(),
            }
        };
        let rejected = agreement.rejected(&verdict);
        self.counters.rejected.add(rejected.len() as u64);
        let said = if let Verdict::Agreed(text) = verdict { text } else { None };
        Ok(Seen { said, readings: agreement.count(), rejected })
    }

    async fn ask(&self, frame: &Frame, query: &Query<'_>) -> Result<Option<String>, ModelError> {
        let question = match query {
            Query::Text => {
                let max_new_tokens = self.max_new_tokens;
                let deadline = self.deadline;
                return read_text(
                    &self.model,
                    Origin::Camera,
                    frame.clone(),
                    max_new_tokens,
                    deadline,
                )
                .await;
            }
            Query::Question(question) => question,
        };
        let request = prompting::yes_or_no(frame.image.clone(), question, self.max_new_tokens);
        let generation = self.model.generate(Origin::Camera, request, self.deadline).await?;
        let answer = generation.text.trim();
        let plain = Answer::read(answer).map(|answer| answer.as_str().to_owned());
        Ok(plain.or_else(|| (!answer.is_empty()).then(|| answer.to_owned())))
    }

    /// Publishes a stored picture.
    ///
    /// # Errors
    /// If there is no such picture.
    pub fn show(&self, name: &str) -> Result<(), EvidenceError> {
        let jpeg = self.evidence.as_ref().ok_or(EvidenceError::Off)?.load(name)?;
        let report = EvidenceReport { name: name.to_owned(), jpeg };
        self.sink.send(Report::now(Body::Evidence(report)));
        Ok(())
    }

    /// Takes over the watch list in effect.
    fn follow(&self) {
        let rules = self.live.borrow().watch.clone();
        if let Err(error) = self.watch().change(&rules) {
            warn!(%error, "invalid watch list: keeping the previous one");
        }
    }

    fn watch(&self) -> MutexGuard<'_, WatchList> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
