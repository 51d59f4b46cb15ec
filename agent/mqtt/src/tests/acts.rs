//! Messages that act on something: over a live connection, in time, and once.

use outpost_agent_core::report::{Act, CommandReport, Sink as _};
use outpost_tools::bus::{Publication, RemoteCall};
use outpost_tools::{ErrorKind, ToolError};
use tokio::time::Instant;

use super::*;
use crate::client::LinkStatus;
use crate::connection::WINDOW;
use crate::outbox::{Limits, Outbox};

/// What tests wait for that does not come.
const SHORT: Duration = Duration::from_millis(300);

fn volume(level: u64) -> Act {
    let payload = json!({ "level": level });
    Act::Command(CommandReport { path: "command/volume".into(), payload, retain: false })
}

/// A message of each kind, with a number.
fn each_kind(level: u64) -> [Act; 3] {
    let arguments = Map::from_iter([("level".to_owned(), level.into())]);
    let (call, tool) = (level.to_string(), "torch".to_owned());
    let payload = json!({ "level": level }).to_string().into_bytes();
    let topic = "outpost/desk/command/published".to_owned();
    [
        volume(level),
        Act::Message(Publication { topic, payload, ..Publication::default() }),
        Act::RemoteCall(RemoteCall { call, tool, arguments, limit: SHORT }),
    ]
}

async fn act(device: &Device, act: Act, limit: Duration) -> Result<(), ToolError> {
    device.publisher.act(act, Instant::now() + limit).await
}

async fn kind(device: &Device, what: Act, limit: Duration) -> ErrorKind {
    act(device, what, limit).await.unwrap_err().kind
}

async fn until(device: &Device, wanted: impl Fn(&LinkStatus) -> bool) {
    let mut status = device.publisher.status();
    let reached = tokio::time::timeout(SOON, status.wait_for(wanted)).await;
    reached.expect("in time").expect("the link lives");
}

async fn is_up(device: &Device) {
    until(device, |status| *status == LinkStatus::Up).await;
}

async fn is_down(device: &Device) {
    until(device, |status| matches!(status, LinkStatus::Down(_))).await;
}

/// The levels of all commands and calls that arrive, until the marker, which comes last.
async fn levels(subscriber: &mut Subscriber, marker: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    while levels.last() != Some(&marker) {
        let Received { payload, .. } = next(subscriber).await;
        let level = payload.get("level").or_else(|| payload["arguments"].get("level"));
        levels.extend(level.and_then(Value::as_u64));
    }
    levels
}

#[tokio::test]
async fn what_acts_arrives_once_and_is_acknowledged() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/#").await;
    let device = Device::start(&wire, None);
    // The first connection is waited for.
    for message in each_kind(1) {
        act(&device, message, SOON).await.unwrap();
    }
    act(&device, volume(9), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 9).await, [1, 1, 1, 9]);
    device.stop().await;
}

#[tokio::test]
async fn without_a_connection_it_fails_at_once_and_never_comes() {
    let first = broker();
    let wire = Wire::to(first.address()).await;
    let device = Device::start(&wire, None);
    is_up(&device).await;
    wire.cut();
    is_down(&device).await;
    for message in each_kind(1) {
        assert_eq!(kind(&device, message, SOON).await, ErrorKind::Unavailable);
    }
    // The broker is restarted.
    let second = broker();
    let mut watcher = listen(&second, "outpost/desk/#").await;
    wire.restore(second.address());
    is_up(&device).await;
    act(&device, volume(9), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 9).await, [9]);
    device.stop().await;
}

#[tokio::test]
async fn on_a_half_open_link_the_outcome_is_unknown_and_it_is_not_sent_again() {
    let broker = broker();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.redb");
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/#").await;
    let device = Device::start(&wire, Some(file.clone()));
    is_up(&device).await;
    wire.deafen(true);
    for message in each_kind(1) {
        assert_eq!(kind(&device, message, SHORT).await, ErrorKind::Unacknowledged);
    }
    // One is under way when the connection ends.
    let late = device.publisher.act(volume(2), Instant::now() + SOON);
    let cut = async {
        tokio::task::yield_now().await;
        while next(&mut watcher).await.payload["level"] != 2 {}
        wire.cut();
    };
    let (outcome, ()) = tokio::join!(late, cut);
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Unacknowledged);
    wire.deafen(false);
    is_down(&device).await;
    wire.restore(broker.address());
    is_up(&device).await;
    act(&device, volume(8), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 8).await, [8]);
    // Nor after a restart of the daemon.
    device.stop().await;
    let device = Device::start(&wire, Some(file));
    act(&device, volume(9), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 9).await, [9]);
    device.stop().await;
}

#[tokio::test]
async fn what_could_not_be_handed_over_in_time_is_removed() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "outpost/desk/command/#").await;
    let device = Device::start(&wire, None);
    is_up(&device).await;
    assert!(device.publisher.flushed(SOON).await);
    wire.block(true);
    // The window is full of reports that nobody acknowledges.
    device.publish(0..2 * WINDOW as u64);
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    let waits = device.publisher.act(volume(1), Instant::now() + SHORT);
    assert_eq!(waits.await.unwrap_err().kind, ErrorKind::Unavailable);
    // A turn that is given up withdraws it as well.
    let given_up = device.publisher.act(volume(2), Instant::now() + SOON);
    assert!(tokio::time::timeout(SHORT, given_up).await.is_err());
    wire.block(false);
    act(&device, volume(9), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 9).await, [9]);
    device.stop().await;
}

#[tokio::test]
async fn what_no_packet_holds_is_refused_and_the_next_one_arrives() {
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let device = Device::start(&wire, None);
    let giant = Publication {
        topic: "a".into(),
        payload: vec![b'a'; MAX_PACKET],
        ..Publication::default()
    };
    let wild = Publication { topic: "a/#".into(), ..Publication::default() };
    for message in [giant, wild] {
        assert_eq!(kind(&device, Act::Message(message), SOON).await, ErrorKind::Failed);
    }
    act(&device, volume(1), SOON).await.unwrap();
    device.stop().await;
}

#[tokio::test]
async fn what_acts_and_was_kept_by_an_earlier_version_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.redb");
    let limits = Limits { rows: 10, bytes: 1 << 20, age: Duration::from_hours(1) };
    let outbox = Outbox::open(Some(&file), limits).unwrap();
    outbox.push(&Message::new("outpost/desk/command/lock/front", r#"{"locked":false}"#));
    // The tool `publish` sent anywhere.
    outbox.push(&Message::new("home/door/set", r#"{"locked":false}"#));
    outbox.push(&Message::new("outpost/desk2/set/mute", "OFF"));
    outbox.push(&Message::new("outpost/desk/answer", "{}"));
    drop(outbox);
    let broker = broker();
    let wire = Wire::to(broker.address()).await;
    let mut watcher = listen(&broker, "#").await;
    let device = Device::start(&wire, Some(file.clone()));
    let mut topics = Vec::new();
    while topics.last().is_none_or(|topic| topic != "outpost/desk/answer") {
        topics.push(next(&mut watcher).await.topic);
    }
    let is_dropped = |topic: &&String| topic.contains("door") || topic.contains("desk2");
    assert_eq!(topics.iter().find(is_dropped), None);
    act(&device, volume(9), SOON).await.unwrap();
    assert_eq!(levels(&mut watcher, 9).await, [9]);
    assert_eq!(device.publisher.condition().dropped.old, 3);
    device.stop().await;
    // What this version stores for another topic is an answer that was asked for there.
    let outbox = Outbox::open(Some(&file), limits).unwrap();
    outbox.push(&Message::new("app/answers", "{}"));
    drop(outbox);
    let device = Device::start(&wire, Some(file));
    while next(&mut watcher).await.topic != "app/answers" {}
    assert_eq!(device.publisher.condition().dropped.old, 0);
    device.stop().await;
}
