//! A short form of `cargo xtask chaos`.

use std::process::Command;

#[test]
fn faults_lose_no_report_and_repeat_no_call() {
    if Command::new("mosquitto").arg("-h").output().is_err()
        && Command::new("/usr/sbin/mosquitto").arg("-h").output().is_err()
    {
        eprintln!("SKIPPED: mosquitto is not installed");
        return;
    }
    let chaos = env!("CARGO_BIN_EXE_outpost-chaos");
    let run = Command::new(chaos).args(["--calls", "160", "--faults", "10"]).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("0 reports lost, 0 calls executed twice"), "{said}");
}
