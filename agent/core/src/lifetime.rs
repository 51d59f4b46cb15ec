//! The daemon's tasks, and the two steps in which they end.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, tells them when to end, and waits for them. All copies are of the same tasks.
#[derive(Debug, Clone, Default)]
pub struct Lifetime {
    /// Waits for all tasks.
    pub tracker: TaskTracker,
    /// Ends the agent, and what brings it work.
    pub stop: CancellationToken,
    /// Ends the links to broker and board, once all is said that there was to say.
    pub farewell: CancellationToken,
}

impl Lifetime {
    /// Starts a task that ends by itself when it is told to.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Starts a task that is dropped, wherever it is, when the agent ends.
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
