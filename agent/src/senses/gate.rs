//! Push-to-talk: whether the microphone hears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the microphone hears: always, or only while a button is held. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Option<Arc<AtomicBool>>);

impl Gate {
    /// A gate that is always open.
    pub fn open() -> Self {
        Self(None)
    }

    /// A gate that a button opens; closed until then.
    pub fn button() -> Self {
        Self(Some(Arc::default()))
    }

    /// The button went down or came up. A gate without a button stays open.
    pub fn hold(&self, held: bool) {
        if let Some(gate) = &self.0 {
            gate.store(held, Ordering::Relaxed);
        }
    }

    /// Whether the microphone hears now.
    pub fn is_open(&self) -> bool {
        self.0.as_ref().is_none_or(|gate| gate.load(Ordering::Relaxed))
    }
}
