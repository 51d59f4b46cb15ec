//! The daemon's tasks: their shutdown in two steps, and what a panic in one does.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::error;

use crate::back_off::BackOff;

/// Pauses before a task that panicked is started again.
const BACK_OFF: BackOff = BackOff::new(Duration::from_secs(1), Duration::from_mins(1));
/// After a run this long the pauses start with the first again.
const LASTED: Duration = Duration::from_mins(5);

/// A task's future.
pub type Run<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Starts tasks, stops them and waits for them. Clones share the group.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    /// Tracks all tasks.
    pub tracker: TaskTracker,
    /// First step: stops the agent and its sources of work.
    pub stop: CancellationToken,
    /// Second step: disconnects broker and board, once all reports are out.
    pub disconnect: CancellationToken,
    /// Cancelled when a task has panicked without which the daemon is of no use.
    pub broken: CancellationToken,
    restarts: Arc<StdMutex<BTreeMap<&'static str, u64>>>,
}

impl TaskGroup {
    /// Spawns a task that handles shutdown itself. A panic in it cancels [`Self::broken`].
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
        let broken = self.broken.clone();
        let guard = OnPanic(move || {
            let task = std::any::type_name::<F>();
            error!(task, "a task panicked that cannot be started again");
            broken.cancel();
        });
        self.tracker.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Spawns a task whose owner notices its end and starts another. A panic in it is logged, and counted under `name`.
    pub fn spawn_owned<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        task: F,
    ) -> AbortHandle {
        let group = self.clone();
        let guard = OnPanic(move || {
            error!(task = name, "a task panicked: it is started again");
            group.count(name);
        });
        let task = async move {
            let _guard = guard;
            task.await;
        };
        self.tracker.spawn(task).abort_handle()
    }

    /// Spawns a task that is dropped on `end`. If it panics, that is counted under `name`, and it is
    /// started again after a pause, with its `state` as the panic left it.
    pub fn supervise<T: Send + 'static>(
        &self,
        name: &'static str,
        end: &CancellationToken,
        state: T,
        run: impl for<'a> Fn(&'a mut T) -> Run<'a> + Send + Sync + 'static,
    ) {
        let (group, end) = (self.clone(), end.clone());
        let shared = Arc::new((Mutex::new(state), run));
        self.spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = group.restart(name, &shared) => {}
            }
        });
    }

    /// Runs a task until it ends without a panic.
    async fn restart<T: Send + 'static>(
        &self,
        name: &'static str,
        shared: &Arc<(Mutex<T>, impl for<'a> Fn(&'a mut T) -> Run<'a> + Send + Sync + 'static)>,
    ) {
        let mut back_off = BACK_OFF;
        loop {
            let started = Instant::now();
            let shared = Arc::clone(shared);
            // A task of its own: a panic goes no further than that.
            let running = self.tracker.spawn(async move {
                let (state, run) = &*shared;
                run(&mut *state.lock().await).await;
            });
            let Err(fault) = AbortOnDropHandle::new(running).await else { return };
            if started.elapsed() > LASTED {
                back_off.reset();
            }
            let retry_in = back_off.pause();
            error!(task = name, %fault, ?retry_in, "a task panicked: it is started again");
            self.count(name);
            sleep(retry_in).await;
        }
    }

    fn count(&self, name: &'static str) {
        *self.counts().entry(name).or_default() += 1;
    }

    /// How often tasks were started again after a panic, by name.
    pub fn restarts(&self) -> Vec<(&'static str, u64)> {
        self.counts().iter().map(|(name, count)| (*name, *count)).collect()
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls its function if it is dropped by a panic.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Worker {
        work: mpsc::Receiver<u32>,
        done: mpsc::Sender<u32>,
    }

    impl Worker {
        async fn run(&mut self) {
            while let Some(work) = self.work.recv().await {
                assert!(!work.is_multiple_of(2), "{work} is even");
                self.done.send(work).await.expect("somebody waits");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_with_what_it_had() {
        let group = TaskGroup::default();
        let ((out, work), (done, mut told)) = (mpsc::channel(16), mpsc::channel(16));
        group.supervise("worker", &group.stop, Worker { work, done }, |worker| {
            Box::pin(worker.run())
        });
        for work in 1..=6 {
            out.send(work).await.expect("there is a worker");
        }
        for expected in [1, 3, 5] {
            assert_eq!(told.recv().await, Some(expected));
        }
        drop(out);
        group.tracker.close();
        // It ends once it does so by itself.
        group.tracker.wait().await;
        assert_eq!(group.restarts(), [("worker", 3)]);
        assert!(!group.broken.is_cancelled());
        assert_eq!(told.recv().await, None, "what it had is gone with it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervised_task_ends_when_it_should_also_between_two_runs() {
        let group = TaskGroup::default();
        let ((out, work), (done, mut told)) = (mpsc::channel(16), mpsc::channel(16));
        let (idle, _kept) = mpsc::channel::<u32>(1);
        let worker = Worker { work, done };
        group.supervise("worker", &group.stop, worker, |worker| Box::pin(worker.run()));
        group.supervise("idle", &group.disconnect, idle, |idle| Box::pin(idle.closed()));
        out.send(2).await.expect("there is a worker");
        while group.restarts().is_empty() {
            tokio::task::yield_now().await;
        }
        group.stop.cancel();
        assert_eq!(told.recv().await, None);
        group.tracker.close();
        assert_eq!(group.tracker.len(), 2, "the other one goes on");
        group.disconnect.cancel();
        group.tracker.wait().await;
    }

    #[tokio::test]
    async fn a_panic_in_a_task_that_has_an_owner_is_counted() {
        let group = TaskGroup::default();
        group.spawn_owned("poll", async {});
        group.spawn_owned("poll", std::future::pending()).abort();
        group.spawn_owned("poll", async { panic!("a packet that nobody thought of") });
        group.tracker.close();
        group.tracker.wait().await;
        assert_eq!(group.restarts(), [("poll", 1)]);
        assert!(!group.broken.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_in_a_task_that_cannot_be_started_again_is_told() {
        let group = TaskGroup::default();
        group.spawn(async {});
        group.tracker.close();
        group.tracker.wait().await;
        assert!(!group.broken.is_cancelled());
        group.spawn(async { panic!("the floor is gone") });
        group.broken.cancelled().await;
    }
}
