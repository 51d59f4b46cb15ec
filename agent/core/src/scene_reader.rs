//! Reads a scene through the camera: several readings, alerts of the watch list, questions,
//! evidence.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outpost_tools::Moment;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::camera::{Camera, Counters};
use crate::config::{AgreementConfig, Answer, LiveSettings};
use crate::dispatch::Dispatcher;
use crate::event::{EventId, Frame, Origin};
use crate::evidence::{Evidence, EvidenceError};
use crate::live::Settings;
use crate::model_thread::{ModelError, ModelHandle};
use crate::ocr::read_text;
use crate::prompting;
use crate::report::{
    AlertReport, Body, CameraReport, EvidenceReport, Phase, Report, ReportId, Sink,
};
use crate::watch::agreement::{Agreement, Verdict};
use crate::watch::{Match, WatchList};

/// How long to wait for the next picture of a scene.
const NEXT_PICTURE: Duration = Duration::from_secs(3);
/// How often the questions of one picture are tried again when the model fails.
const RETRIES: usize = 2;

/// Reads the pictures that passed motion detection.
#[derive(Debug)]
pub struct SceneReader {
    model: ModelHandle,
    camera: Arc<dyn Camera>,
    counters: Arc<Counters>,
    agreement: AgreementConfig,
    live: tokio::sync::watch::Receiver<LiveSettings>,
    watch: Mutex<WatchList>,
    /// The latest alert of each situation that goes on.
    open: Mutex<Vec<AlertReport>>,
    unfinished: Mutex<Option<Unfinished>>,
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

/// How a look at a scene ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Done.
    Done,
    /// The model failed; the reports say where.
    Failed,
    /// The model failed on a question, which is worth another try.
    Again,
    /// Speech interrupted it.
    GaveWay,
}

/// A look whose questions were not all asked.
#[derive(Debug)]
struct Unfinished {
    report: CameraReport,
    /// How often the model failed on its questions.
    failures: usize,
}

/// Result of reading a scene.
#[derive(Debug)]
struct Seen {
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
            open: Mutex::default(),
            unfinished: Mutex::default(),
            evidence,
            sink,
            max_new_tokens: config.model.max_new_tokens,
            deadline: config.model.deadline,
        }
    }

    /// Looks at a scene: reads it, raises alerts and asks the due questions. Speech interrupts it; the same event then goes on
    /// where it stopped.
    pub async fn look(
        &self,
        event: EventId,
        started: Instant,
        frame: &Frame,
        dispatcher: &Dispatcher,
        give_way: &CancellationToken,
    ) -> Look {
        let unfinished = self.unfinished().take().filter(|known| known.report.event == event);
        let unfinished = if let Some(unfinished) = unfinished {
            unfinished
        } else {
            let read = tokio::select! {
                biased;
                () = give_way.cancelled() => return Look::GaveWay,
                read = self.agree(frame, &Query::Text) => read,
            };
            let report = self.report(event, started, frame, read, dispatcher).await;
            Unfinished { report, failures: 0 }
        };
        self.questions(unfinished, frame, dispatcher, give_way).await
    }

    /// Reports a reading and raises alerts.
    async fn report(
        &self,
        event: EventId,
        started: Instant,
        frame: &Frame,
        read: Result<Seen, ModelError>,
        dispatcher: &Dispatcher,
    ) -> CameraReport {
        let source = frame.source.clone();
        let latency = started.elapsed();
        let Seen { said: text, readings, rejected } = match read {
            Ok(seen) => seen,
            Err(error) => {
                let report = CameraReport::failed(event, source, latency, error.to_string());
                self.sink.send(Report::now(Body::Camera(report.clone())));
                return report;
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
            self.follow();
            let matches = self.watch().read(report.text.as_deref(), Moment::now());
            self.end_alerts();
            for found in matches {
                let text = report.text.as_deref().unwrap_or_default();
                self.alert(event, found, text, frame, dispatcher).await;
            }
        }
        report
    }

    /// Asks the watch list's questions; the event is reported again with the answers. A question without an answer stays due.
    async fn questions(
        &self,
        Unfinished { mut report, failures }: Unfinished,
        frame: &Frame,
        dispatcher: &Dispatcher,
        give_way: &CancellationToken,
    ) -> Look {
        // The configuration is warned of questions that the model was not made to answer.
        let asks = self.model.capabilities().chat;
        let questions = if asks { self.watch().questions(Moment::now()) } else { Vec::new() };
        let answered = report.answers.len();
        let mut end = if report.error.is_some() { Look::Failed } else { Look::Done };
        for question in &questions {
            let query = Query::Question(&question.question);
            let seen = tokio::select! {
                biased;
                () = give_way.cancelled() => {
                    end = Look::GaveWay;
                    break;
                }
                seen = self.agree(frame, &query) => seen,
            };
            let said = match seen {
                Ok(seen) => seen.said.unwrap_or_else(|| "unclear".to_owned()),
                Err(error) => {
                    warn!(%error, rule = question.name, "the model failed on a question of the watch list");
                    end = if failures < RETRIES { Look::Again } else { Look::Failed };
                    continue;
                }
            };
            let found = self.watch().answer(question, Answer::read(&said), Moment::now());
            self.end_alerts();
            if let Some(found) = found {
                self.alert(report.event, found, &said, frame, dispatcher).await;
            }
            report.answers.push((question.name.clone(), said));
        }
        if report.answers.len() > answered {
            self.sink.send(Report::now(Body::Camera(report.clone())));
        }
        let failures = failures + usize::from(end == Look::Again);
        if matches!(end, Look::GaveWay | Look::Again) {
            *self.unfinished() = Some(Unfinished { report, failures });
        }
        end
    }

    /// Raises an alert right away, then stores the evidence and reports it under the same id; or updates the alert of a
    /// situation that goes on.
    async fn alert(
        &self,
        event: EventId,
        found: Match,
        text: &str,
        frame: &Frame,
        dispatcher: &Dispatcher,
    ) {
        if found.count > 1 {
            return self.update(found.alert, |alert| {
                alert.cause = event;
                alert.count = found.count;
                text.clone_into(&mut alert.text);
            });
        }
        let Some(alert) = dispatcher.raise_alert(event, found, text).await else { return };
        self.open().push(alert.clone());
        self.report_open();
        let Some(evidence) = self.evidence.clone() else { return };
        let id = alert.alert;
        let frame = frame.clone();
        let keep = move || {
            let names = evidence.save(id, &frame.image, &frame.before)?;
            Ok::<_, EvidenceError>((names, evidence.to_publish(id)?))
        };
        match tokio::task::spawn_blocking(keep).await {
            Ok(Ok((names, picture))) => {
                if let Some(jpeg) = picture {
                    self.sink.send(Report::now(Body::AlertImage(jpeg)));
                }
                self.update(id, |alert| alert.evidence = names);
            }
            Ok(Err(error)) => warn!(%error, "cannot store evidence of an alert"),
            Err(error) => warn!(%error, "cannot store evidence of an alert"),
        }
    }

    /// Reports a change of an open alert. One that a rule refused to raise, or that is over, has none.
    fn update(&self, alert: ReportId, change: impl FnOnce(&mut AlertReport)) {
        let mut open = self.open();
        let Some(known) = open.iter_mut().find(|known| known.alert == alert) else { return };
        known.phase = Phase::Update;
        change(known);
        self.sink.send(Report::now(Body::Alert(known.clone())));
    }

    /// Ends the alerts of situations that are over, also because the watch list changed.
    pub fn end_alerts(&self) {
        self.follow();
        let over = self.watch().over(Moment::now());
        if !over.is_empty() {
            self.end(|alert| over.contains(&alert.alert));
        }
    }

    /// Ends all alerts: nobody watches any more.
    pub fn end_all_alerts(&self) {
        self.end(|_| true);
    }

    fn end(&self, is_over: impl Fn(&AlertReport) -> bool) {
        let ended: Vec<_> = self.open().extract_if(.., |alert| is_over(alert)).collect();
        if ended.is_empty() {
            return;
        }
        for alert in ended {
            let end = AlertReport { phase: Phase::End, ..alert };
            self.sink.send(Report::now(Body::Alert(end)));
        }
        self.report_open();
    }

    /// Reports which situations need attention now.
    pub fn report_open(&self) {
        let open = self.open().clone();
        self.sink.send(Report::now(Body::Alerts(open)));
    }

    /// When the next alert ends if nothing is seen.
    pub fn next_end(&self) -> Option<Instant> {
        self.watch().next_end().map(Instant::from_std)
    }

    /// The camera is off: what was in sight is out of sight.
    pub fn look_away(&self) {
        self.watch().look_away(Moment::now().instant);
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
        let live = self.live.borrow();
        if let Err(error) = self.watch().change(&live.watch) {
            warn!(%error, "invalid watch list: keeping the previous one");
        }
    }

    fn open(&self) -> MutexGuard<'_, Vec<AlertReport>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, Option<Unfinished>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> MutexGuard<'_, WatchList> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
