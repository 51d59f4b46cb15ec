//! The desired documents that were accepted last, on disk: a device that starts without its broker goes by them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use outpost_agent_core::config::{MqttConfig, in_state_directory};
use outpost_agent_core::live::Documents;
use outpost_agent_core::task_group::TaskGroup;
use outpost_tools::json_file;
use tracing::warn;

use crate::desired_config::Scope;
use crate::outbox::Outbox;
use crate::topics::Topics;

/// Documents by topic: those of another group are not taken for this one's.
type Kept = BTreeMap<String, String>;

/// Where they are kept.
#[derive(Debug, Clone)]
pub(super) enum KeptDesired {
    /// In a file of their own.
    File(Arc<File>),
    /// In the outbox, which is a file or none.
    Outbox,
}

#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    latest: Mutex<Kept>,
    /// Held while the file is written.
    writing: Mutex<()>,
    task_group: TaskGroup,
}

impl KeptDesired {
    /// The place: the configured file, or one in the state directory of the service, or the outbox. Returns it with what the previous
    /// run went by.
    pub(super) fn open(
        config: &MqttConfig,
        topics: &Topics,
        outbox: &Outbox,
        task_group: &TaskGroup,
    ) -> (Self, Documents) {
        let state = || in_state_directory("desired.json");
        let of_outbox = || {
            let note = |(topic, _): (String, Scope)| outbox.note(&topic).map(|text| (topic, text));
            topics.desired_topics().into_iter().filter_map(note).collect::<Kept>()
        };
        let Some(path) = config.desired.clone().or_else(state) else {
            return (Self::Outbox, documents(&of_outbox(), topics));
        };
        let kept = match json_file::read::<Option<Kept>>(&path) {
            Ok(Some(kept)) => kept,
            // An earlier version kept them in the outbox.
            Ok(None) => of_outbox(),
            Err(fault) => {
                warn!(%fault, "the desired configuration is not known until the broker is reached");
                Kept::default()
            }
        };
        let known = documents(&kept, topics);
        let (latest, writing) = (Mutex::new(kept), Mutex::default());
        let file = File { path, latest, writing, task_group: task_group.clone() };
        (Self::File(Arc::new(file)), known)
    }

    /// Keeps what was accepted. Does not wait for the disk.
    pub(super) fn keep(&self, accepted: &Documents, topics: &Topics, outbox: &Outbox) {
        let text = |(topic, scope): (String, Scope)| {
            let text = scope.of(accepted).and_then(|bytes| std::str::from_utf8(bytes).ok());
            (topic, text.map(str::to_owned))
        };
        let texts = topics.desired_topics().into_iter().map(text);
        match self {
            Self::Outbox => {
                texts.for_each(|(topic, text)| outbox.set_note(&topic, text.as_deref()));
            }
            Self::File(file) => {
                file.keep(texts.filter_map(|(topic, text)| Some((topic, text?))).collect());
            }
        }
    }
}

impl File {
    fn keep(self: &Arc<Self>, kept: Kept) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if *latest == kept && self.path.exists() {
            return;
        }
        *latest = kept;
        drop(latest);
        let file = Arc::clone(self);
        self.task_group.tracker.spawn_blocking(move || file.write());
    }

    /// Writes the latest, whichever write comes first.
    fn write(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Err(fault) = json_file::write(&self.path, &latest) {
            warn!(%fault, "the desired configuration is not kept: a start without the broker goes by the one before");
        }
    }
}

fn documents(kept: &Kept, topics: &Topics) -> Documents {
    let mut documents = Documents::default();
    for (topic, scope) in topics.desired_topics() {
        *scope.of_mut(&mut documents) = kept.get(&topic).map(|text| Arc::from(text.as_bytes()));
    }
    documents
}
