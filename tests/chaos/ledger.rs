//! What was seen, and whether it is what it has to be: nothing lost, nothing done twice or late, order kept on each topic.

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
    /// What acted on something, and what was reported of it.
    acts: Acts,
    /// Messages that the broker never takes, as the daemon counts them since its start.
    never_taken: u64,
    /// Reports that came again.
    pub(crate) repeated: u64,
    faults: Vec<String>,
}

impl Ledger {
    /// Takes a report; the transaction, if it is a good answer.
    pub(crate) fn take(&mut self, received: &Received) -> Option<String> {
        let (topic, payload) = (&received.topic, &received.payload);
        if let Some(mark) = payload["mark"].as_str() {
            *self.acts.marks.entry(mark.to_owned()).or_default() += 1;
            return None;
        }
        if topic.ends_with("/outbox") {
            let count = |value: &Value| value.as_u64().unwrap_or_default();
            self.never_taken =
                count(&payload["quarantined"]) + count(&payload["dropped"]["refused"]);
            return None;
        }
        let id = payload["id"].as_str()?.to_owned();
        if topic.contains("/command/") {
            self.acts.commands += 1;
            if !self.acts.seen.insert(id) {
                self.faults.push(format!("{topic}: a command came twice"));
            }
            return None;
        }
        if let Some(before) = self.seen.get(&id) {
            self.repeated += 1;
            if before != payload {
                self.faults.push(format!("{topic}: {id} came again with another content"));
            }
            return None;
        }
        let one_shot = ["/tool/", "/answer"].iter().any(|part| topic.contains(part));
        if !one_shot {
            return None;
        }
        let latest = self.latest.insert(topic.clone(), id.clone());
        if !self.clock_was_put && latest.is_some_and(|latest| latest > id) {
            self.faults.push(format!("{topic}: {id} came late"));
        }
        self.seen.insert(id.clone(), payload.clone());
        if topic.contains("/tool/") {
            let cause = payload["cause"].as_str()?;
            let (step, mark) = step(&payload["arguments"])?;
            self.acts.report(mark, &payload["outcome"]);
            self.hold_order(cause, step);
            let calls = self.calls.entry(cause.to_owned()).or_default();
            calls.entry(step).or_default().insert(id);
            return None;
        }
        let (transaction, event) = (payload["transaction"].as_str()?, payload["event"].as_str()?);
        if payload.get("error").is_none() {
            self.answered_events.insert(event.to_owned());
            self.answers.entry(transaction.to_owned()).or_default().insert(event.to_owned());
        }
        Some(transaction.to_owned())
    }

    /// Calls that were reported as not carried out, or as perhaps carried out, for want of a connection.
    pub(crate) fn undelivered(&self) -> u64 {
        self.acts.undone + self.acts.unknown
    }

    /// How many messages the broker never takes, since the daemon was started.
    pub(crate) fn never_taken(&self) -> u64 {
        self.never_taken
    }

    /// The daemon counts from 0 again.
    pub(crate) fn restarted(&mut self) {
        self.never_taken = 0;
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

    /// What came of the calls, for the last line.
    pub(crate) fn outcomes(&self) -> String {
        let Acts { done, unknown, undone, .. } = self.acts;
        format!("{done} done, {unknown} perhaps done, {undone} not done for want of a connection")
    }

    /// How many calls were reported.
    pub(crate) fn calls(&self) -> usize {
        self.calls.values().map(BTreeMap::len).sum()
    }

    /// Everything that is wrong, given how often the daemon was killed and how many turns it noted as called.
    pub(crate) fn verdict(&self, kills: usize, noted: usize) -> Vec<String> {
        let mut faults = self.faults.clone();
        faults.extend(self.acts.verdict());
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

/// Which of the calls of a question it is, and the mark of its message.
fn step(arguments: &Value) -> Option<(u64, Option<String>)> {
    if let Some(level) = arguments["level"].as_u64() {
        return Some((level / 10, None));
    }
    let sent: Value = serde_json::from_str(arguments["payload"].as_str()?).ok()?;
    Some((sent["step"].as_u64()?, Some(sent["mark"].as_str()?.to_owned())))
}

/// What became of a call, as it was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    /// It may have been done.
    Unknown,
    /// It was not, and must not be later.
    Undone,
}

/// What acted on something: what arrived, and what was reported.
#[derive(Debug, Default)]
struct Acts {
    /// Commands that arrived, and their ids.
    commands: u64,
    seen: BTreeSet<String>,
    /// How often each message of `publish` arrived, by its mark.
    marks: BTreeMap<String, u64>,
    /// What was reported of each.
    told: BTreeMap<String, Told>,
    /// What was reported of commands.
    told_commands: Vec<Told>,
    done: u64,
    unknown: u64,
    undone: u64,
    faults: Vec<String>,
}

impl Acts {
    fn report(&mut self, mark: Option<String>, outcome: &Value) {
        let told = match (outcome["status"].as_str(), outcome["kind"].as_str()) {
            (Some("done"), _) => Told::Done,
            (Some("unknown"), _) | (Some("failed"), Some("timeout" | "cancelled")) => Told::Unknown,
            (Some("failed"), Some("unavailable")) => Told::Undone,
            _ => return self.faults.push(format!("a call failed: {outcome}")),
        };
        match told {
            Told::Done => self.done += 1,
            Told::Unknown => self.unknown += 1,
            Told::Undone => self.undone += 1,
        }
        match mark {
            Some(mark) => drop(self.told.insert(mark, told)),
            None => self.told_commands.push(told),
        }
    }

    fn verdict(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        let commands =
            |told| self.told_commands.iter().filter(|other| **other == told).count() as u64;
        let (done, perhaps) = (commands(Told::Done), commands(Told::Unknown));
        if !(done..=done + perhaps).contains(&self.commands) {
            let arrived = self.commands;
            faults.push(format!(
                "{arrived} commands arrived, but {done} are reported as done and {perhaps} as perhaps done"
            ));
        }
        for (mark, count) in &self.marks {
            match self.told.get(mark) {
                _ if *count > 1 => faults.push(format!("message {mark} came {count} times")),
                Some(Told::Undone) => {
                    faults.push(format!("message {mark} came, but is reported as not sent"));
                }
                Some(_) => {}
                None => faults.push(format!("message {mark} came, but its call is not reported")),
            }
        }
        let lost = |(mark, told): &(&String, &Told)| {
            **told == Told::Done && !self.marks.contains_key(*mark)
        };
        faults.extend(
            self.told.iter().filter(lost).map(|(mark, _)| format!("message {mark} never came")),
        );
        if done == 0 || self.marks.is_empty() {
            faults.push("no command or no message arrived at all".into());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A ledger after a run in which all went well: a command and a message, each done and seen to arrive.
    fn good() -> Ledger {
        let mut ledger = Ledger::default();
        see(&mut ledger, "command/volume", json!({ "id": "c1", "level": 10 }));
        report(&mut ledger, "1", &json!({ "level": 10 }), &json!({ "status": "done" }));
        see(&mut ledger, "house/lamp", json!({ "step": 3, "mark": "m1" }));
        report(&mut ledger, "2", &sent("m1"), &json!({ "status": "done" }));
        ledger
    }

    fn see(ledger: &mut Ledger, topic: &str, payload: Value) {
        let topic = format!("outpost/outpost/{topic}");
        ledger.take(&Received { topic, payload, retained: false, correlation: None });
    }

    fn report(ledger: &mut Ledger, id: &str, arguments: &Value, outcome: &Value) {
        let payload = json!({ "id": id, "cause": id, "arguments": arguments, "outcome": outcome });
        see(ledger, "tool/publish", payload);
    }

    fn sent(mark: &str) -> Value {
        json!({ "payload": json!({ "step": 3, "mark": mark }).to_string() })
    }

    #[track_caller]
    fn finds(ledger: &Ledger, fault: &str) {
        let faults = ledger.acts.verdict();
        assert!(matches!(faults.as_slice(), [only] if only.contains(fault)), "{faults:?}");
    }

    #[test]
    fn what_is_done_late_or_twice_or_not_at_all_is_found() {
        assert_eq!(good().acts.verdict(), [""; 0]);
        assert!(!Ledger::default().acts.verdict().is_empty(), "nothing arrived");

        let unavailable = json!({ "status": "failed", "kind": "unavailable" });
        let mut stale = good();
        report(&mut stale, "3", &sent("m2"), &unavailable);
        assert_eq!(stale.acts.verdict(), [""; 0]);
        see(&mut stale, "house/lamp", json!({ "step": 3, "mark": "m2" }));
        finds(&stale, "reported as not sent");

        let mut stale = good();
        report(&mut stale, "3", &json!({ "level": 20 }), &unavailable);
        see(&mut stale, "command/volume", json!({ "id": "c2", "level": 20 }));
        finds(&stale, "2 commands arrived");

        let mut twice = good();
        see(&mut twice, "house/lamp", json!({ "step": 3, "mark": "m1" }));
        finds(&twice, "came 2 times");

        let mut lost = good();
        report(&mut lost, "3", &sent("m2"), &json!({ "status": "done" }));
        finds(&lost, "never came");

        let mut perhaps = good();
        report(&mut perhaps, "3", &sent("m2"), &json!({ "status": "unknown" }));
        assert_eq!(perhaps.acts.verdict(), [""; 0]);

        let mut invalid = good();
        let outcome = json!({ "status": "failed", "kind": "invalid" });
        report(&mut invalid, "3", &json!({ "level": 20 }), &outcome);
        finds(&invalid, "a call failed");
    }
}
