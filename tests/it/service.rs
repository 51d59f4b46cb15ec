//! `outpost run` as a service manager sees it: over a notification socket that the test made.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::demo::outpost;

/// What the agent says next that has this in it.
fn expect(socket: &UnixDatagram, part: &str) -> String {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {part}: {error}"));
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if said.contains(part) {
            return said;
        }
    }
}

#[test]
fn a_service_manager_is_told_of_readiness_life_and_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("outpost.toml");
    std::fs::write(&config, "[mqtt]\noutbox = 'outbox.redb'\n").unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let agent = outpost()
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "600000")
        .env_remove("WATCHDOG_PID")
        .env("JOURNAL_STREAM", "1:1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let loading = expect(&socket, "EXTEND_TIMEOUT_USEC=");
    assert!(loading.contains("STATUS=loading the model"), "{loading}");
    expect(&socket, "READY=1");
    let alive = expect(&socket, "WATCHDOG=1");
    assert!(alive.contains("STATUS=idle; heard 0"), "{alive}");
    expect(&socket, "WATCHDOG=1");

    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    expect(&socket, "STOPPING=1");
    let output = agent.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // The journal has its own clock and no colours.
    let is_plain = |line: &str| !line.starts_with(char::is_numeric) && !line.contains('\u{1b}');
    assert!(log.lines().all(is_plain), "{log}");
}

#[test]
fn an_agent_that_is_told_to_end_while_it_loads_ends() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("outpost.toml");
    std::fs::write(&config, "").unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut agent = outpost()
        .args(["run", "--config"])
        .arg(&config)
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .spawn()
        .unwrap();
    expect(&socket, "STATUS=loading");
    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(agent.wait().unwrap().success());
}
