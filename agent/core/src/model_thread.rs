//! One OS thread owns the model and serves requests one at a time: voice before ask before camera.
//!
//! The only panic boundary: a panic in a forward pass becomes [`ModelError::Internal`], cached
//! sessions are dropped, and the thread continues, unless the device is lost: then the daemon ends.

mod guard;

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outpost_runtime::session::Adapter;
use outpost_runtime::{
    Capabilities, Engine, EngineOptions, Generation, PrefixCache, Request, Stop, StopReason,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::guard::{guarded, recover};
use crate::config::Capable;
use crate::event::Origin;
use crate::heartbeat::Pulse;
use crate::measure::Measure;
use crate::report::ModelStats;

/// A request still running this long after its deadline is stuck.
const STUCK: Duration = Duration::from_secs(30);

/// The engine, or a script in tests.
pub trait Model {
    /// Answers a request, streaming the text to `say`.
    ///
    /// # Errors
    /// As [`Engine::generate`].
    fn generate(
        &mut self,
        request: &Request,
        stop: &Stop,
        say: &mut dyn FnMut(&str),
    ) -> outpost_runtime::Result<Generation>;

    /// Prefills the prefix that later requests share.
    ///
    /// # Errors
    /// As [`Engine::warm_up`].
    fn warm_up(&mut self, request: &Request) -> outpost_runtime::Result<()>;

    /// Speculative prefill for a request that may come next. Does not change its answer. May do
    /// nothing.
    ///
    /// # Errors
    /// As [`Engine::prepare`].
    fn prepare(&mut self, _request: &Request, _stop: &Stop) -> outpost_runtime::Result<()> {
        Ok(())
    }

    /// Drops all cached state, as after a panic.
    fn forget(&mut self);

    /// Waits for the device. Panics if it is lost: after a fault in a kernel every later call to a GPU fails.
    fn synchronize(&mut self) {}

    /// Counts tokens as this model does.
    fn measure(&self) -> Measure {
        Measure::default()
    }

    /// What it was made for.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

/// The engine and its prefix cache.
#[derive(Debug)]
pub struct EngineModel {
    engine: Engine,
    cache: PrefixCache,
    capabilities: Capabilities,
}

/// Where computed tool lists are kept from start to start: under the cache directory that systemd or the user's session names.
/// An empty `OUTPOST_CACHE` means nowhere.
fn prefix_dir() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = named("OUTPOST_CACHE")
        .or_else(|| named("CACHE_DIRECTORY"))
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("outpost")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/outpost")))?;
    (base.is_absolute()).then(|| base.join("prefixes"))
}

impl EngineModel {
    /// Loads a packed model. `capable` says what to make of its own statement of capabilities.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load(
        dir: &Path,
        options: &EngineOptions,
        capable: Capable,
    ) -> outpost_runtime::Result<Self> {
        let cache = prefix_dir().map_or_else(PrefixCache::new, PrefixCache::on_disk);
        let engine = Engine::load(dir, options)?;
        let capabilities = capable.of(Some(engine.capabilities()));
        Ok(Self { engine, cache, capabilities })
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

    fn synchronize(&mut self) {
        self.engine.synchronize();
    }

    fn measure(&self) -> Measure {
        let tokenizer = self.engine.tokenizer().clone();
        // Text that cannot be tokenized has at most one token a byte.
        let count = move |text: &str| tokenizer.encode(text).map_or(text.len(), |ids| ids.len());
        Measure::new(count, self.engine.context())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The runtime rejected or stopped it.
    #[error(transparent)]
    Runtime(#[from] outpost_runtime::Error),
    /// The queue is full of requests of the same or a higher priority.
    #[error("the model is busy: {0} requests wait already")]
    Busy(usize),
    /// Internal error: the forward pass panicked.
    #[error("internal error in the model: {0}")]
    Internal(String),
    /// The thread has ended.
    #[error("the model is no longer running")]
    Gone,
    /// The thread could not be started.
    #[error("starting the model thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl ModelError {
    /// Whether the model's state may be damaged, or its device.
    fn is_fault(&self) -> bool {
        match self {
            Self::Internal(_) => true,
            Self::Runtime(error) => error.is_of_device(),
            _ => false,
        }
    }

    /// Whether the deadline was exceeded.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Runtime(outpost_runtime::Error::Stopped(StopReason::Deadline)))
    }
}

/// A started model thread.
#[derive(Debug)]
pub struct ModelThread {
    /// Handle for requests.
    pub handle: ModelHandle,
    thread: JoinHandle<()>,
}

/// Handle for requests. Clones share the thread.
#[derive(Debug, Clone)]
pub struct ModelHandle {
    shared: Arc<Shared>,
    measure: Measure,
    capabilities: Arc<Capabilities>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    capacity: usize,
    /// Promises an end from the moment a request is queued, so that a thread that hangs before
    /// taking it is late as well.
    pulse: Pulse,
    /// Cancelled once the device is lost.
    lost: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    /// By [`rank`], highest priority first.
    jobs: [VecDeque<Job>; 3],
    /// Stop handle of the job in progress.
    current: Option<Stop>,
    /// Speculative prefill, done when idle.
    prefill: Option<(Request, Stop)>,
    /// Stop handle of the latest prefill.
    prefill_stop: Stop,
    closed: bool,
    stats: ModelStats,
}

#[derive(Debug)]
struct Job {
    request: Request,
    stop: Stop,
    due: Instant,
    /// Receives the text while it is generated.
    words: Option<mpsc::Sender<String>>,
    reply: oneshot::Sender<Answered>,
}

/// The end of a request.
#[derive(Debug)]
struct Answered {
    result: Result<Generation, ModelError>,
    /// The end of the text, for which `words` had no room.
    unsaid: String,
}

impl Answered {
    fn error(error: ModelError) -> Self {
        Self { result: Err(error), unsaid: String::new() }
    }
}

/// Next piece of work.
enum Work {
    Job(Job),
    Prefill(Request, Stop),
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

    /// Adds a job. When full, the newest job of a lower priority is dropped; if there is none, the
    /// new job is rejected.
    fn push(&mut self, job: Job, rank: usize, capacity: usize) {
        let waiting = self.len();
        if self.closed {
            return job.answer(Answered::error(ModelError::Gone));
        }
        if waiting >= capacity {
            let lower = self.jobs[rank + 1..].iter_mut().rev().find_map(VecDeque::pop_back);
            match lower {
                Some(lower) => lower.answer(Answered::error(ModelError::Busy(waiting))),
                None => return job.answer(Answered::error(ModelError::Busy(waiting))),
            }
        }
        self.jobs[rank].push_back(job);
    }

    fn pop(&mut self) -> Option<Job> {
        self.jobs.iter_mut().find_map(VecDeque::pop_front)
    }

    /// Takes the next job; prefill only if there is none.
    fn take(&mut self) -> Option<Work> {
        let prefill = self.prefill.take();
        let work = match self.pop() {
            Some(job) => Work::Job(job),
            None => prefill.map(|(request, stop)| Work::Prefill(request, stop))?,
        };
        self.current = Some(match &work {
            Work::Job(job) => job.stop.clone(),
            Work::Prefill(_, stop) => stop.clone(),
        });
        Some(work)
    }

    fn cancel_prefill(&mut self) {
        self.prefill = None;
        self.prefill_stop.cancel();
    }
}

impl Job {
    fn answer(self, answer: Answered) {
        // The requester may be gone.
        drop(self.reply.send(answer));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new(capacity: usize, pulse: Pulse) -> Self {
        let queue = Mutex::default();
        let (arrived, lost) = (Condvar::new(), CancellationToken::new());
        Self { queue, arrived, capacity: capacity.max(1), pulse, lost }
    }

    /// Cancels the current request, fails queued ones, and takes no more.
    fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        if let Some(current) = &queue.current {
            current.cancel();
        }
        while let Some(job) = queue.pop() {
            job.answer(Answered::error(ModelError::Gone));
        }
        drop(queue);
        self.arrived.notify_all();
    }

    fn add(&self, job: Job, origin: Origin) {
        let mut queue = self.lock();
        // Voice requests use the prefill; others should not wait for it.
        if origin != Origin::Voice {
            queue.cancel_prefill();
        }
        if queue.current.is_none() && queue.len() == 0 {
            self.pulse.promise((job.due + STUCK).into());
        }
        queue.push(job, rank(origin), self.capacity);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Waits for work. `None` once the queue is closed.
    fn next(&self) -> Option<Work> {
        let mut queue = self.lock();
        queue.current = None;
        if queue.len() == 0 {
            self.pulse.rest();
        }
        let idle = |queue: &mut Queue| !queue.closed && queue.len() == 0 && queue.prefill.is_none();
        let mut queue =
            self.arrived.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        let work = queue.take()?;
        let due = match &work {
            Work::Job(job) => job.due,
            Work::Prefill(..) => Instant::now(),
        };
        self.pulse.promise((due + STUCK).into());
        Some(work)
    }
}

impl ModelThread {
    /// Starts the thread and loads the model on it; returns once it is loaded. At most `capacity`
    /// requests are queued. `pulse` reports progress.
    ///
    /// # Errors
    /// If the model cannot be loaded or the thread cannot be started.
    pub async fn start<L>(load: L, capacity: usize, pulse: Pulse) -> Result<Self, ModelError>
    where
        L: FnOnce() -> outpost_runtime::Result<Box<dyn Model>> + Send + 'static,
    {
        let shared = Arc::new(Shared::new(capacity, pulse));
        let queue = shared.clone();
        let (loaded, is_loaded) = oneshot::channel();
        let run = move || match guarded(load) {
            Ok(model) => {
                drop(loaded.send(Ok((model.measure(), model.capabilities()))));
                serve(&shared, model);
            }
            Err(error) => drop(loaded.send(Err(error))),
        };
        let thread = std::thread::Builder::new()
            .name("model".into())
            .spawn(run)
            .map_err(ModelError::Thread)?;
        let (measure, capabilities) = is_loaded.await.unwrap_or(Err(ModelError::Gone))?;
        let capabilities = Arc::new(capabilities);
        Ok(Self { handle: ModelHandle { shared: queue, measure, capabilities }, thread })
    }

    /// Ends the thread: cancels the current request and fails queued ones with
    /// [`ModelError::Gone`].
    pub fn join(self) {
        self.handle.close();
        if self.thread.join().is_err() {
            error!("the model thread panicked outside of a request");
        }
    }
}

impl ModelHandle {
    /// Runs a request. The deadline includes time in the queue. Dropping the future cancels the
    /// request.
    ///
    /// # Errors
    /// If the runtime rejects the request, the deadline passes, the queue is full, or the model
    /// panics.
    pub async fn generate(
        &self,
        origin: Origin,
        request: Request,
        deadline: Duration,
    ) -> Result<Generation, ModelError> {
        self.generate_aloud(origin, request, deadline, None).await
    }

    /// As [`Self::generate`], streaming the text to `words`. A slow receiver gets longer pieces.
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
        let job = Job { request, stop, due, words: words.clone(), reply };
        self.shared.add(job, origin);
        let answered = answer.await.unwrap_or_else(|_| Answered::error(ModelError::Gone));
        let Answered { result, unsaid } = answered;
        // The thread does not wait for a slow receiver; its caller does.
        if let Some(words) = words.filter(|_| !unsaid.is_empty()) {
            // The receiver may be gone.
            drop(words.send(unsaid).await);
        }
        result
    }

    /// Prefills a request that may come next, when idle.
    pub fn prefill(&self, request: Request) {
        let mut queue = self.shared.lock();
        queue.cancel_prefill();
        if queue.closed {
            return;
        }
        queue.prefill_stop = Stop::never();
        queue.prefill = Some((request, queue.prefill_stop.clone()));
        drop(queue);
        self.shared.arrived.notify_one();
    }

    /// Cancels the prefill.
    pub fn cancel_prefill(&self) {
        self.shared.lock().cancel_prefill();
    }

    /// Counts tokens as the model does.
    pub fn measure(&self) -> &Measure {
        &self.measure
    }

    /// What the model was made for.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Statistics.
    pub fn stats(&self) -> ModelStats {
        let queue = self.shared.lock();
        ModelStats { waiting: queue.len(), ..queue.stats.clone() }
    }

    /// Waits until the device is lost. No request is answered from then on: end the process, and start it again.
    pub async fn lost(&self) {
        self.shared.lost.cancelled().await;
    }

    /// Closes the queue and cancels the current request.
    pub fn close(&self) {
        self.shared.close();
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
        let is_well = match work {
            Work::Job(job) => answer(shared, model.as_mut(), job),
            Work::Prefill(request, stop) => prepare(model.as_mut(), &request, &stop),
        };
        if !is_well {
            error!("the device is lost: the process has to end");
            // What lies on a lost device can't be freed either.
            std::mem::forget(model);
            shared.close();
            shared.pulse.promise(Instant::now().into());
            shared.lost.cancel();
            return;
        }
    }
    info!("the model thread stopped");
}

/// Answers a job. False if the device is lost.
fn answer(shared: &Shared, model: &mut dyn Model, job: Job) -> bool {
    let (mut unsaid, spoke) = (String::new(), Cell::new(false));
    let mut generate = |model: &mut dyn Model| {
        let mut say = |text: &str| {
            spoke.set(true);
            aloud(job.words.as_ref(), &mut unsaid, text);
        };
        let result = guarded(|| {
            // An expired job costs nothing.
            job.stop.check()?;
            model.generate(&job.request, &job.stop, &mut say)
        });
        (recover(model, &result), result)
    };
    let (mut is_well, mut result) = generate(model);
    let is_full =
        matches!(result, Err(ModelError::Runtime(outpost_runtime::Error::OutOfMemory(_))));
    if is_well && is_full && !spoke.get() {
        warn!("out of memory: kept sessions are forgotten, and the request is tried once more");
        (is_well, result) = generate(model);
    }
    count(&mut shared.lock().stats, &result);
    job.answer(Answered { result, unsaid });
    is_well
}

fn count(stats: &mut ModelStats, answer: &Result<Generation, ModelError>) {
    match answer {
        Ok(generation) => {
            stats.answered += 1;
            stats.tokens += generation.usage.new_tokens as u64;
            stats.decode += generation.usage.decode;
            generation.confidence.into_iter().for_each(|sure| stats.decide(sure));
        }
        Err(_) => stats.failed += 1,
    }
}

/// Streams without blocking; text that finds no room goes with the next piece, or after the last.
fn aloud(words: Option<&mpsc::Sender<String>>, unsaid: &mut String, text: &str) {
    let Some(words) = words else { return };
    unsaid.push_str(text);
    if let Ok(room) = words.try_reserve() {
        room.send(std::mem::take(unsaid));
    }
}

/// Prefills speculatively. Errors surface only when the result is requested. False if the device is lost.
fn prepare(model: &mut dyn Model, request: &Request, stop: &Stop) -> bool {
    let prepared = guarded(|| {
        stop.check()?;
        model.prepare(request, stop)
    });
    recover(model, &prepared)
}

#[cfg(test)]
mod tests;
