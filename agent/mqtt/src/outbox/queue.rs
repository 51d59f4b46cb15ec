//! The queue in memory. Pure: time is an argument.
//!
//! Two lanes, urgent first. A topic belongs to one lane, so messages of a topic stay in order.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::Message;

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub rows: usize,
    /// Total size of topics and payloads, bytes.
    pub bytes: usize,
    /// Maximum age. Downtime does not count: the clock of a board that was switched off cannot be
    /// trusted.
    pub age: Duration,
}

/// Messages lost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// No room.
    pub full: u64,
    /// Expired.
    pub old: u64,
    /// Undeliverable.
    pub refused: u64,
}

/// Position in each lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor([u64; 2]);

#[derive(Debug)]
struct Entry {
    message: Message,
    since: Instant,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: [BTreeMap<u64, Entry>; 2],
    next: u64,
    bytes: usize,
    limits: Limits,
    pub(super) dropped: Dropped,
}

fn lane(message: &Message) -> usize {
    usize::from(!message.urgent)
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len()
}

impl Queue {
    /// An empty queue; numbering starts at `next`.
    pub(super) fn new(limits: Limits, next: u64) -> Self {
        Self { lanes: <_>::default(), next, bytes: 0, limits, dropped: Dropped::default() }
    }

    /// Restores a message of an earlier run.
    pub(super) fn restore(&mut self, number: u64, message: Message, now: Instant) {
        self.bytes += size(&message);
        self.next = self.next.max(number + 1);
        self.lanes[lane(&message)].insert(number, Entry { message, since: now });
    }

    /// Appends a message. Returns its number and those of evicted messages: the oldest ordinary
    /// ones first, urgent ones last.
    pub(super) fn push(&mut self, message: Message, now: Instant) -> (u64, Vec<u64>) {
        let number = self.next;
        self.restore(number, message, now);
        let mut evicted = Vec::new();
        while self.len() > self.limits.rows || self.bytes > self.limits.bytes {
            let Some(oldest) = self.lanes.iter().rev().find_map(|lane| lane.keys().next().copied())
            else {
                break;
            };
            self.remove(oldest);
            self.dropped.full += 1;
            evicted.push(oldest);
        }
        (number, evicted)
    }

    /// Drops expired messages; returns their numbers.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let old = |entry: &Entry| now.duration_since(entry.since) > self.limits.age;
        // Within a lane the oldest is first.
        let expired: Vec<u64> = self
            .lanes
            .iter()
            .flat_map(|lane| lane.iter().take_while(|(_, entry)| old(entry)))
            .map(|(number, _)| *number)
            .collect();
        for number in &expired {
            self.remove(*number);
            self.dropped.old += 1;
        }
        expired
    }

    /// Removes a message.
    pub(super) fn remove(&mut self, number: u64) {
        let entry = self.lanes.iter_mut().find_map(|lane| lane.remove(&number));
        self.bytes -= entry.map_or(0, |entry| size(&entry.message));
    }

    /// Next message after `cursor`, which advances.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Option<(u64, Message)> {
        let mut lanes = self.lanes.iter().zip(&mut cursor.0);
        lanes.find_map(|(lane, from)| {
            let (number, entry) = lane.range(*from..).next()?;
            *from = number + 1;
            Some((*number, entry.message.clone()))
        })
    }

    /// All messages with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.lanes.iter().flatten().map(|(number, entry)| (*number, &entry.message))
    }

    /// Number of messages.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, urgent: bool) -> Message {
        Message { urgent, ..Message::new(if urgent { "alert" } else { "state" }, text) }
    }

    fn texts(queue: &Queue) -> Vec<String> {
        let mut cursor = Cursor::default();
        std::iter::from_fn(|| queue.next(&mut cursor))
            .map(|(_, message)| String::from_utf8(message.payload).unwrap())
            .collect()
    }

    fn queue(rows: usize, bytes: usize) -> Queue {
        Queue::new(Limits { rows, bytes, age: Duration::from_mins(1) }, 0)
    }

    #[test]
    fn alerts_overtake_and_each_topic_keeps_its_order() {
        let mut queue = queue(10, 1000);
        let now = Instant::now();
        for (text, urgent) in [("a", false), ("b", false), ("A", true), ("c", false), ("B", true)] {
            queue.push(message(text, urgent), now);
        }
        assert_eq!(texts(&queue), ["A", "B", "a", "b", "c"]);
        // One that comes while others are under way is the next to go.
        let mut cursor = Cursor::default();
        for _ in 0..3 {
            queue.next(&mut cursor);
        }
        queue.push(message("C", true), now);
        assert_eq!(queue.next(&mut cursor).map(|(_, next)| next), Some(message("C", true)));
        assert_eq!(queue.next(&mut cursor).map(|(_, next)| next), Some(message("b", false)));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_alerts_last() {
        let mut by_rows = queue(2, 1000);
        let now = Instant::now();
        for (text, urgent) in [("A", true), ("a", false), ("b", false), ("B", true), ("C", true)] {
            by_rows.push(message(text, urgent), now);
        }
        assert_eq!((texts(&by_rows), by_rows.dropped.full), (vec!["B".into(), "C".into()], 3));
        let mut by_bytes = queue(10, 2 * "state-".len());
        for text in ["1", "2", "3"] {
            by_bytes.push(message(text, false), now);
        }
        assert_eq!((texts(&by_bytes), by_bytes.dropped.full), (vec!["2".into(), "3".into()], 1));
    }

    #[test]
    fn what_waited_too_long_goes() {
        let mut queue = queue(10, 1000);
        let start = Instant::now();
        queue.push(message("a", false), start);
        queue.push(message("b", false), start + Duration::from_secs(30));
        assert!(queue.expire(start + Duration::from_mins(1)).is_empty());
        assert_eq!(queue.expire(start + Duration::from_secs(61)), [0]);
        assert_eq!((texts(&queue), queue.dropped.old), (vec!["b".into()], 1));
    }
}
