//! `outpost demo` as a program.

use std::process::Command;

use outpost_tests::root;

/// The program beside this test: `cargo build --workspace --tests` and `cargo nextest run --workspace` build both.
pub(crate) fn outpost() -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test
        .ancestors()
        .find(|folder| folder.join("outpost").is_file())
        .expect("target/debug/outpost is built");
    let mut command = Command::new(folder.join("outpost"));
    command.current_dir(root()).env_remove("OUTPOST_MODEL").env_remove("RUST_LOG");
    command
}

#[test]
fn the_demo_shows_every_expected_report_and_ends_by_itself() {
    let output = outpost().arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    for part in ["status", "online", "event/camera", "event/voice", "tool/", "offline"] {
        assert!(text.contains(part), "no {part} in:\n{text}\n{errors}");
    }
    // A report that should have come and did not would be named, and the exit code say so.
    assert_eq!(output.status.code(), Some(0), "{text}\n{errors}");
}

#[test]
fn a_wrong_configuration_exits_with_78_and_names_its_faults() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outpost.toml");
    std::fs::write(&file, "[model]\ncontext = 3\n[agent]\nmax_steps = 0\n").unwrap();
    let output = outpost().args(["run", "--config"]).arg(&file).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{errors}");
    assert!(
        errors.contains("model.context = 3") && errors.contains("agent.max_steps = 0"),
        "{errors}"
    );
}

#[test]
fn ask_prints_the_calls_as_json() {
    let output = outpost().args(["ask", "--json", "lock the front door"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["calls"][0]["name"], "set_lock", "{answer}");
}

#[test]
fn the_doctor_names_what_is_wrong_and_how_to_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outpost.toml");
    // Nobody listens on port 1 of this machine.
    std::fs::write(
        &file,
        "[mqtt]\nhost = '127.0.0.1'\nport = 1\n[firmware]\nport = '/dev/nothing'\n",
    )
    .unwrap();
    let output = outpost().args(["doctor", "--json", "--config"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |area: &str| findings.iter().rfind(|finding| finding["area"] == area).unwrap();
    // The bundled model cannot call the board's relays: a note.
    for (area, verdict) in [("model", "note"), ("mqtt", "wrong"), ("serial", "wrong")] {
        assert_eq!(of(area)["verdict"], verdict, "{findings:#?}");
    }
    assert!(!findings.iter().any(|at| at["area"] == "model" && at["verdict"] == "wrong"));
    assert!(of("mqtt")["remedy"].as_str().unwrap().contains("mqtt.host"));
    assert!(findings.iter().any(|finding| finding["area"] == "sound"), "{findings:#?}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let model = root().join("models/nano/checkpoint");
    let model = model.to_str().unwrap();
    for arguments in [vec!["tasks"], vec!["plan", "--model", model], vec!["doctor"], vec!["--help"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = outpost().args(&arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
    }
}
