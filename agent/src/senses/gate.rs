//! Whether the microphone may be heard: muted, held open by a button, or always open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the microphone may be heard. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    needs_holding: bool,
    held: AtomicBool,
    muted: AtomicBool,
    mutes: AtomicU64,
}

impl Gate {
    /// A gate that is open unless it is muted.
    pub fn open() -> Self {
        Self::default()
    }

    /// A gate that is open while it is held, and not muted.
    pub fn held() -> Self {
        Self(Arc::new(Inner { needs_holding: true, ..Inner::default() }))
    }

    /// A button went down or came up.
    pub fn hold(&self, held: bool) {
        self.0.held.store(held, Ordering::SeqCst);
    }

    /// Mute is hard: while it is set, nothing passes, whatever is held.
    pub fn mute(&self, muted: bool) {
        self.0.mutes.fetch_add(u64::from(muted), Ordering::SeqCst);
        self.0.muted.store(muted, Ordering::SeqCst);
    }

    /// Whether a button is down.
    pub fn is_held(&self) -> bool {
        self.0.held.load(Ordering::SeqCst)
    }

    /// Whether mute is set.
    pub fn is_muted(&self) -> bool {
        self.0.muted.load(Ordering::SeqCst)
    }

    /// How often mute was set: who looks seldom sees by this that it was set and lifted in between.
    pub fn mutes(&self) -> u64 {
        self.0.mutes.load(Ordering::SeqCst)
    }

    /// Whether sound may pass now.
    pub fn is_open(&self) -> bool {
        !self.is_muted() && (!self.0.needs_holding || self.is_held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mute_closes_what_a_button_holds_open() {
        let gate = Gate::held();
        assert!(!gate.is_open());
        gate.hold(true);
        assert!(gate.is_open());
        gate.mute(true);
        assert!(!gate.is_open());
        gate.mute(false);
        assert!(gate.is_open());
    }
}
