//! The queue in memory. Pure: time is an argument.
//!
//! Three lanes: urgent, ordinary and bulky. A topic belongs to one lane, so messages of a topic stay in order.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

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
pub struct Cursor([u64; LANES]);

/// Urgent, ordinary and bulky messages.
const LANES: usize = 3;
/// Times that the broker may end the connection at a message before it is set aside.
pub const MAX_ATTEMPTS: u32 = 5;
/// Messages that are set aside at most; the oldest are dropped.
const QUARANTINE: usize = 32;

#[derive(Debug)]
struct Entry {
    message: Message,
    since: Instant,
    /// The change that stores it; 0 if it is not stored.
    change: u64,
    /// Times that the broker ended the connection at it.
    attempts: u32,
}

impl Entry {
    /// Its number, if it is stored.
    fn stored(&self, number: u64) -> Option<u64> {
        self.message.is_durable().then_some(number)
    }
}

/// What became of the queue when a message was appended.
#[derive(Debug)]
pub(super) struct Pushed {
    /// Number of the message.
    pub(super) number: u64,
    /// Stored messages that it replaced, or that there is no room for.
    pub(super) gone: Vec<u64>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    lanes: [BTreeMap<u64, Entry>; LANES],
    /// The latest of each retained topic.
    retained: HashMap<String, u64>,
    /// Messages at which the broker ends the connection.
    quarantine: BTreeMap<u64, Entry>,
    next: u64,
    bytes: usize,
    limits: Limits,
    pub(super) dropped: Dropped,
}

fn lane(message: &Message) -> usize {
    if message.urgent {
        0
    } else if message.bulky {
        2
    } else {
        1
    }
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len()
}

impl Queue {
    /// An empty queue; numbering starts at `next`.
    pub(super) fn new(limits: Limits, next: u64) -> Self {
        Self {
            lanes: <_>::default(),
            retained: HashMap::new(),
            quarantine: BTreeMap::new(),
            next,
            bytes: 0,
            limits,
            dropped: Dropped::default(),
        }
    }

    /// Restores a message of an earlier run.
    pub(super) fn restore(&mut self, number: u64, message: Message, now: Instant) {
        self.bytes += size(&message);
        self.next = self.next.max(number + 1);
        if message.retain {
            self.retained.insert(message.topic.clone(), number);
        }
        let entry = Entry { message, since: now, change: 0, attempts: 0 };
        self.lanes[lane(&entry.message)].insert(number, entry);
    }

    /// Appends a message. One that is retained replaces an earlier one on its topic. Where there is no room, bulky messages go
    /// first, then the oldest ordinary ones, urgent ones last.
    pub(super) fn push(&mut self, message: Message, now: Instant) -> Pushed {
        let number = self.next;
        let replaced = message.retain.then(|| self.retained.get(&message.topic).copied()).flatten();
        let mut gone: Vec<u64> =
            replaced.into_iter().filter_map(|number| self.remove(number)).collect();
        self.restore(number, message, now);
        while self.len() > self.limits.rows || self.bytes > self.limits.bytes {
            let Some(oldest) = self.lanes.iter().rev().find_map(|lane| lane.keys().next().copied())
            else {
                break;
            };
            gone.extend(self.remove(oldest));
            self.dropped.full += 1;
        }
        Pushed { number, gone }
    }

    /// Whether a message waits.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.lanes.iter().any(|lane| lane.contains_key(&number))
    }

    /// Holds a message back until the change of this number is in the file.
    pub(super) fn await_change(&mut self, number: u64, change: u64) {
        if let Some(entry) = self.waiting(number) {
            entry.change = change;
        }
    }

    fn waiting(&mut self, number: u64) -> Option<&mut Entry> {
        self.lanes.iter_mut().find_map(|lane| lane.get_mut(&number))
    }

    /// Drops expired messages; returns the stored ones.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<u64> {
        let old = |entry: &Entry| now.duration_since(entry.since) > self.limits.age;
        // Within a lane the oldest is first.
        let expired: Vec<u64> = self
            .lanes
            .iter()
            .chain([&self.quarantine])
            .flat_map(|lane| lane.iter().take_while(|(_, entry)| old(entry)))
            .map(|(number, _)| *number)
            .collect();
        self.dropped.old += expired.len() as u64;
        let set_aside = expired.iter().filter_map(|number| self.quarantine.remove_entry(number));
        let mut stored: Vec<u64> =
            set_aside.filter_map(|(number, entry)| entry.stored(number)).collect();
        stored.extend(expired.iter().filter_map(|number| self.remove(*number)));
        stored
    }

    /// Removes a message; returns its number if it is stored.
    pub(super) fn remove(&mut self, number: u64) -> Option<u64> {
        self.take(number)?.stored(number)
    }

    fn take(&mut self, number: u64) -> Option<Entry> {
        let entry = self.lanes.iter_mut().find_map(|lane| lane.remove(&number))?;
        self.bytes -= size(&entry.message);
        if self.retained.get(&entry.message.topic) == Some(&number) {
            self.retained.remove(&entry.message.topic);
        }
        Some(entry)
    }

    /// The broker ended the connection at a message: after a few times it is set aside, at once where one of its topic is there
    /// already. Returns the stored ones that are dropped for it.
    pub(super) fn fail(&mut self, number: u64) -> Vec<u64> {
        let Some(entry) = self.waiting(number) else { return Vec::new() };
        entry.attempts += 1;
        let (attempts, topic) = (entry.attempts, entry.message.topic.clone());
        let is_known = self.quarantine.values().any(|other| other.message.topic == topic);
        if attempts < MAX_ATTEMPTS && !is_known {
            return Vec::new();
        }
        let Some(entry) = self.take(number) else { return Vec::new() };
        let bytes = entry.message.payload.len();
        error!(topic, bytes, "set aside a message: the broker ends the connection at it");
        self.quarantine.insert(number, entry);
        let mut gone = Vec::new();
        let bytes = |entries: &BTreeMap<u64, Entry>| -> usize {
            entries.values().map(|entry| size(&entry.message)).sum()
        };
        while self.quarantine.len() > QUARANTINE || bytes(&self.quarantine) > self.limits.bytes {
            let Some((oldest, entry)) = self.quarantine.pop_first() else { break };
            self.dropped.refused += 1;
            gone.extend(entry.stored(oldest));
        }
        gone
    }

    /// Number of messages that were set aside.
    pub(super) fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// Next message after `cursor`, which advances, if it is stored: up to the change of this number all are.
    pub(super) fn next(&self, cursor: &mut Cursor, stored: u64) -> Option<(u64, Message)> {
        let mut lanes = self.lanes.iter().zip(&mut cursor.0);
        lanes.find_map(|(lane, from)| {
            let (number, entry) = lane.range(*from..).next()?;
            if entry.change > stored {
                return None;
            }
            *from = number + 1;
            Some((*number, entry.message.clone()))
        })
    }

    /// All messages with their numbers, those that were set aside included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Message)> {
        let entries = self.lanes.iter().chain([&self.quarantine]).flatten();
        entries.map(|(number, entry)| (*number, &entry.message))
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
        std::iter::from_fn(|| queue.next(&mut cursor, u64::MAX))
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
            queue.next(&mut cursor, u64::MAX);
        }
        queue.push(message("C", true), now);
        assert_eq!(
            queue.next(&mut cursor, u64::MAX).map(|(_, next)| next),
            Some(message("C", true))
        );
        assert_eq!(
            queue.next(&mut cursor, u64::MAX).map(|(_, next)| next),
            Some(message("b", false))
        );
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

    #[test]
    fn a_retained_topic_keeps_its_newest_value_only() {
        let mut queue = queue(10, 1000);
        let now = Instant::now();
        let value = |topic: &str, text: &str| Message { retain: true, ..Message::new(topic, text) };
        queue.push(value("sensor/a", "1"), now);
        queue.push(message("report", false), now);
        queue.push(value("sensor/b", "2"), now);
        let pushed = queue.push(value("sensor/a", "3"), now);
        assert_eq!((pushed.number, pushed.gone), (3, vec![0]));
        assert_eq!(texts(&queue), ["report", "2", "3"]);
        // One that is under way already is not sent again.
        queue.remove(3);
        assert!(queue.push(value("sensor/a", "4"), now).gone.is_empty());
        assert_eq!(queue.dropped, Dropped::default());
    }

    #[test]
    fn pictures_make_room_for_reports_and_never_take_it() {
        let mut queue = queue(3, 1000);
        let now = Instant::now();
        let picture = |text: &str| Message { bulky: true, ..Message::new("evidence", text) };
        queue.push(message("a", false), now);
        queue.push(picture("P"), now);
        queue.push(picture("Q"), now);
        queue.push(message("b", false), now);
        assert_eq!(texts(&queue), ["a", "b", "Q"]);
        queue.push(message("c", false), now);
        let refused = queue.push(picture("R"), now);
        let all = vec!["a".into(), "b".into(), "c".into()];
        assert_eq!((texts(&queue), refused.gone), (all, vec![5]));
    }

    #[test]
    fn what_ends_the_connection_several_times_is_set_aside_within_a_bound() {
        let mut queue = queue(100, 10_000);
        let now = Instant::now();
        queue.push(message("bad", false), now);
        for attempt in 1..MAX_ATTEMPTS {
            assert!(queue.fail(0).is_empty(), "{attempt}");
            assert_eq!((texts(&queue), queue.quarantined()), (vec!["bad".to_owned()], 0));
        }
        queue.fail(0);
        assert_eq!((texts(&queue).len(), queue.quarantined()), (0, 1));
        // The next one of its topic has one try.
        for number in 1..=QUARANTINE as u64 {
            queue.push(message("bad", false), now);
            let gone = queue.fail(number);
            assert_eq!(gone, if number == QUARANTINE as u64 { vec![0] } else { vec![] });
        }
        assert_eq!((queue.quarantined(), queue.dropped.refused), (QUARANTINE, 1));
        assert_eq!(queue.iter().count(), QUARANTINE, "they are tried again after a restart");
    }

    #[test]
    fn what_is_not_stored_yet_is_held_back_with_all_behind_it() {
        let mut queue = queue(10, 1000);
        let now = Instant::now();
        for text in ["a", "b"] {
            queue.push(message(text, false), now);
        }
        queue.await_change(0, 7);
        let mut cursor = Cursor::default();
        assert_eq!(queue.next(&mut cursor, 6), None);
        assert_eq!(queue.next(&mut cursor, 7).map(|(number, _)| number), Some(0));
        assert_eq!(queue.next(&mut cursor, 7).map(|(number, _)| number), Some(1));
    }
}
