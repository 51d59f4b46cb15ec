//! The thread that writes the outbox file, so that nothing else waits for a disk.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};

use tracing::info;

use crate::outbox::file::{Change, Contents, File};
use crate::outbox::{OutboxError, Shared, Store};

/// What the thread has to do next.
enum Work {
    Write(Vec<Change>),
    Rewrite(Contents),
    End,
}

/// Starts the thread; it ends with the outbox.
pub(super) fn start(
    shared: Arc<Shared>,
    path: &Path,
    file: Option<File>,
) -> Result<JoinHandle<()>, OutboxError> {
    let (of_thread, path) = (path.to_owned(), path.to_owned());
    Builder::new()
        .name("outbox".into())
        .spawn(move || run(&shared, &of_thread, file))
        .map_err(|source| OutboxError::Io { path, source })
}

fn run(shared: &Shared, path: &Path, mut file: Option<File>) {
    loop {
        let done = match shared.next_work() {
            Work::End => return,
            Work::Write(changes) => file.as_ref().map_or(Ok(()), |file| file.write(&changes)),
            Work::Rewrite(contents) => {
                // The old handle has it locked.
                drop(file.take());
                File::open_or_replace(path)
                    .and_then(|(reopened, _)| file.insert(reopened).replace(&contents))
            }
        };
        let mut inner = shared.lock();
        match done {
            Ok(()) if matches!(inner.store, Store::Rewriting { .. }) => {
                info!("the outbox file works again");
                inner.store = Store::File;
            }
            Ok(()) => {}
            // A database that failed accepts nothing more.
            Err(fault) => {
                inner.fail(&fault);
                file = None;
            }
        }
        let stored = inner.made - inner.pending.len() as u64;
        shared.stored.send_replace(stored);
        drop(inner);
        shared.revision.send_modify(|revision| *revision += 1);
    }
}

impl Shared {
    /// Waits for work: all that changed meanwhile is one transaction.
    fn next_work(&self) -> Work {
        let mut inner = self.lock();
        loop {
            if !inner.pending.is_empty() {
                return Work::Write(std::mem::take(&mut inner.pending));
            }
            if let Store::Reopening { reason } = &inner.store {
                let reason = reason.clone();
                inner.store = Store::Rewriting { reason };
                return Work::Rewrite(inner.contents());
            }
            if inner.closed {
                return Work::End;
            }
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
