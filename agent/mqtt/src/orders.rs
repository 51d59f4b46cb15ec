//! Messages that act on something: sent over a live connection, before a deadline, and at most once.
//!
//! They never enter the outbox. Sender and connection agree on each by one atomic step: either the connection takes it before the
//! sender has withdrawn it, or it is never sent. What was taken and is not acknowledged counts as unknown; it is in no queue that
//! outlives the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use outpost_tools::bus::{lost, unavailable};
use outpost_tools::{ErrorKind, ToolError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::link_status::LinkStatus;
use crate::message::Message;
use crate::session::Verdict;

/// Waiting messages; further senders wait, each until its deadline.
const CAPACITY: usize = 64;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Who decided what becomes of a message.
#[derive(Debug, Clone, Default)]
struct Stage(Arc<AtomicU8>);

impl Stage {
    /// Decides; false if the other side was first.
    fn decide(&self, stage: u8) -> bool {
        self.0.compare_exchange(WAITING, stage, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Withdraws a message when its sender is gone.
struct Withdraw(Stage);

impl Drop for Withdraw {
    fn drop(&mut self) {
        self.0.decide(WITHDRAWN);
    }
}

/// A message on its way to the connection.
#[derive(Debug)]
struct Order {
    message: Message,
    stage: Stage,
    told: oneshot::Sender<Verdict>,
}

/// A message that a connection took.
#[derive(Debug)]
pub(super) struct Taken(oneshot::Sender<Verdict>);

impl Taken {
    /// The broker answered.
    pub(super) fn acknowledged(self, verdict: Verdict) {
        // Nobody waits any more: the sender was told that the outcome is unknown.
        self.0.send(verdict).ok();
    }

    /// Whether its sender has given up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

/// The senders' end.
#[derive(Debug, Clone)]
pub(super) struct Orders(mpsc::Sender<Order>);

/// The connection's end.
#[derive(Debug)]
pub(super) struct OrderQueue {
    orders: mpsc::Receiver<Order>,
    next: Option<Order>,
}

/// A queue.
pub(super) fn queue() -> (Orders, OrderQueue) {
    let (sender, orders) = mpsc::channel(CAPACITY);
    (Orders(sender), OrderQueue { orders, next: None })
}

impl Orders {
    /// Sends a message, and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// `Unavailable` if it was not sent and never will be, `Unacknowledged` if it may have arrived, `Failed` if the broker refused
    /// it.
    pub(super) async fn send(
        &self,
        message: Message,
        deadline: Instant,
        mut status: watch::Receiver<LinkStatus>,
    ) -> Result<(), ToolError> {
        let stage = Stage::default();
        let _withdraw = Withdraw(stage.clone());
        let topic = message.topic.clone();
        let (told, verdict) = oneshot::channel();
        let delivery = async {
            self.0.send(Order { message, stage: stage.clone(), told }).await.ok()?;
            verdict.await.ok()
        };
        let is_down =
            |status: &LinkStatus| matches!(status, LinkStatus::Down(_) | LinkStatus::Refused(_));
        let verdict = tokio::select! {
            biased;
            verdict = delivery => verdict,
            _ = status.wait_for(is_down) => None,
            () = sleep_until(deadline) => None,
        };
        match verdict {
            Some(Verdict::Taken) => Ok(()),
            Some(Verdict::Refused(reason) | Verdict::Later(reason)) => {
                Err(refused(format!("{topic}: the broker does not take the message: {reason}")))
            }
            None if !stage.decide(WITHDRAWN) => Err(unanswered(&topic, deadline)),
            None if Instant::now() < deadline => Err(unavailable()),
            None => Err(late(&topic)),
        }
    }
}

fn refused(reason: String) -> ToolError {
    ToolError {
        kind: ErrorKind::Failed,
        for_model: "the message was refused".into(),
        for_operator: reason,
    }
}

fn late(topic: &str) -> ToolError {
    let reason = "the connection to the MQTT broker took nothing in time, so nothing was sent";
    ToolError {
        kind: ErrorKind::Unavailable,
        for_model: reason.into(),
        for_operator: format!("{topic}: {reason}"),
    }
}

fn unanswered(topic: &str, deadline: Instant) -> ToolError {
    if Instant::now() < deadline {
        return lost();
    }
    let reason = "the MQTT broker did not confirm it: it may have been done, and is not repeated";
    ToolError {
        kind: ErrorKind::Unacknowledged,
        for_model: reason.into(),
        for_operator: format!("{topic}: {reason}"),
    }
}

impl OrderQueue {
    /// Waits for a message. Safe to cancel.
    pub(super) async fn ready(&mut self) {
        if self.next.is_none() {
            match self.orders.recv().await {
                Some(order) => self.next = Some(order),
                // The publisher is gone.
                None => std::future::pending().await,
            }
        }
    }

    /// Whether a message waits.
    pub(super) fn is_waiting(&mut self) -> bool {
        while self.next.as_ref().is_none_or(|order| order.told.is_closed()) {
            self.next = self.orders.try_recv().ok();
            if self.next.is_none() {
                return false;
            }
        }
        true
    }

    /// Takes the next message. From here on it counts as sent.
    pub(super) fn take(&mut self) -> Option<(Message, Taken)> {
        while self.is_waiting() {
            let Order { message, stage, told } = self.next.take()?;
            if stage.decide(TAKEN) {
                return Some((message, Taken(told)));
            }
        }
        None
    }
}
