//! What was seen, and whether it is what it has to be: nothing lost, nothing done twice, order kept on each topic.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use outpost_mqtt::subscriber::Received;
use serde_json::Value;

use crate::daemon::CALLS;

/// All reports that arrived.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By id, so that one that is sent again is known.
    seen: HashMap<String, Value>,
    /// The latest id on each topic; ids grow with time.
    latest: HashMap<String, String>,
    /// Whether the clock was put, so that they need not grow.
    clock_was_put: bool,
    /// The event whose calls come now, and the last of them.
    turn: (String, u64),
    /// The events whose calls all came before.
    over: BTreeSet<String>,
    /// The reports of each event's calls, by their argument.
    calls: BTreeMap<String, BTreeMap<u64, BTreeSet<String>>>,
    /// The event that each transaction was answered for.
    answers: BTreeMap<String, BTreeSet<String>>,
    answered_events: BTreeSet<String>,
    /// Reports that came again.
    pub(crate) repeated: u64,
    faults: Vec<String>,
}

impl Ledger {
    /// Takes a report; the transaction, if it is a good answer.
    pub(crate) fn take(&mut self, received: &Received) -> Option<String> {
        let (topic, payload) = (&received.topic, &received.payload);
        let id = payload["id"].as_str()?.to_owned();
        if let Some(before) = self.seen.get(&id) {
            self.repeated += 1;
            if before != payload {
                self.faults.push(format!("{topic}: {id} came again with another content"));
            }
            return None;
        }
        let one_shot = ["/tool/", "/command/", "/answer"].iter().any(|part| topic.contains(part));
        if !one_shot {
            return None;
        }
        let latest = self.latest.insert(topic.clone(), id.clone());
        if !self.clock_was_put && latest.is_some_and(|latest| latest > id) {
            self.faults.push(format!("{topic}: {id} came late"));
        }
        self.seen.insert(id.clone(), payload.clone());
        if topic.contains("/tool/") {
            let (cause, level) =
                (payload["cause"].as_str()?, payload["arguments"]["level"].as_u64()?);
            self.hold_order(cause, level);
            let calls = self.calls.entry(cause.to_owned()).or_default();
            calls.entry(level).or_default().insert(id);
            return None;
        }
        let (transaction, event) = (payload["transaction"].as_str()?, payload["event"].as_str()?);
        if payload.get("error").is_none() {
            self.answered_events.insert(event.to_owned());
            self.answers.entry(transaction.to_owned()).or_default().insert(event.to_owned());
        }
        Some(transaction.to_owned())
    }

    /// From here on ids may be lower than those before.
    pub(crate) fn clock_was_put(&mut self) {
        self.clock_was_put = true;
    }

    /// Calls come event by event, and those of an event in their order.
    fn hold_order(&mut self, event: &str, level: u64) {
        let (now, last) = &self.turn;
        let is_late = if now == event { level <= *last } else { self.over.contains(event) };
        if is_late {
            self.faults.push(format!("event {event}: call {level} came late"));
        }
        if now != event {
            self.over.insert(now.clone());
        }
        self.turn = (event.to_owned(), level);
    }

    /// How many calls were reported.
    pub(crate) fn calls(&self) -> usize {
        self.calls.values().map(BTreeMap::len).sum()
    }

    /// Everything that is wrong, given how often the daemon was killed and how many turns it noted as called.
    pub(crate) fn verdict(&self, kills: usize, noted: usize) -> Vec<String> {
        let mut faults = self.faults.clone();
        let mut cut_short = 0;
        for (event, calls) in &self.calls {
            if calls.values().any(|ids| ids.len() > 1) {
                faults.push(format!("event {event}: a call was executed twice"));
            }
            let whole = calls.len() as u64 == CALLS;
            // The reports of a turn are kept in order, so what is there is its beginning.
            if !calls.keys().copied().eq(1..=calls.len() as u64) {
                faults.push(format!("event {event}: a report between others is lost"));
            }
            if !self.answered_events.contains(event) || !whole {
                cut_short += 1;
            }
        }
        for event in &self.answered_events {
            if !self.calls.contains_key(event) {
                faults.push(format!("event {event}: answered, but its calls are lost"));
            }
        }
        for (transaction, events) in self.answers.iter().filter(|(_, events)| events.len() > 1) {
            faults.push(format!("question {transaction} was dealt with {} times", events.len()));
        }
        let whole = self.calls.values().filter(|calls| calls.len() as u64 == CALLS).count();
        if whole < noted {
            faults.push(format!("{noted} turns had all their calls, but {whole} are reported"));
        }
        if cut_short > kills {
            faults.push(format!("{cut_short} turns ended early, but there were {kills} kills"));
        }
        faults
    }
}
