//! The outbox over restarts, power cuts, full disks and files that are none.

use outpost_agent_core::event::{EventId, Origin};
use outpost_agent_core::report::ReportId;

use super::*;
use crate::message::Keep;

const LIMITS: Limits = Limits { rows: 10, bytes: 1 << 20, age: Duration::from_hours(1) };

fn push(outbox: &Outbox, texts: &[&str]) {
    for text in texts {
        outbox.push(&Message::new("t", *text));
    }
}

/// The file fails as on a full disk.
fn fail(outbox: &Outbox, path: &Path) {
    let source = io::ErrorKind::StorageFull.into();
    let mut inner = outbox.lock();
    inner.fail(&OutboxError::Io { path: path.to_owned(), source });
    outbox.shared.stored.send_replace(inner.made);
}

/// Waits until a file that failed works again.
async fn until_reopened(outbox: &Outbox) {
    let mut changes = outbox.changes();
    tokio::time::advance(REOPEN).await;
    outbox.tend();
    while !outbox.condition().durable {
        changes.changed().await.unwrap();
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

#[tokio::test]
async fn the_file_is_whole_after_every_push_as_if_the_power_went_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let copy = folder.path().join("copy.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    for number in 0..20 {
        push(&outbox, &[&number.to_string()]);
        if number >= 4 {
            outbox.delivered(number - 4);
        }
        outbox.flush().await;
        std::fs::copy(&path, &copy).unwrap();
        let found = texts(&Outbox::open(Some(&copy), LIMITS).unwrap());
        // A deletion may be undone, a message may not.
        let waiting = texts(&outbox);
        assert_eq!(found[found.len() - waiting.len()..], waiting, "after {number}");
    }
}

#[test]
fn a_file_that_is_no_outbox_or_in_use_or_cannot_be_is_refused_and_says_what_to_do() {
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
    let missing = folder.path().join("missing/outbox.redb");
    let fault = Outbox::open(Some(&missing), LIMITS).unwrap_err();
    assert!(matches!(fault, OutboxError::Io { .. }), "{fault}");
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_made_that_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    for damage in [64, 512] {
        drop(Outbox::open(Some(&path), LIMITS).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage..].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
        push(&outbox, &["a"]);
        assert!(outbox.condition().durable);
        drop(outbox);
        assert_eq!(texts(&Outbox::open(Some(&path), LIMITS).unwrap()), ["a"]);
        let aside = folder.path().join("outbox.redb.damaged");
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "{damage}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_fails_costs_durability_only_and_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    push(&outbox, &["a", "b"]);
    fail(&outbox, &path);
    push(&outbox, &["c"]);
    outbox.delivered(0);
    assert_eq!(texts(&outbox), ["b", "c"]);
    let health = outbox.condition();
    assert!(!health.durable && health.fault.is_some_and(|fault| fault.contains("outbox.redb")));
    until_reopened(&outbox).await;
    drop(outbox);
    assert_eq!(texts(&Outbox::open(Some(&path), LIMITS).unwrap()), ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_at_the_start_costs_durability_until_it_is_not() {
    // Writing to it fails as on a full disk.
    let full = Path::new("/dev/full");
    let outbox = Outbox::open(Some(full), LIMITS).unwrap();
    push(&outbox, &["a"]);
    let health = outbox.condition();
    assert!(!health.durable && health.fault.is_some_and(|fault| fault.contains("/dev/full")));
    assert_eq!(texts(&outbox), ["a"]);
}

#[tokio::test]
async fn readings_cost_the_disk_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    push(&outbox, &["report"]);
    outbox.flush().await;
    let made = outbox.lock().made;
    for number in 0..1000 {
        let reading = Message::new("sensor/room", number.to_string());
        outbox.push(&Message { retain: true, keep: Keep::Volatile, ..reading });
    }
    assert_eq!(texts(&outbox), ["report", "999"]);
    // The deletion of a row that was never stored is not worth a transaction.
    assert_eq!(outbox.lock().made, made);
    assert_eq!(outbox.condition().dropped, Dropped::default());
    drop(outbox);
    assert_eq!(texts(&Outbox::open(Some(&path), LIMITS).unwrap()), ["report"]);
}

#[tokio::test]
async fn a_message_is_sent_once_it_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let copy = folder.path().join("copy.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let mut changes = outbox.changes();
    for number in 0..20u64 {
        let mut cursor = Cursor::default();
        push(&outbox, &[&number.to_string()]);
        let sent = loop {
            if let Some((_, message)) = outbox.next(&mut cursor) {
                break message;
            }
            changes.changed().await.unwrap();
        };
        outbox.flush().await;
        std::fs::copy(&path, &copy).unwrap();
        let held = texts(&Outbox::open(Some(&copy), LIMITS).unwrap());
        assert!(held.contains(&String::from_utf8(sent.payload).unwrap()), "{held:?}");
        outbox.delivered(number);
    }
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

#[tokio::test]
async fn a_call_whose_end_was_not_told_is_found_after_a_power_cut_and_one_whose_end_was_told_is_not()
 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.redb");
    let copy = folder.path().join("copy.redb");
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    let told = intent("told");
    let untold = intent("untold");
    outbox.intend(&told).await;
    std::fs::copy(&path, &copy).unwrap();
    assert_eq!(Outbox::open(Some(&copy), LIMITS).unwrap().left(), std::slice::from_ref(&told));
    outbox.intend(&untold).await;
    outbox.push(&report_of(&told));
    outbox.flush().await;
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
    outbox.intend(&before).await;
    fail(&outbox, &path);
    outbox.intend(&meanwhile).await;
    outbox.push(&report_of(&before));
    until_reopened(&outbox).await;
    drop(outbox);
    let outbox = Outbox::open(Some(&path), LIMITS).unwrap();
    assert_eq!((outbox.left(), texts(&outbox)), (vec![meanwhile], vec!["done".to_owned()]));
    let memory = Outbox::open(None, LIMITS).unwrap();
    memory.intend(&before).await;
    memory.push(&report_of(&before));
    assert_eq!(memory.left(), []);
}
