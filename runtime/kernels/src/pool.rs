//! Threads that share the tasks of one operation. They spin for a moment between operations, since a decode step has some 200
//! of them a few microseconds apart, and sleep when nothing comes.

#![expect(unsafe_code, reason = "a job borrows from the caller's stack, which outlives it")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Looks for the next operation before a thread sleeps: some 50 microseconds.
const SPINS: u32 = 4_000;

/// A fixed number of threads, of which the caller is one.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One operation at a time.
    turn: Mutex<()>,
}

struct Shared {
    /// Number of the current operation, whether workers may still join it, and how many have: see [`Shared::OPEN`]. A worker
    /// that comes late, because the system runs something else, is not waited for.
    state: AtomicU64,
    job: Mutex<Option<Job>>,
    /// The next task that nobody has taken.
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleeping: AtomicUsize,
    gate: Mutex<()>,
    wake: Condvar,
}

#[derive(Clone, Copy)]
struct Job {
    run: &'static (dyn Fn(usize) + Sync),
    tasks: usize,
}

impl Pool {
    /// Starts `threads - 1` workers; 0 counts as 1.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            gate: Mutex::new(()),
            wake: Condvar::new(),
        });
        let workers = (1..threads).filter_map(|number| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("kernel-{number}"));
            // With fewer threads than asked for, the work is only slower.
            builder.spawn(move || shared.work()).ok()
        });
        let workers = workers.collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that take part, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `run` once for each number below `tasks`, on all threads; returns when all calls have.
    ///
    /// # Panics
    /// When a call panics, after the others have ended.
    pub fn run(&self, tasks: usize, run: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || tasks <= 1 {
            return (0..tasks).for_each(run);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let borrowed: &(dyn Fn(usize) + Sync) = &run;
        // SAFETY: only the lifetime changes. Workers use the reference only between joining and leaving; `Finish` lets nobody
        // join any more and waits for the last to leave before `run` goes out of scope, also when a task panics.
        let run: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(borrowed) };
        *shared.job.lock().unwrap_or_else(PoisonError::into_inner) = Some(Job { run, tasks });
        shared.next.store(0, Ordering::Relaxed);
        let epoch = shared.state.load(Ordering::Relaxed) / Shared::EPOCH + 1;
        shared.state.store(epoch * Shared::EPOCH + Shared::OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            let _gate = shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        let finish = Finish(shared);
        shared.take_tasks(tasks, borrowed);
        drop(finish);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a thread of the kernel pool panicked"
        );
    }
}

/// Closes the operation and waits until every worker that joined it has left.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        // A caller that panics leaves no task to the workers.
        self.0.next.fetch_add(usize::MAX / 2, Ordering::Relaxed);
        self.0.state.fetch_and(!Shared::OPEN, Ordering::AcqRel);
        let mut spins = 0_u32;
        while !self.0.state.load(Ordering::Acquire).is_multiple_of(Shared::OPEN) {
            spins += 1;
            if spins.is_multiple_of(1024) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    /// Bit of `state` that lets workers join; below it is their count, above it the number of the operation.
    const OPEN: u64 = 1 << 16;
    const EPOCH: u64 = Self::OPEN << 1;

    fn work(&self) {
        let mut seen = 0;
        while let Some(epoch) = self.join(seen) {
            seen = epoch;
            let job = *self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Job { run, tasks }) = job
                && catch_unwind(AssertUnwindSafe(|| self.take_tasks(tasks, run))).is_err()
            {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Joins the current operation if it is open and another one than `seen`.
    fn try_join(&self, seen: u64) -> Option<u64> {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let epoch = state / Self::EPOCH;
            if state & Self::OPEN == 0 || epoch == seen {
                return None;
            }
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Some(epoch),
                Err(now) => state = now,
            }
        }
    }

    fn take_tasks(&self, tasks: usize, run: &(dyn Fn(usize) + Sync)) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            run(task);
        }
    }

    /// Waits for an operation after `seen` and joins it; `None` when the pool ends.
    fn join(&self, seen: u64) -> Option<u64> {
        for _ in 0..SPINS {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(epoch) = self.try_join(seen) {
                return Some(epoch);
            }
            std::hint::spin_loop();
        }
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let joined = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(epoch) = self.try_join(seen) {
                break Some(epoch);
            }
            gate = self.wake.wait(gate).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        joined
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            if let Err(panic) = worker.join()
                && !std::thread::panicking()
            {
                resume_unwind(panic);
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_operations_and_a_pause_lose_nothing() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for round in 0..2000 {
            pool.run(4, |task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        assert_eq!(sum.into_inner(), 2000 * 6);
    }

    #[test]
    fn callers_on_several_threads_take_turns() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(3, |_| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, |task| assert!(task != 40, "task 40"));
        }));
        assert!(caught.is_err());
        let count = AtomicUsize::new(0);
        pool.run(8, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }
}
