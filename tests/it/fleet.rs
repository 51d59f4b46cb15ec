//! A short form of `cargo xtask fleet`.

use std::process::Command;

fn fleet(args: &[&str]) -> String {
    let fleet = env!("CARGO_BIN_EXE_outpost-fleet");
    let run = Command::new(fleet).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    said
}

#[test]
fn a_fleet_loses_no_report_when_mosquitto_is_killed_and_shares_what_its_group_is_asked() {
    if Command::new("mosquitto").arg("-h").output().is_err()
        && Command::new("/usr/sbin/mosquitto").arg("-h").output().is_err()
    {
        return outpost_tests::skip("mosquitto is not installed");
    }
    let said = fleet(&["--devices", "40", "--reports", "5", "--asks", "200", "--storms", "1"]);
    assert!(said.contains("400 reports: 0 lost"), "{said}");
    assert!(said.contains("40 of 40 devices answered"), "{said}");
}

#[test]
fn a_fleet_loses_no_report_when_it_loses_the_embedded_broker() {
    let args = ["--embedded", "--devices", "40", "--reports", "5", "--asks", "80", "--storms", "1"];
    let said = fleet(&args);
    assert!(said.contains("400 reports: 0 lost"), "{said}");
    assert!(said.contains("40 of 40 devices answered"), "{said}");
}
