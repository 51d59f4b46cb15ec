//! The thread with a model that waits to be let go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use outpost_runtime::{Error, Finish, Role, StopReason, Turn, Usage};

use super::*;
use crate::heartbeat::Heartbeats;
use crate::prompting::user;

/// Answers with the prompt's text, once the gate lets it.
struct Echo {
    gate: mpsc::Receiver<()>,
    served: mpsc::SyncSender<String>,
    forgotten: bool,
}

impl Model for Echo {
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation> {
        let outpost_runtime::Part::Text(text) = &request.turns[0].parts[0] else {
            panic!("no text")
        };
        assert!(text != "panic", "told to");
        self.served.send(text.clone()).expect("the test listens");
        while self.gate.recv_timeout(Duration::from_millis(1)).is_err() {
            stop.check()?;
        }
        text.split_inclusive(' ').for_each(say);
        let text = if self.forgotten { "forgotten".into() } else { text.clone() };
        Ok(Generation {
            text,
            calls: Vec::new(),
            finish: Finish::EndOfTurn,
            confidence: None,
            usage: Usage::default(),
        })
    }

    fn warm_up(&mut self, _request: &Request) -> outpost_runtime::Result<()> {
        Ok(())
    }

    fn forget(&mut self) {
        self.forgotten = true;
    }
}

async fn start(capacity: usize) -> (ModelThread, mpsc::SyncSender<()>, mpsc::Receiver<String>) {
    let (open, gate) = mpsc::sync_channel(16);
    let (served, log) = mpsc::sync_channel(16);
    let load = move || Ok(Box::new(Echo { gate, served, forgotten: false }) as Box<dyn Model>);
    let pulse = Heartbeats::default().part("model");
    (ModelThread::start(load, capacity, pulse).await.expect("loads"), open, log)
}

fn ask(
    thread: &ModelThread,
    origin: Origin,
    text: &str,
) -> impl Future<Output = Result<Generation, ModelError>> + use<> {
    let request = Request::new(vec![user(None, None, Some(text))]);
    let handle = thread.handle.clone();
    async move { handle.generate(origin, request, Duration::from_mins(1)).await }
}

#[tokio::test(flavor = "multi_thread")]
async fn voice_is_served_before_ask_before_camera() {
    let (thread, open, log) = start(8).await;
    let rest = async {
        assert_eq!(tokio::task::block_in_place(|| log.recv()).expect("served"), "first");
        let opening = async { (0..4).for_each(|_| open.send(()).expect("room")) };
        tokio::join!(
            ask(&thread, Origin::Camera, "camera"),
            ask(&thread, Origin::Ask, "ask"),
            ask(&thread, Origin::Voice, "voice"),
            opening,
        )
    };
    let (first, (camera, ..)) = tokio::join!(ask(&thread, Origin::Camera, "first"), rest);
    assert_eq!(
        (first.expect("answered").text, camera.expect("answered").text),
        ("first".into(), "camera".into())
    );
    assert_eq!(log.try_iter().collect::<Vec<_>>(), ["voice", "ask", "camera"]);
    thread.join();
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_thread_goes_on() {
    let (thread, open, _log) = start(8).await;
    let error = ask(&thread, Origin::Ask, "panic").await.expect_err("it panicked");
    assert!(
        matches!(&error, ModelError::Internal(message) if message.contains("told to")),
        "{error}"
    );
    open.send(()).expect("room");
    assert_eq!(ask(&thread, Origin::Ask, "next").await.expect("answered").text, "forgotten");
    thread.join();
}

#[tokio::test]
async fn the_deadline_and_the_end_stop_a_generation() {
    let (thread, _open, _log) = start(8).await;
    let request = Request::new(vec![Turn::text(Role::User, "slow")]);
    let late = thread.handle.generate(Origin::Ask, request, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(ModelError::Runtime(Error::Stopped(StopReason::Deadline)))));
    let handle = thread.handle.clone();
    let (cancelled, ()) =
        tokio::join!(ask(&thread, Origin::Ask, "cut short"), async { handle.close() });
    assert!(matches!(cancelled, Err(ModelError::Runtime(_) | ModelError::Gone)));
    assert!(matches!(ask(&thread, Origin::Ask, "too late").await, Err(ModelError::Gone)));
    thread.join();
}

#[test]
fn a_full_queue_gives_way_to_a_higher_priority() {
    let mut queue = Queue::default();
    let mut replies = Vec::new();
    for origin in [Origin::Camera, Origin::Ask, Origin::Ask, Origin::Camera] {
        let (reply, answer) = oneshot::channel();
        let request = Request::new(vec![Turn::text(Role::User, "x")]);
        let stop = Stop::never();
        let due = Instant::now();
        let job = Job { request, stop, due, words: None, reply };
        queue.push(job, rank(origin), 2);
        replies.push(answer);
    }
    let busy: Vec<bool> = replies
        .iter_mut()
        .map(|reply| {
            matches!(reply.try_recv(), Ok(Answered { result: Err(ModelError::Busy(2)), .. }))
        })
        .collect();
    assert_eq!(busy, [true, false, false, true]);
}

#[tokio::test]
async fn a_request_that_the_thread_never_takes_is_late_too() {
    let parts = Heartbeats::default();
    let shared = Arc::new(Shared::new(8, parts.part("model")));
    let (measure, capabilities) = <_>::default();
    let handle = ModelHandle { shared, measure, capabilities };
    let request = Request::new(vec![Turn::text(Role::User, "anybody there?")]);
    let asked = handle.generate(Origin::Ask, request, Duration::from_secs(5));
    assert!(tokio::time::timeout(Duration::from_millis(10), asked).await.is_err());
    let now = tokio::time::Instant::now();
    assert_eq!(parts.stuck(now), Vec::<&str>::new());
    assert_eq!(parts.stuck(now + Duration::from_secs(5) + STUCK), ["model"]);
}

/// Says a word at a time, more of them than any channel holds.
struct Talker;

const WORDS: usize = 100;

impl Model for Talker {
    fn generate(
        &mut self,
        request: &Request,
        _stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation> {
        (0..WORDS).for_each(|number| say(&format!("{number} ")));
        assert!(request.turns.len() < 2, "told to");
        Ok(Generation {
            text: String::new(),
            calls: Vec::new(),
            finish: Finish::EndOfTurn,
            confidence: None,
            usage: Usage::default(),
        })
    }

    fn warm_up(&mut self, _request: &Request) -> outpost_runtime::Result<()> {
        Ok(())
    }

    fn forget(&mut self) {}
}

#[tokio::test]
async fn a_streamed_answer_arrives_whole_however_slow_its_receiver_is() {
    let pulse = Heartbeats::default().part("model");
    let load = || Ok(Box::new(Talker) as Box<dyn Model>);
    let thread = ModelThread::start(load, 8, pulse).await.unwrap();
    let whole = (0..WORDS).fold(String::new(), |whole, number| whole + &format!("{number} "));
    // The second answer ends with a panic: what was said of it arrives all the same.
    for turns in [1, 2] {
        let request = Request::new(vec![Turn::text(Role::User, "count"); turns]);
        let (words, mut said) = tokio::sync::mpsc::channel(2);
        let limit = Duration::from_mins(1);
        let answer = thread.handle.generate_aloud(Origin::Ask, request, limit, Some(words));
        let mut answer = std::pin::pin!(answer);
        // Nobody listens until the model has ended.
        let stats = || thread.handle.stats();
        let (before, mut done) = (stats(), None);
        while stats().answered + stats().failed == before.answered + before.failed {
            tokio::select! {
                biased;
                result = &mut answer => done = Some(result),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(done.is_none(), "the end has no room yet");
        let listen = async {
            let mut heard = String::new();
            while let Some(piece) = said.recv().await {
                heard.push_str(&piece);
            }
            heard
        };
        let (result, heard) = tokio::join!(answer, listen);
        assert_eq!(heard, whole);
        assert_eq!(result.is_ok(), turns == 1);
    }
    thread.join();
}

#[test]
fn prefill_starts_only_if_nothing_else_waits() {
    let request = || Request::new(vec![Turn::text(Role::User, "x")]);
    let mut queue = Queue { prefill: Some((request(), Stop::never())), ..Queue::default() };
    assert!(matches!(queue.take(), Some(Work::Prefill(..))));

    let (reply, _answer) = oneshot::channel();
    let job =
        Job { request: request(), stop: Stop::never(), due: Instant::now(), words: None, reply };
    queue.prefill = Some((request(), Stop::never()));
    queue.push(job, rank(Origin::Camera), 2);
    assert!(matches!(queue.take(), Some(Work::Job(_))));
    assert!(queue.take().is_none(), "a job comes before prefill");

    queue.prefill = Some((request(), queue.prefill_stop.clone()));
    let ahead = queue.prefill_stop.clone();
    queue.cancel_prefill();
    assert!(queue.take().is_none() && ahead.check().is_err());
}

#[tokio::test]
async fn a_slow_receiver_misses_nothing_of_the_text() {
    let (thread, open, _log) = start(4).await;
    open.send(()).unwrap();
    let text = "one two three four five";
    let (words, mut said) = tokio::sync::mpsc::channel(1);
    let turn = user(None, None, Some(text));
    let request = Request::new(vec![turn]);
    let asked =
        thread.handle.generate_aloud(Origin::Ask, request, Duration::from_secs(10), Some(words));
    let hear = async {
        let mut heard = String::new();
        while let Some(piece) = said.recv().await {
            heard.push_str(&piece);
            // By now the model has said the rest.
            while thread.handle.stats().answered == 0 {
                tokio::task::yield_now().await;
            }
        }
        heard
    };
    let (answer, heard) = tokio::join!(asked, hear);
    assert_eq!((answer.unwrap().text.as_str(), heard.as_str()), (text, text));
}

/// A device that fails as often as it is told to, and then computes.
struct Faulty {
    faults: VecDeque<Fault>,
    /// Whether it can be used after a fault.
    is_lost: bool,
    forgotten: Arc<AtomicUsize>,
}

enum Fault {
    Panic(&'static str),
    Error(Error),
    /// After some text.
    Midway(Error),
}

impl Model for Faulty {
    fn generate(
        &mut self,
        _request: &Request,
        _stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation> {
        match self.faults.pop_front() {
            Some(Fault::Panic(words)) => panic!("{words}"),
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::Midway(error)) => {
                say("half of ");
                return Err(error);
            }
            None => say("the answer"),
        }
        Ok(Generation {
            text: "the answer".into(),
            calls: Vec::new(),
            finish: Finish::EndOfTurn,
            usage: Usage::default(),
            confidence: None,
        })
    }

    fn warm_up(&mut self, _request: &Request) -> outpost_runtime::Result<()> {
        Ok(())
    }

    fn forget(&mut self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    fn synchronize(&mut self) {
        assert!(!self.is_lost, "CUDA error: an illegal memory access was encountered");
    }
}

/// The thread with a faulty device, how often it forgot, and its heartbeat.
async fn faulty(faults: Vec<Fault>, is_lost: bool) -> (ModelThread, Arc<AtomicUsize>, Heartbeats) {
    let (forgotten, parts) = (Arc::new(AtomicUsize::new(0)), Heartbeats::default());
    let model = Faulty { faults: faults.into(), is_lost, forgotten: forgotten.clone() };
    let load = move || Ok(Box::new(model) as Box<dyn Model>);
    let thread = ModelThread::start(load, 8, parts.part("model")).await.expect("loads");
    (thread, forgotten, parts)
}

fn full() -> Error {
    Error::OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB.".into())
}

#[tokio::test]
async fn out_of_memory_forgets_kept_sessions_and_tries_once_more() {
    for fault in [
        Fault::Error(full()),
        Fault::Panic("called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory\")"),
    ] {
        let (thread, forgotten, _) = faulty(vec![fault], false).await;
        let answer = ask(&thread, Origin::Ask, "long").await.expect("room was made");
        assert_eq!((answer.text.as_str(), forgotten.load(Ordering::Relaxed)), ("the answer", 1));
        thread.join();
    }
}

#[tokio::test]
async fn a_request_that_has_no_room_at_all_fails_and_the_next_one_is_answered() {
    let (thread, forgotten, _) =
        faulty(vec![Fault::Error(full()), Fault::Error(full())], false).await;
    let error = ask(&thread, Origin::Ask, "long").await.expect_err("no room");
    assert!(matches!(error, ModelError::Runtime(Error::OutOfMemory(_))), "{error}");
    assert_eq!(forgotten.load(Ordering::Relaxed), 2);
    assert_eq!(ask(&thread, Origin::Ask, "short").await.expect("answered").text, "the answer");
    thread.join();
}

#[tokio::test]
async fn what_was_said_is_not_said_again() {
    let (thread, forgotten, _) = faulty(vec![Fault::Midway(full())], false).await;
    assert!(ask(&thread, Origin::Ask, "long").await.is_err());
    assert_eq!(forgotten.load(Ordering::Relaxed), 1);
    thread.join();
}

#[tokio::test]
async fn a_fault_that_leaves_the_device_in_order_costs_no_more_than_kept_sessions() {
    let (thread, forgotten, parts) = faulty(vec![Fault::Panic("a bad index")], false).await;
    assert!(ask(&thread, Origin::Ask, "first").await.is_err());
    assert_eq!(forgotten.load(Ordering::Relaxed), 1);
    assert_eq!(ask(&thread, Origin::Ask, "next").await.expect("answered").text, "the answer");
    let lost = tokio::time::timeout(Duration::from_millis(10), thread.handle.lost()).await;
    assert!(lost.is_err() && parts.stuck(tokio::time::Instant::now()).is_empty());
    thread.join();
}

#[tokio::test]
async fn a_lost_device_is_told_and_ends_all_requests() {
    let (thread, forgotten, parts) = faulty(vec![Fault::Panic("CUDA error")], true).await;
    let error = ask(&thread, Origin::Ask, "first").await.expect_err("it panicked");
    assert!(matches!(error, ModelError::Internal(_)), "{error}");
    thread.handle.lost().await;
    assert_eq!(forgotten.load(Ordering::Relaxed), 0, "nothing on a lost device can be freed");
    assert!(matches!(ask(&thread, Origin::Ask, "next").await, Err(ModelError::Gone)));
    // Nor is the watchdog fed, if the end should take long.
    let later = tokio::time::Instant::now() + Duration::from_secs(1);
    assert_eq!(parts.stuck(later), ["model"]);
    thread.join();
}
