//! Mute, push-to-talk and state of the microphone, shared between its thread and the agent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use outpost_agent_core::microphone::{Holder, Microphone};
use outpost_agent_core::report::MicrophoneState;

/// Whether sound may pass, and the microphone's state. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct MicGate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    push_to_talk: bool,
    held_by_mqtt: AtomicBool,
    held_by_board: AtomicBool,
    muted: AtomicBool,
    mutes: AtomicU64,
    presses: AtomicU64,
    state: Mutex<MicrophoneState>,
}

impl MicGate {
    /// A gate that is open unless muted.
    pub fn always_open() -> Self {
        Self::default()
    }

    /// A gate that is open only while held, and not muted.
    pub fn push_to_talk() -> Self {
        Self(Arc::new(Inner { push_to_talk: true, ..Inner::default() }))
    }

    /// Whether it is being held open.
    pub fn is_held(&self) -> bool {
        [&self.0.held_by_mqtt, &self.0.held_by_board].iter().any(|held| held.load(Ordering::SeqCst))
    }

    /// Number of times mute was set. The thread compares it to notice a mute that was lifted
    /// between two looks.
    pub fn mutes(&self) -> u64 {
        self.0.mutes.load(Ordering::SeqCst)
    }

    /// Number of times it was taken hold of. The thread compares it to notice a button that was
    /// pressed and released between two looks.
    pub fn presses(&self) -> u64 {
        self.0.presses.load(Ordering::SeqCst)
    }

    /// Whether sound may pass now.
    pub fn is_open(&self) -> bool {
        !self.is_muted() && (!self.0.push_to_talk || self.is_held())
    }

    /// Called by the microphone's thread.
    pub fn set_state(&self, state: MicrophoneState) {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Microphone for MicGate {
    fn mute(&self, muted: bool) {
        self.0.mutes.fetch_add(u64::from(muted), Ordering::SeqCst);
        self.0.muted.store(muted, Ordering::SeqCst);
    }

    fn is_muted(&self) -> bool {
        self.0.muted.load(Ordering::SeqCst)
    }

    fn hold(&self, holder: Holder, held: bool) {
        let place = match holder {
            Holder::Mqtt => &self.0.held_by_mqtt,
            Holder::Board => &self.0.held_by_board,
        };
        self.0.presses.fetch_add(u64::from(held), Ordering::SeqCst);
        place.store(held, Ordering::SeqCst);
    }

    fn state(&self) -> MicrophoneState {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mute_closes_what_a_button_holds_open() {
        let gate = MicGate::push_to_talk();
        assert!(!gate.is_open());
        gate.hold(Holder::Board, true);
        assert!(gate.is_open());
        gate.mute(true);
        assert!(!gate.is_open());
        gate.mute(false);
        assert!(gate.is_open());
    }

    #[test]
    fn a_button_that_is_released_leaves_what_mqtt_holds_open() {
        let gate = MicGate::push_to_talk();
        gate.hold(Holder::Mqtt, true);
        gate.hold(Holder::Board, true);
        gate.hold(Holder::Board, false);
        assert!(gate.is_open());
        gate.hold(Holder::Mqtt, false);
        assert!(!gate.is_open());
    }
}
