//! A short form of `cargo xtask chaos`, and a daemon that is killed in the middle of a tool.

use std::process::Command;

/// Runs it, and holds it to its last word.
fn chaos(arguments: &[&str], verdict: &str) {
    if Command::new("mosquitto").arg("-h").output().is_err()
        && Command::new("/usr/sbin/mosquitto").arg("-h").output().is_err()
    {
        return outpost_tests::skip("mosquitto is not installed");
    }
    let chaos = env!("CARGO_BIN_EXE_outpost-chaos");
    let run = Command::new(chaos).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains(verdict), "{said}");
}

#[test]
fn faults_lose_no_report_and_repeat_no_call() {
    chaos(
        &["--calls", "160", "--faults", "12"],
        "0 reports lost, 0 calls executed twice, 0 executed late",
    );
}

#[test]
fn a_call_under_way_when_the_daemon_is_killed_is_told_of_once_and_not_made_again() {
    chaos(&["crash"], "told of once as unknown, carried out once");
}
