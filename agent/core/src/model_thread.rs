//! One OS thread owns the model and answers requests one at a time: voice before ask before camera.
//!
//! This is the one panic boundary of the program: a forward pass that panics becomes [`ModelError::Internal`], the kept
//! sessions are thrown away, and the thread goes on.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outpost_runtime::session::Adapter;
use outpost_runtime::{Engine, EngineOptions, Generation, PrefixCache, Request, Stop, StopReason};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::event::Origin;
use crate::heartbeat::Pulse;
use crate::report::ModelStats;

/// A request that is still at work so long after its deadline is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// What answers requests: the engine, or a script in tests.
pub trait Model {
    /// Answers a request, and passes on the text as it is written.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation>;

    /// Computes what the coming requests have in common with this one.
    ///
    /// # Errors
    /// As [`Engine::warm_up`].
    fn warm_up(&mut self, request: &Request) -> outpost_runtime::Result<()>;

    /// Begins with a request that may come next; where it does, its answer is the same as without. Does nothing where that is no use.
    ///
    /// # Errors
    /// As [`Engine::prepare`].
    fn prepare(&mut self, _request: &Request, _stop: &Stop) -> outpost_runtime::Result<()> {
        Ok(())
    }

    /// Drops everything kept between requests, as after a panic.
    fn forget(&mut self);
}

/// The engine and the sessions it keeps.
#[derive(Debug)]
pub struct EngineModel {
    engine: Engine,
    cache: PrefixCache,
}

impl EngineModel {
    /// Loads a packed model.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load(dir: &Path, options: &EngineOptions) -> outpost_runtime::Result<Self> {
        Ok(Self { engine: Engine::load(dir, options)?, cache: PrefixCache::new() })
    }
}

impl Model for EngineModel {
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation> {
        self.engine.generate(&mut self.cache, request, stop, say)
    }

    fn warm_up(&mut self, request: &Request) -> outpost_runtime::Result<()> {
        [Adapter::Speech, Adapter::None]
            .into_iter()
            .try_for_each(|adapter| self.engine.warm_up(&mut self.cache, request, adapter))
    }

    fn prepare(&mut self, request: &Request, stop: &Stop) -> outpost_runtime::Result<()> {
        self.engine.prepare(&mut self.cache, request, stop)
    }

    fn forget(&mut self) {
        self.cache.clear();
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The runtime refused it or was stopped.
    #[error(transparent)]
    Runtime(#[from] outpost_runtime::Error),
    /// Too many requests of the same or a higher priority wait.
    #[error("the model is busy: {0} requests wait already")]
    Busy(usize),
    /// A defect: the forward pass panicked.
    #[error("internal error in the model: {0}")]
    Internal(String),
    /// The model thread has ended.
    #[error("the model is no longer running")]
    Gone,
    /// The model thread could not be started.
    #[error("starting the model thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl ModelError {
    /// Whether the request ran out of time.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Runtime(outpost_runtime::Error::Stopped(StopReason::Deadline)))
    }
}

/// A started model thread.
#[derive(Debug)]
pub struct ModelThread {
    /// To ask it.
    pub handle: ModelHandle,
    thread: JoinHandle<()>,
}

/// Asks the model; clones ask the same one.
#[derive(Debug, Clone)]
pub struct ModelHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    capacity: usize,
    /// A request promises by when it will have come to its end, from the moment it waits: a thread that hangs before it takes
    /// the request is late as well.
    pulse: Pulse,
}

#[derive(Debug, Default)]
struct Queue {
    /// By [`rank`]: the first is served first.
    jobs: [VecDeque<Job>; 3],
    /// Of the job at work.
    current: Option<Stop>,
    /// What may come next, for when there is nothing else to do.
    expected: Option<(Request, Stop)>,
    /// Of what was expected last, which may be at work.
    ahead: Stop,
    closed: bool,
    stats: ModelStats,
}

#[derive(Debug)]
struct Job {
    request: Request,
    stop: Stop,
    due: Instant,
    /// Where the text goes as it is written.
    words: Option<mpsc::Sender<String>>,
    reply: oneshot::Sender<Result<Generation, ModelError>>,
}

/// What the thread does next.
enum Work {
    Job(Job),
    Ahead(Request, Stop),
}

fn rank(origin: Origin) -> usize {
    match origin {
        Origin::Voice => 0,
        Origin::Ask | Origin::Firmware | Origin::Schedule => 1,
        Origin::Camera | Origin::Tool => 2,
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.jobs.iter().map(VecDeque::len).sum()
    }

    /// Adds a job. When the queue is full, the latest job of a lower priority makes room; without one, the new job is refused.
    fn push(&mut self, job: Job, rank: usize, capacity: usize) {
        let waiting = self.len();
        if self.closed {
            return job.answer(Err(ModelError::Gone));
        }
        if waiting >= capacity {
            let lower = self.jobs[rank + 1..].iter_mut().rev().find_map(VecDeque::pop_back);
            match lower {
                Some(lower) => lower.answer(Err(ModelError::Busy(waiting))),
                None => return job.answer(Err(ModelError::Busy(waiting))),
            }
        }
        self.jobs[rank].push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        self.jobs.iter_mut().find_map(VecDeque::pop_front)
    }

    /// What comes next: a job, which leaves no time for what is only expected, or that.
    fn take(&mut self) -> Option<Work> {
        let expected = self.expected.take();
        let work = match self.pop() {
            Some(job) => Work::Job(job),
            None => expected.map(|(request, stop)| Work::Ahead(request, stop))?,
        };
        self.current = Some(match &work {
            Work::Job(job) => job.stop.clone(),
            Work::Ahead(_, stop) => stop.clone(),
        });
        Some(work)
    }

    fn expect_nothing(&mut self) {
        self.expected = None;
        self.ahead.cancel();
    }
}

impl Job {
    fn answer(self, answer: Result<Generation, ModelError>) {
        // The asker may have gone; then nobody wants to know.
        drop(self.reply.send(answer));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(capacity: usize, pulse: Pulse) -> Self {
        let (queue, arrived) = (Mutex::default(), Condvar::new());
        Self { queue, arrived, capacity: capacity.max(1), pulse }
    }

    fn add(&self, job: Job, origin: Origin) {
        let mut queue = self.lock();
        // Who spoke asks for what was expected; anybody else need not wait for it.
        if origin != Origin::Voice {
            queue.expect_nothing();
        }
        if queue.current.is_none() && queue.len() == 0 {
            self.pulse.promise((job.due + STUCK).into());
        }
        queue.push(job, rank(origin), self.capacity);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Waits for work; none once the queue is closed.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        queue.current = None;
        if queue.len() == 0 {
            self.pulse.rest();
        }
        let idle =
            |queue: &mut Queue| !queue.closed && queue.len() == 0 && queue.expected.is_none();
        let mut queue =
            self.arrived.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        let work = queue.take()?;
        let due = match &work {
            Work::Job(job) => job.due,
            Work::Ahead(..) => Instant::now(),
        };
        self.pulse.promise((due + STUCK).into());
        Some(work)
    }
}

impl ModelThread {
    /// Starts the thread and loads the model on it; returns once it is loaded. At most `capacity` requests wait; `pulse` tells
    /// that requests come to an end.
    ///
    /// # Errors
    /// When the model cannot be loaded or the thread not be started.
    pub async fn start<L>(load: L, capacity: usize, pulse: Pulse) -> Result<Self, ModelError>
    where
        L: FnOnce() -> outpost_runtime::Result<Box<dyn Model>> + Send + 'static,
    {
        let shared = Arc::new(Shared::new(capacity, pulse));
        let handle = ModelHandle(shared.clone());
        let (loaded, is_loaded) = oneshot::channel();
        let run = move || match guarded(load) {
            Ok(model) => {
                drop(loaded.send(Ok(())));
                serve(&shared, model);
            }
            Err(error) => drop(loaded.send(Err(error))),
        };
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(run)
            .map_err(ModelError::Thread)?;
        is_loaded.await.unwrap_or(Err(ModelError::Gone))?;
        Ok(Self { handle, thread })
    }

    /// Ends the thread: what is at work is cancelled, what waits is answered [`ModelError::Gone`].
    pub fn join(self) {
        self.handle.close();
        if self.thread.join().is_err() {
            error!("the model thread panicked outside of a request");
        }
    }
}

impl ModelHandle {
    /// Asks the model. The deadline counts from now, the time in the queue included. Dropping the future cancels the request.
    ///
    /// # Errors
    /// When the runtime refuses the request, the deadline passes, the queue is full or the model has a defect.
    pub async fn generate(
        &self,
        origin: Origin,
        request: Request,
        deadline: Duration,
    ) -> Result<Generation, ModelError> {
        self.generate_aloud(origin, request, deadline, None).await
    }

    /// As [`Self::generate`], and passes on the text as it is written. Where the receiver is slow, it gets longer pieces.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub async fn generate_aloud(
        &self,
        origin: Origin,
        request: Request,
        deadline: Duration,
        words: Option<mpsc::Sender<String>>,
    ) -> Result<Generation, ModelError> {
        let due = Instant::now() + deadline;
        let stop = Stop::at(due);
        let _cancel = CancelOnDrop(stop.clone());
        let (reply, answer) = oneshot::channel();
        self.0.add(Job { request, stop, due, words, reply }, origin);
        answer.await.unwrap_or(Err(ModelError::Gone))
    }

    /// This request may come next: the model begins with it where it has nothing else to do.
    pub fn expect(&self, request: Request) {
        let mut queue = self.0.lock();
        queue.expect_nothing();
        if queue.closed {
            return;
        }
        queue.ahead = Stop::never();
        queue.expected = Some((request, queue.ahead.clone()));
        drop(queue);
        self.0.arrived.notify_one();
    }

    /// What was expected does not come.
    pub fn expect_nothing(&self) {
        self.0.lock().expect_nothing();
    }

    /// What it was asked so far.
    pub fn stats(&self) -> ModelStats {
        let queue = self.0.lock();
        ModelStats { waiting: queue.len(), ..queue.stats.clone() }
    }

    /// Ends the thread after the job at work, which is cancelled.
    pub fn close(&self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        if let Some(current) = &queue.current {
            current.cancel();
        }
        while let Some(job) = queue.pop() {
            job.answer(Err(ModelError::Gone));
        }
        drop(queue);
        self.0.arrived.notify_all();
    }
}

struct CancelOnDrop(Stop);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn serve(shared: &Shared, mut model: Box<dyn Model>) {
    while let Some(work) = shared.next() {
        let job = match work {
            Work::Job(job) => job,
            Work::Ahead(request, stop) => {
                prepare(model.as_mut(), &request, &stop);
                continue;
            }
        };
        // A job whose deadline passed in the queue costs nothing.
        let answer = match job.stop.check() {
            Ok(()) => {
                let mut say = aloud(job.words.clone());
                guarded(|| model.generate(&job.request, &job.stop, &mut say))
            }
            Err(error) => Err(error.into()),
        };
        if matches!(answer, Err(ModelError::Internal(_))) {
            model.forget();
        }
        count(&mut shared.lock().stats, &answer);
        job.answer(answer);
    }
    info!("the model thread ends");
}

fn count(stats: &mut ModelStats, answer: &Result<Generation, ModelError>) {
    match answer {
        Ok(generation) => {
            stats.answered += 1;
            stats.tokens += generation.usage.new_tokens as u64;
            stats.decode += generation.usage.decode;
        }
        Err(_) => stats.failed += 1,
    }
}

/// Passes on text without waiting; what finds no room goes with the next piece.
fn aloud(words: Option<mpsc::Sender<String>>) -> impl FnMut(&str) {
    let mut unsaid = String::new();
    move |text| {
        let Some(words) = &words else { return };
        unsaid.push_str(text);
        if let Ok(room) = words.try_reserve() {
            room.send(std::mem::take(&mut unsaid));
        }
    }
}

/// Begins with what is expected. That it cannot be done is told when it is asked for, if it ever is.
fn prepare(model: &mut dyn Model, request: &Request, stop: &Stop) {
    let prepared = guarded(|| {
        stop.check()?;
        model.prepare(request, stop)
    });
    if matches!(prepared, Err(ModelError::Internal(_))) {
        model.forget();
    }
}

/// Runs a part of the runtime; a panic in it is an error like others.
fn guarded<T>(run: impl FnOnce() -> outpost_runtime::Result<T>) -> Result<T, ModelError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let message = panic_message(panic.as_ref());
            error!(message, "the model panicked");
            Err(ModelError::Internal(message))
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests;
