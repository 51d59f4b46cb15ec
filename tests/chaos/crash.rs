//! The daemon is killed while a tool is at work: the call is told of once, as one that may have been done, and is not made again.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use outpost_mqtt::subscriber::{Received, Subscriber};
use outpost_tests::broker::{Broker, free_port};
use serde_json::json;

use crate::daemon::{BURNT, Daemon, SLOW};
use crate::{judge, say};

/// How long something may take that is bound to come.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Kills the daemon twice: in the middle of the tool, and right after it has told of that.
pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let broker = Broker::start(folder.path(), port, true)?;
    let config = format!(
        "[mqtt]\ndevice = \"outpost\"\nhost = \"127.0.0.1\"\nport = {port}\noutbox = \"outbox.redb\"\n"
    );
    std::fs::write(folder.path().join("outpost.toml"), config)?;
    let mut judge = judge(&broker).await?;
    let mut daemon = Daemon::start(folder.path())?;
    online(&mut judge).await?;
    judge.publish("outpost/outpost/ask", SLOW).await?;
    let mark = folder.path().join(BURNT);
    wait_for(&mark).await?;
    daemon.kill()?;

    let mut reports = Vec::new();
    for _ in 0..2 {
        daemon = Daemon::start(folder.path())?;
        reports.extend(online(&mut judge).await?);
        reports.extend(quiet(&mut judge).await);
        daemon.kill()?;
    }
    reports.retain(|received| received.topic.ends_with(&format!("/tool/{SLOW}")));
    // What the broker had not acknowledged when the daemon was killed comes again, as the same message.
    reports.dedup_by_key(|received| received.payload["id"].clone());
    ensure!(reports.len() == 1, "not told of once: {reports:?}");
    let outcome = &reports[0].payload["outcome"];
    ensure!(outcome["status"] == json!("unknown"), "not told as unknown: {outcome}");
    let marks = std::fs::read_to_string(&mark)?;
    ensure!(marks == "burnt\n", "it was carried out again: {marks}");
    say!("1 call begun, told of once as unknown, carried out once: {outcome}");
    Ok(())
}

/// Waits for the daemon to say that it is there; what it said before that.
async fn online(judge: &mut Subscriber) -> Result<Vec<Received>> {
    let mut before = Vec::new();
    loop {
        let received = judge.next(TIMEOUT).await.context("the daemon does not come up")?;
        if received.topic.ends_with("/status") && received.payload == json!("online") {
            return Ok(before);
        }
        before.push(received);
    }
}

async fn quiet(judge: &mut Subscriber) -> Vec<Received> {
    let mut all = Vec::new();
    while let Some(received) = judge.next(Duration::from_secs(3)).await {
        all.push(received);
    }
    all
}

async fn wait_for(mark: &Path) -> Result<()> {
    let started = Instant::now();
    while !mark.exists() {
        ensure!(started.elapsed() < TIMEOUT, "the tool is not called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
