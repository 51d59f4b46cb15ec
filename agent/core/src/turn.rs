//! A turn: one event, what the model makes of it, tool calls, reports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outpost_runtime::{Audio, Confidence, Generation, Request, ToolSpec};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::config::LiveSettings;
use crate::dispatch::{CallResult, Cause, Dispatcher};
use crate::event::{Ask, Consent, Event, EventId, Origin, Payload, Utterance};
use crate::live::Settings;
use crate::model_thread::ModelHandle;
use crate::repeats::{Repeat, Repeats};
use crate::report::{
    AnswerReport, Body, CameraReport, Report, ReportId, Sink, Unheard, VoiceOutcome, VoiceReport,
};
use crate::scene_reader::{Look, SceneReader};
use crate::transcript::{is_said, is_yes};
use crate::written::holds_marks;
use crate::{asked, prompting};

/// Streamed pieces in flight; when full, pieces get longer.
const PIECES: usize = 16;

/// Progress of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The model called tools.
    CallsStarted,
    /// The results go back to the model.
    CallsEnded,
}

/// How a turn ended.
#[derive(Debug)]
pub enum Ended {
    /// Done.
    Done,
    /// Failed; the reports say why. The event may have to be handled again.
    Failed(Option<Box<Event>>),
    /// Interrupted by speech: the event can be handled later.
    GaveWay(Box<Event>),
}

impl Ended {
    fn when(done: bool) -> Self {
        if done { Self::Done } else { Self::Failed(None) }
    }
}

/// Handles events one at a time.
#[derive(Debug)]
pub struct Turns {
    model: ModelHandle,
    dispatcher: Dispatcher,
    scene_reader: SceneReader,
    sink: Arc<dyn Sink>,
    live: watch::Receiver<LiveSettings>,
    repeats: Mutex<Repeats>,
    max_new_tokens: usize,
    deadline: Duration,
    /// Calls of which the model is less sure are not made.
    min_confidence: f64,
    /// The same of guarded tools, if it is higher.
    min_confidence_guarded: f64,
    /// The wake phrase, if the model verifies it.
    phrase: Option<String>,
    /// Phrases that confirm a call.
    yes: Vec<String>,
}

/// Outcome of a conversation.
#[derive(Debug, Default)]
struct Conversation {
    text: String,
    calls: Vec<String>,
    /// How sure the model was of all its decisions.
    confidence: Option<Confidence>,
    /// Result of a call made without the model.
    result: Option<serde_json::Value>,
    error: Option<String>,
    timed_out: bool,
}

impl Conversation {
    fn outcome(&self) -> VoiceOutcome {
        match &self.error {
            Some(_) if self.timed_out => VoiceOutcome::TimedOut,
            Some(_) => VoiceOutcome::Failed,
            None if !self.calls.is_empty() => VoiceOutcome::Called,
            None if ["", prompting::REFUSAL, prompting::NOT_UNDERSTOOD]
                .contains(&self.text.as_str()) =>
            {
                VoiceOutcome::NotUnderstood
            }
            None => VoiceOutcome::Answered,
        }
    }
}

impl Turns {
    /// Creates turns. Live settings and tools are read when a turn starts.
    pub fn new(
        model: ModelHandle,
        dispatcher: Dispatcher,
        scene_reader: SceneReader,
        sink: Arc<dyn Sink>,
        settings: &Settings<'_>,
    ) -> Self {
        let Settings { file: config, live } = settings;
        Self {
            model,
            dispatcher,
            scene_reader,
            sink,
            live: live.clone(),
            repeats: Mutex::default(),
            max_new_tokens: config.model.max_new_tokens,
            deadline: config.model.deadline,
            min_confidence: config.agent.min_confidence,
            min_confidence_guarded: config.agent.min_confidence_guarded,
            phrase: config.microphone.wake.phrase.clone(),
            yes: config.policy.yes.clone(),
        }
    }

    /// Prefills an utterance that may be complete.
    pub fn prefill(&self, utterance: &Utterance) {
        let turn = prompting::user(None, Some(utterance.audio.clone()), None);
        self.model.prefill(prompting::command(
            turn,
            self.dispatcher.offer().tools(),
            self.max_new_tokens,
        ));
    }

    /// Cancels the prefill: the speaker continued.
    pub fn cancel_prefill(&self) {
        self.model.cancel_prefill();
    }

    /// The pending confirmation that an utterance ending now may answer.
    pub fn asked_before(&self, utterance: &Utterance) -> Option<ReportId> {
        self.dispatcher.confirmations().asked_before(utterance.duration())
    }

    /// Handles an answer by button or MQTT.
    pub fn answer_call(&self, consent: &Consent) {
        if !self.dispatcher.confirmations().answer(consent) {
            debug!(call = consent.call, yes = consent.yes, "no call waits for this answer");
        }
    }

    /// Handles a spoken answer: anything but a clear yes is a no.
    pub async fn hear_answer(&self, call: ReportId, utterance: Utterance, started: Instant) {
        let transcript = self.transcript(utterance.audio.clone()).await;
        let yes = transcript.as_ref().is_some_and(|said| is_yes(said, &self.yes));
        let taken = match &transcript {
            Some(_) => {
                let consent = Consent { call: Some(call.to_string()), yes };
                self.dispatcher.confirmations().answer(&consent)
            }
            None => false,
        };
        let outcome = match (taken, yes) {
            (true, true) => VoiceOutcome::Confirmed,
            (true, false) => VoiceOutcome::Declined,
            (false, _) if transcript.is_none() => VoiceOutcome::Failed,
            (false, _) => VoiceOutcome::NotUnderstood,
        };
        let duration = utterance.duration();
        let Utterance { source, start, .. } = utterance;
        let report = VoiceReport::nothing(Unheard::Noise, source, start, duration);
        let latency = started.elapsed();
        let report = VoiceReport { outcome, transcript, latency, ..report };
        self.sink.send(Report::now(Body::Voice(report)));
    }

    /// Reports an utterance dropped by mute.
    pub fn leave_unheard(&self, event: Event) {
        if let Payload::Utterance(utterance) = event.payload {
            let duration = utterance.duration();
            let Utterance { source, start, .. } = utterance;
            let report = VoiceReport::nothing(Unheard::Muted, source, start, duration);
            self.sink.send(Report::now(Body::Voice(report)));
        }
    }

    /// Handles an event. A picture can be interrupted until it is read.
    pub async fn handle(
        &self,
        event: Event,
        progress: mpsc::Sender<Progress>,
        give_way: CancellationToken,
    ) -> Ended {
        let id = event.id;
        let started = event.at;
        match event.payload.clone() {
            Payload::Utterance(utterance) => {
                Ended::when(self.voice(id, utterance, started, &progress).await)
            }
            Payload::Ask(ask) => Ended::when(self.ask(id, ask, started, &progress).await),
            Payload::Frame(frame) => {
                match self.scene_reader.look(id, started, &frame, &self.dispatcher, &give_way).await
                {
                    Look::Done => Ended::Done,
                    Look::Failed => Ended::Failed(None),
                    Look::Again => Ended::Failed(Some(Box::new(event))),
                    Look::GaveWay => Ended::GaveWay(Box::new(event)),
                }
            }
        }
    }

    /// Whether an ask is new. A repeated one gets the first answer again, if there is one yet.
    pub fn is_new(&self, event: EventId, ask: &Ask) -> bool {
        let repeat = self.repeats().ask(ask, event, Instant::now());
        match repeat {
            Repeat::New => return true,
            Repeat::UnderWay => {}
            Repeat::Answered(answer) => self.sink.send(Report::now(Body::Answer(*answer))),
        }
        info!(transaction = ask.transaction, "duplicate request: not handled again");
        false
    }

    /// Rejects an event because a queue is full. It may be retried.
    pub fn refuse(&self, event: Event) {
        self.repeats().forget(event.id);
        self.abandon(event, "busy: too many questions wait already");
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports an event that is dropped.
    pub fn abandon(&self, event: Event, reason: &str) {
        let outcome = Conversation { error: Some(reason.to_owned()), ..Conversation::default() };
        let id = event.id;
        let latency = event.age();
        match event.payload {
            Payload::Utterance(utterance) => self.heard(id, utterance, None, outcome, latency),
            Payload::Ask(ask) => self.answer(id, ask, outcome, latency),
            Payload::Frame(frame) => {
                let report = CameraReport::failed(id, frame.source, latency, reason.to_owned());
                self.sink.send(Report::now(Body::Camera(report)));
            }
        }
    }

    /// The watch list's situations.
    pub fn scenes(&self) -> &SceneReader {
        &self.scene_reader
    }

    /// Publishes evidence, or reports why it cannot.
    pub fn show_evidence(&self, name: &str) {
        if let Err(error) = self.scene_reader.show(name) {
            let ask = Ask::default();
            self.abandon(Event::now(Payload::Ask(ask)), &error.to_string());
        }
    }

    async fn voice(
        &self,
        event: EventId,
        utterance: Utterance,
        started: Instant,
        progress: &mpsc::Sender<Progress>,
    ) -> bool {
        if let Some(report) = self.unwanted(event, &utterance).await {
            self.sink.send(Report::now(Body::Voice(report)));
            return true;
        }
        let transcribe = self.live.borrow().transcribe;
        let audio = utterance.audio.clone();
        let turn = prompting::user(None, Some(audio.clone()), None);
        let offer = self.dispatcher.offer();
        let request = prompting::command(turn, offer.tools(), self.max_new_tokens);
        let cause = Cause { event, origin: Origin::Voice, doubtful: offer.foreign };
        let outcome = self.converse(cause, request, offer.tools(), progress, None).await;
        let latency = started.elapsed();
        let transcript = if transcribe { self.transcript(audio).await } else { None };
        let done = outcome.error.is_none();
        self.heard(event, utterance, transcript, outcome, latency);
        done
    }

    fn heard(
        &self,
        event: EventId,
        utterance: Utterance,
        transcript: Option<String>,
        outcome: Conversation,
        latency: Duration,
    ) {
        self.sink.send(Report::now(Body::Voice(VoiceReport {
            event,
            outcome: outcome.outcome(),
            duration: utterance.duration(),
            source: utterance.source,
            start: utterance.start,
            transcript,
            text: outcome.text,
            calls: outcome.calls,
            confidence: outcome.confidence,
            latency,
            error: outcome.error,
        })));
    }

    /// The report of an utterance if the model does not hear the wake phrase in it.
    async fn unwanted(&self, event: EventId, utterance: &Utterance) -> Option<VoiceReport> {
        let phrase = self.phrase.as_ref()?;
        let word = utterance.word.clone()?;
        let transcript = self.transcript(word).await?;
        if is_said(phrase, &transcript) {
            return None;
        }
        let source = utterance.source.clone();
        let start = utterance.start;
        let report = VoiceReport::nothing(Unheard::Noise, source, start, utterance.duration());
        Some(VoiceReport { event, transcript: Some(transcript), ..report })
    }

    async fn transcript(&self, audio: Audio) -> Option<String> {
        let request = prompting::transcribe(audio, self.max_new_tokens);
        let generation = self.model.generate(Origin::Voice, request, self.deadline).await.ok()?;
        Some(generation.text.trim().to_owned())
    }

    async fn ask(
        &self,
        event: EventId,
        ask: Ask,
        started: Instant,
        progress: &mpsc::Sender<Progress>,
    ) -> bool {
        // A call that was asked for word by word went past no model.
        let cause = Cause { event, origin: ask.origin, doubtful: false };
        let offer = self.dispatcher.offer();
        let tools = offer.tools();
        if let Some(call) = &ask.call {
            let calls = vec![call.name.clone()];
            tell(progress, Progress::CallsStarted).await;
            let done = self.dispatcher.call(call, cause, &offer.callable()).await;
            tell(progress, Progress::CallsEnded).await;
            if done.undone {
                self.repeats().forget(event);
            }
            let result = Some(done.for_model);
            let outcome = Conversation { calls, result, ..Conversation::default() };
            self.answer(event, ask, outcome, started.elapsed());
            return true;
        }
        let capabilities = self.model.capabilities();
        let request = asked::request(&ask, tools, capabilities, self.max_new_tokens).await;
        let request = match request {
            Ok(request) => request,
            Err(fault) => {
                let error = Some(fault.to_string());
                let outcome = Conversation { error, ..Conversation::default() };
                self.repeats().forget(event);
                self.answer(event, ask, outcome, started.elapsed());
                // The turn is done: the fault is the requester's.
                return true;
            }
        };
        let doubtful = offer.foreign || holds_marks(&ask.prompt);
        let cause = Cause { doubtful, ..cause };
        let (words, said) = mpsc::channel(PIECES);
        let words = ask.stream.then_some(words);
        let (outcome, ()) = tokio::join!(
            self.converse(cause, request, tools, progress, words),
            asked::tell(&*self.sink, event, &ask, said),
        );
        let done = outcome.error.is_none();
        if !done && outcome.calls.is_empty() {
            self.repeats().forget(event);
        }
        self.answer(event, ask, outcome, started.elapsed());
        done
    }

    fn answer(&self, event: EventId, ask: Ask, outcome: Conversation, latency: Duration) {
        // The model was not asked where the call was given or something went wrong before.
        let was_asked = outcome.result.is_none() && outcome.error.is_none();
        let answer = AnswerReport {
            event,
            transaction: ask.transaction,
            respond_to: ask.respond_to,
            outcome: was_asked.then(|| outcome.outcome()),
            confidence: outcome.confidence,
            text: outcome.text,
            calls: outcome.calls,
            result: outcome.result,
            latency,
            error: outcome.error,
            repeated: false,
        };
        self.repeats().answered(&answer);
        self.sink.send(Report::now(Body::Answer(answer)));
    }

    /// Whether the model is not sure enough of its calls.
    fn is_doubtful(&self, Generation { calls, confidence, .. }: &Generation) -> bool {
        let registry = self.dispatcher.registry();
        let guards = calls.iter().any(|call| registry.guards(&call.name));
        let bound = self.min_confidence;
        let wanted = if guards { bound.max(self.min_confidence_guarded) } else { bound };
        let Some((_, least)) = confidence.map(Confidence::probabilities) else { return false };
        let is_doubtful = !calls.is_empty() && f64::from(least) < wanted;
        if is_doubtful {
            let tools: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
            info!(tools = tools.join(", "), least, wanted, "did not make a doubtful call");
        }
        is_doubtful
    }

    /// Runs the model and its calls until it answers without a call or reaches the limit of rounds.
    async fn converse(
        &self,
        mut cause: Cause,
        mut request: Request,
        tools: &[ToolSpec],
        progress: &mpsc::Sender<Progress>,
        words: Option<mpsc::Sender<String>>,
    ) -> Conversation {
        let mut outcome = Conversation::default();
        let origin = cause.origin;
        let max_steps = self.live.borrow().max_steps;
        let mut room = self.model.measure().results();
        let capabilities = self.model.capabilities();
        let mut done = false;
        for step in 0..=max_steps {
            let asked = request.clone();
            // An acknowledgement is a claim, and isn't streamed before it is known to be true.
            let claims =
                !done && !request.tools.is_empty() && !capabilities.acknowledgements.is_empty();
            let aloud = words.clone().filter(|_| !claims);
            let generation = self.model.generate_aloud(origin, asked, self.deadline, aloud).await;
            let generation = match generation {
                Ok(generation) => generation,
                Err(error) => {
                    outcome.timed_out = error.is_deadline();
                    outcome.error = Some(error.to_string());
                    return outcome;
                }
            };
            if let Some(decided) = generation.confidence {
                let all = outcome.confidence.map_or(decided, |earlier| earlier.and(decided));
                outcome.confidence = Some(all);
            }
            if self.is_doubtful(&generation) {
                prompting::NOT_UNDERSTOOD.clone_into(&mut outcome.text);
                return outcome;
            }
            if generation.calls.is_empty() {
                let said = generation.text.trim();
                let is_claim = claims && capabilities.acknowledges(said);
                let said = match (is_claim, outcome.calls.is_empty()) {
                    (false, _) => said,
                    (true, true) => prompting::NOT_UNDERSTOOD,
                    (true, false) => prompting::NOT_DONE,
                };
                said.clone_into(&mut outcome.text);
                if let Some(words) = words.filter(|_| claims) {
                    // The receiver may be gone.
                    drop(words.send(outcome.text.clone()).await);
                }
                return outcome;
            }
            if step == max_steps {
                break;
            }
            tell(progress, Progress::CallsStarted).await;
            outcome.calls.extend(generation.calls.iter().map(|call| call.name.clone()));
            let results = self.dispatcher.call_all(&generation.calls, cause, tools).await;
            done |= results.iter().any(CallResult::is_done);
            // The model made these calls before it saw the results.
            if let Some(origin) = results.iter().find_map(|result| result.taints) {
                cause.origin = origin;
            }
            let results = results.into_iter().map(|result| result.for_model);
            let results = self.model.measure().results_within(results.collect(), &mut room);
            prompting::respond(&mut request, generation.calls, results);
            tell(progress, Progress::CallsEnded).await;
        }
        outcome.error = Some(format!("stopped after {max_steps} rounds of tool calls"));
        outcome
    }
}

/// Sends progress, and yields to the loop.
async fn tell(progress: &mpsc::Sender<Progress>, what: Progress) {
    // Fails only during shutdown.
    if progress.send(what).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
