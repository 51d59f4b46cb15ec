//! One session: what was sent and not acknowledged, and what is expected next.

use super::super::{
    Check, EncodeError, Hello, Identity, Key, Message, Receipt, encode_ack, encode_data,
};
use super::{MAX_WINDOW, Millis, SendError, Stats, Step, Timing, Why};
use heapless::Vec;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session<const WINDOW: usize> {
    pub(super) peer: Hello,
    pub(super) key_in: Key,
    key_out: Key,
    /// Messages not yet acknowledged, the oldest first. They are few, so that taking from the front is cheap.
    outbox: Vec<Message, WINDOW>,
    /// The number of the first of them.
    base: u8,
    /// How many of them were on the line at least once.
    flown: usize,
    /// How many of them were on the line since the last time that all were sent again.
    sent: usize,
    /// Times that they were sent again since the last acknowledgement.
    tries: u8,
    resend_at: Millis,
    /// The number of the next message to take.
    next: u8,
    receipt_due: bool,
    hello_due: bool,
    peer_busy: bool,
    heard_at: Millis,
    spoke_at: Millis,
}

impl<const WINDOW: usize> Session<WINDOW> {
    /// A session that begins with a sign of life, since the other end may wait for it.
    pub(super) fn new(peer: Hello, me: Identity, now: Millis) -> Self {
        Self {
            key_in: Key::between(peer.id, me),
            key_out: Key::between(me, peer.id),
            peer,
            outbox: Vec::new(),
            base: 0,
            flown: 0,
            sent: 0,
            tries: 0,
            resend_at: now,
            next: 0,
            receipt_due: true,
            hello_due: false,
            peer_busy: false,
            heard_at: now,
            spoke_at: now,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.outbox.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < self.window()
    }

    pub(super) fn owe_receipt(&mut self) {
        self.receipt_due = true;
    }

    pub(super) fn owe_hello(&mut self) {
        self.hello_due = true;
    }

    /// Whether a hello is owed; it is taken to be said then.
    pub(super) fn hello_is_due(&mut self) -> bool {
        core::mem::take(&mut self.hello_due)
    }

    pub(super) fn send(&mut self, message: Message) -> Result<(), SendError> {
        if self.peer.kinds & (1 << message.kind()) == 0 {
            return Err(SendError::NotUnderstood);
        }
        if !self.has_room() {
            return Err(SendError::Full);
        }
        self.outbox.push(message).map_err(|_| SendError::Full)
    }

    /// Notes what the other end has received, and that it is alive; gives how many messages are done with.
    pub(super) fn acknowledged(&mut self, receipt: Receipt, timing: &Timing, now: Millis) -> u32 {
        self.heard_at = now;
        if receipt.busy {
            self.tries = 0;
        } else if self.peer_busy {
            self.sent = 0;
        }
        self.peer_busy = receipt.busy;
        let done = receipt.next.wrapping_sub(self.base);
        // A receipt that came late counts from before the base, which wraps to more than can be under way.
        if done == 0 || usize::from(done) > self.flown {
            return 0;
        }
        for _ in 0..done {
            self.outbox.remove(0);
        }
        self.base = receipt.next;
        self.flown = self.flown.saturating_sub(usize::from(done));
        self.sent = self.sent.saturating_sub(usize::from(done));
        self.tries = 0;
        self.resend_at = now.saturating_add(timing.resend_ms);
        u32::from(done)
    }

    /// Whether a message is the next one and can be taken. Whatever it is, a receipt is owed for it.
    pub(super) fn take(&mut self, sequence: u8, ready: bool) -> bool {
        self.receipt_due = true;
        let take = ready && sequence == self.next;
        if take {
            self.next = self.next.wrapping_add(1);
        }
        take
    }

    /// Whether the session is over; if not, what was not acknowledged in time is to be sent again.
    pub(super) fn fault(&mut self, timing: &Timing, now: Millis) -> Option<Why> {
        if now >= self.heard_at.saturating_add(timing.silence_ms) {
            return Some(Why::Silent);
        }
        if self.flown > 0 && now >= self.resend_at {
            if self.tries >= timing.tries {
                return Some(Why::Unanswered);
            }
            self.tries = self.tries.saturating_add(1);
            self.sent = 0;
            self.resend_at = now.saturating_add(timing.resend_ms);
        }
        None
    }

    pub(super) fn poll(
        &mut self,
        (check, timing): (Check, &Timing),
        busy: bool,
        stats: &mut Stats,
        now: Millis,
    ) -> Result<Step, EncodeError> {
        let receipt = Receipt { next: self.next, busy };
        // To an end that takes nothing, one message in vain is enough to see whether it does again.
        let limit = if self.peer_busy { 1 } else { WINDOW };
        if self.sent < limit
            && let Some(message) = self.outbox.get(self.sent)
        {
            let place = u8::try_from(self.sent).unwrap_or(u8::MAX);
            let sequence = self.base.wrapping_add(place);
            let bytes = encode_data(sequence, receipt, message, (check, self.key_out))?;
            if self.sent < self.flown {
                stats.resent = stats.resent.wrapping_add(1);
            }
            self.sent = self.sent.saturating_add(1);
            self.flown = self.flown.max(self.sent);
            self.resend_at = now.saturating_add(timing.resend_ms);
            self.spoken(now);
            return Ok(Step::Send(bytes));
        }
        let beat_at = self.spoke_at.saturating_add(timing.heartbeat_ms);
        if self.receipt_due || now >= beat_at {
            self.spoken(now);
            return Ok(Step::Send(encode_ack(receipt, (check, self.key_out))?));
        }
        let silent_at = self.heard_at.saturating_add(timing.silence_ms);
        let resend_at = if self.flown > 0 { self.resend_at } else { Millis::MAX };
        Ok(Step::Wait(beat_at.min(silent_at).min(resend_at)))
    }

    fn spoken(&mut self, now: Millis) {
        self.receipt_due = false;
        self.spoke_at = now;
    }

    /// The smaller of both ends' windows.
    fn window(&self) -> usize {
        WINDOW.min(usize::from(self.peer.window).clamp(1, MAX_WINDOW))
    }
}

#[cfg(test)]
impl<const WINDOW: usize> Session<WINDOW> {
    /// The session as it would be had `now` been 0, for comparing states that differ in time only.
    pub(super) fn rebase(&mut self, now: Millis) {
        let since = |at: Millis| (u64::MAX / 2).wrapping_add(at).wrapping_sub(now);
        self.heard_at = since(self.heard_at);
        self.spoke_at = since(self.spoke_at);
        self.resend_at = if self.flown > 0 { since(self.resend_at) } else { 0 };
    }
}
