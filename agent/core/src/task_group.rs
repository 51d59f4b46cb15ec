//! The daemon's tasks, and their shutdown in two steps.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, stops them and waits for them. Clones share the group.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    /// Tracks all tasks.
    pub tracker: TaskTracker,
    /// First step: stops the agent and its sources of work.
    pub stop: CancellationToken,
    /// Second step: disconnects broker and board, once all reports are out.
    pub disconnect: CancellationToken,
}

impl TaskGroup {
    /// Spawns a task that handles shutdown itself.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Spawns a task that is dropped on [`Self::stop`].
    pub fn spawn_until_stop(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}
