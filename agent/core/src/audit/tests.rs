use std::path::Path;
use std::process::Command;

use super::*;
use crate::event::{EventId, Origin};
use crate::report::ReportId;

fn call(arguments: &Value) -> Intent {
    Intent {
        call: ReportId::new(),
        cause: EventId::new(),
        origin: Origin::Voice,
        name: "http_request".into(),
        arguments: arguments.as_object().unwrap().clone(),
        idempotent: false,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

#[test]
fn each_judgement_answer_and_outcome_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let config = AuditConfig { path: Some(path.clone()), ..AuditConfig::default() };
    let call = call(&json!({"door": "front"}));
    {
        let audit = Audit::open(&config).unwrap();
        audit.decision(&call, "confirm", None);
        audit.answer(&call, "yes");
    }
    let audit = Audit::open(&config).unwrap();
    let failed = Outcome::Failed { kind: "timeout".into(), message: "too long".into() };
    audit.outcome(&call, &failed, Duration::from_millis(1500));
    let lines = lines(&path);
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["call"] == call.call.to_string()));
    assert_eq!(
        (&lines[0]["what"], &lines[0]["verdict"], &lines[0]["arguments"], &lines[0]["origin"]),
        (&json!("decision"), &json!("confirm"), &json!({"door": "front"}), &json!("voice"))
    );
    assert_eq!((&lines[1]["what"], &lines[1]["answer"]), (&json!("answer"), &json!("yes")));
    assert_eq!(
        (&lines[2]["outcome"], &lines[2]["kind"], &lines[2]["latency_ms"]),
        (&json!("failed"), &json!("timeout"), &json!(1500))
    );
}

#[test]
fn a_line_that_a_power_cut_left_half_written_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    std::fs::write(&path, "{\"what\":\"outc").unwrap();
    let audit = Audit::open(&AuditConfig { path: Some(path.clone()), ..AuditConfig::default() });
    audit.unwrap().answer(&call(&json!({})), "no");
    let text = std::fs::read_to_string(&path).unwrap();
    let last: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(last["answer"], "no");
}

#[test]
fn secrets_are_written_neither_as_arguments_nor_in_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let redact = vec!["token".to_owned(), "pin".to_owned()];
    let audit =
        Audit::open(&AuditConfig { path: Some(path.clone()), redact, ..AuditConfig::default() });
    let audit = audit.unwrap();
    let call = call(&json!({"url": "x", "headers": [{"token": "s3cr\"et"}], "pin": 4711}));
    audit.decision(
        &call,
        "invalid",
        Some("pin: 4711 is less than 0, token: \"s3cr\\\"et\" is short"),
    );
    let failed = Outcome::Failed { kind: "failed".into(), message: "no s3cr\"et".into() };
    audit.outcome(&call, &failed, Duration::ZERO);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cr") && !text.contains("4711"), "{text}");
    assert_eq!(
        lines(&path)[0]["arguments"],
        json!({"url": "x", "headers": [{"token": "***"}], "pin": "***"})
    );
}

#[test]
fn a_full_file_is_set_aside_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut log = Log::open(&path, 110, 2).unwrap();
    for number in 0..10 {
        log.append(&format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat(30)));
    }
    let numbers = |name: &str| -> Vec<u64> {
        lines(&folder.path().join(name))
            .iter()
            .map(|line| line["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers("audit.jsonl"), [8, 9]);
    assert_eq!(numbers("audit.jsonl.1"), [6, 7]);
    assert_eq!(numbers("audit.jsonl.2"), [4, 5]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let mut log = Log::open(&path, 110, 3).unwrap();
    let mut append = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            log.append(&format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat(30)));
        }
    };
    let kept = || -> Vec<u64> {
        let mut numbers = Vec::new();
        for name in
            ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl.0", "audit.jsonl"]
        {
            let file = folder.path().join(name);
            if file.is_file() {
                numbers.extend(lines(&file).iter().map(|line| line["number"].as_u64().unwrap()));
            }
        }
        numbers
    };
    append(0..8);
    assert_eq!(kept(), [0, 1, 2, 3, 4, 5, 6, 7]);
    // The number that the oldest is to have is taken by a folder that is not empty.
    let blocked = folder.path().join("audit.jsonl.3");
    std::fs::rename(&blocked, folder.path().join("old")).unwrap();
    std::fs::create_dir_all(blocked.join("x")).unwrap();
    append(8..20);
    assert_eq!(kept(), (2..20).collect::<Vec<_>>());
    std::fs::remove_dir_all(&blocked).unwrap();
    std::fs::rename(folder.path().join("old"), &blocked).unwrap();
    append(20..22);
    // The two oldest go, as they would have, and no other.
    assert_eq!(kept(), (4..22).collect::<Vec<_>>());

    // Somebody else moved the file away: another takes its place.
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    append(22..24);
    assert_eq!(kept(), (4..20).chain(22..24).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_lines_which_are_counted_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "audit"]).arg(folder.path());
    if !mount.output().is_ok_and(|done| done.status.success()) {
        eprintln!("SKIPPED: no small disk can be mounted here");
        return;
    }
    let path = folder.path().join("audit.jsonl");
    let mut log = Log::open(&path, 1 << 20, 2).unwrap();
    log.append("{\"number\":0}");
    let ballast = folder.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
    let long = "x".repeat(5000);
    for number in 1..4 {
        log.append(&format!("{{\"number\":{number},\"text\":\"{long}\"}}"));
    }
    std::fs::remove_file(&ballast).unwrap();
    log.append("{\"number\":4}");
    let lines = lines(&path);
    Command::new("umount").arg("-l").arg(folder.path()).status().unwrap();
    assert_eq!(
        lines,
        [json!({"number": 0}), json!({"what": "lost", "lines": 3}), json!({"number": 4})]
    );
}
