//! The outbox over restarts, power cuts, full disks and files that are none.

use outpost_agent_core::event::{EventId, Origin};
use outpost_agent_core::report::ReportId;

use super::*;

const LIMITS: Limits = Limits { rows: 10, bytes: 1 << 20, age: Duration::from_hours(1) };

fn push(outbox: &Outbox, texts: &[&str]) {
    for text in texts {
        outbox.push(&Message::new("t", *text));
    }
}

fn texts(outbox: &Outbox) -> Vec<String> {
    let mut cursor = Cursor::default();
    std::iter::from_fn(|| outbox.next(&mut cursor))
        .map(|(_, message)| String::from_utf8(message.payload).unwrap())
        .collect()
}

#[test]
fn messages_survive_reopening_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    push(&outbox, &["a", "b", "c"]);
    outbox.delivered(0);
    drop(outbox);
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let reply = Message {
        correlation: Some(vec![0, 255, 7]),
        urgent: true,
        retain: true,
        ..Message::new("r", vec![b'd'])
    };
    let jpeg = Message::new("evidence", vec![0xff, 0xd8, 0xff, 0]);
    outbox.push(&reply);
    outbox.push(&jpeg);
    drop(outbox);
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let mut cursor = Cursor::default();
    let waiting: Vec<_> = std::iter::from_fn(|| outbox.next(&mut cursor)).collect();
    let waiting: Vec<_> = waiting.into_iter().map(|(_, message)| message).collect();
    assert_eq!(waiting, [reply, Message::new("t", "b"), Message::new("t", "c"), jpeg]);
    assert!(outbox.condition().durable);
}

#[test]
fn the_file_is_whole_after_every_push_as_if_the_power_went_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let copy = folder.path().join("copy.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    for number in 0..20 {
        push(&outbox, &[&number.to_string()]);
        if number >= 4 {
            outbox.delivered(number - 4);
        }
        std::fs::copy(&path, &copy).unwrap();
        let found = texts(&Outbox::open(Some(&copy), LIMITS).unwrap());
        // A deletion may be undone, a message may not.
        let waiting = texts(&outbox);
        assert_eq!(found[found.len() - waiting.len()..], waiting, "after {number}");
    }
}

#[test]
fn a_file_that_is_no_outbox_or_is_damaged_or_in_use_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    std::fs::write(&path, b"something else").unwrap();
    let fault = Outbox::open(Some(&path), LIMITS).unwrap_err();
    assert!(matches!(&fault, OutboxError::Foreign { .. }), "{fault}");
    assert!(fault.to_string().contains("move this one away"), "{fault}");
    std::fs::remove_file(&path).unwrap();
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    push(&outbox, &["a"]);
    let fault = Outbox::open(Some(&path), LIMITS).unwrap_err();
    assert!(matches!(fault, OutboxError::InUse { .. }), "{fault}");
    drop(outbox);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64..].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let fault = Outbox::open(Some(&path), LIMITS).unwrap_err().to_string();
    assert!(fault.contains("outbox.redb"), "{fault}");
    let missing = folder.path().join("missing/outbox.redb");
    let fault = Outbox::open(Some(&missing), LIMITS).unwrap_err();
    assert!(matches!(fault, OutboxError::Io { .. }), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_fails_costs_durability_only_and_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    push(&outbox, &["a", "b"]);
    let full = || OutboxError::Io { path: path.clone(), source: io::ErrorKind::StorageFull.into() };
    outbox.lock().store.write(|_| Err(full()));
    push(&outbox, &["c"]);
    outbox.delivered(0);
    assert_eq!(texts(&outbox), ["b", "c"]);
    let health = outbox.condition();
    assert!(!health.durable && health.fault.is_some_and(|fault| fault.contains("outbox.redb")));
    tokio::time::advance(REOPEN).await;
    outbox.tend();
    assert!(outbox.condition().durable);
    drop(outbox);
    assert_eq!(texts(&Outbox::open(Some(&path), LIMITS).unwrap()), ["b", "c"]);
}

fn intent(name: &str) -> Intent {
    Intent {
        call: ReportId::new(),
        cause: EventId::new(),
        origin: Origin::Camera,
        name: name.into(),
        arguments: [("door".to_owned(), "front".into())].into_iter().collect(),
        idempotent: true,
    }
}

fn report_of(intent: &Intent) -> Message {
    Message { settles: Some(intent.call.to_string()), ..Message::new("tool", "done") }
}

#[test]
fn a_call_whose_end_was_not_told_is_found_after_a_power_cut_and_one_whose_end_was_told_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let copy = folder.path().join("copy.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let told = intent("told");
    let untold = intent("untold");
    outbox.intend(&told);
    outbox.intend(&untold);
    outbox.push(&report_of(&told));
    std::fs::copy(&path, &copy).unwrap();
    let after = Outbox::open(Some(&copy), LIMITS).unwrap();
    assert_eq!(after.left(), std::slice::from_ref(&untold));
    assert_eq!(texts(&after), ["done"]);
    after.push(&report_of(&untold));
    drop(after);
    assert_eq!(Outbox::open(Some(&copy), LIMITS).unwrap().left(), []);
}

#[tokio::test(start_paused = true)]
async fn calls_are_known_in_memory_while_the_file_fails_and_are_in_it_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let before = intent("before");
    let meanwhile = intent("meanwhile");
    outbox.intend(&before);
    let full = || OutboxError::Io { path: path.clone(), source: io::ErrorKind::StorageFull.into() };
    outbox.lock().store.write(|_| Err(full()));
    outbox.intend(&meanwhile);
    outbox.push(&report_of(&before));
    tokio::time::advance(REOPEN).await;
    outbox.tend();
    assert!(outbox.condition().durable);
    drop(outbox);
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    assert_eq!((outbox.left(), texts(&outbox)), (vec![meanwhile], vec!["done".to_owned()]));
    let memory = Outbox::open(None, LIMITS).unwrap();
    memory.intend(&before);
    memory.push(&report_of(&before));
    assert_eq!(memory.left(), []);
}
