//! A short form of `cargo xtask fleet`.

use std::process::Command;
use std::time::Duration;

use outpost_agent::app::{App, Running};
use outpost_agent_core::config::Config;
use outpost_agent_core::model_thread::Model;
use outpost_mqtt::message::Message;
use outpost_mqtt::subscriber::Subscriber;
use outpost_tests::broker::{Broker, free_port};
use outpost_tests::daemon::Script;
use serde_json::{Value, json};

/// How long anything may take on a machine that is busy.
const SOON: Duration = Duration::from_mins(1);

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

/// A device of mosquitto on this port.
async fn device(name: &str, group: &str, port: u16) -> Running {
    let text = format!(
        "[mqtt]\ndevice = '{name}'\ngroup = '{group}'\nhost = '127.0.0.1'\nport = {port}\n"
    );
    let config = Config::parse(&text, "test").unwrap();
    let load = || Ok(Box::new(Script::default()) as Box<dyn Model>);
    App::with_model(config, load).await.unwrap().spawn().unwrap()
}

/// `outpost fleet status` of the broker on this port: whether all is done, and what it says.
async fn fleet_status(port: u16, args: &[&str]) -> (bool, String) {
    let mut status = crate::demo::outpost();
    status.args(["fleet", "status", "--host", "127.0.0.1", "--port", &port.to_string()]).args(args);
    let done = tokio::task::spawn_blocking(move || status.output().unwrap()).await.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(!said.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    (done.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_fleet_tells_who_has_what_is_desired_and_who_is_away_or_never_came() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let Ok(broker) = Broker::start(folder.path(), port, false) else {
        return outpost_tests::skip("mosquitto is not installed");
    };
    let mut reports =
        Subscriber::connect(broker.address(), "test", "outpost/+/config/reported").await.unwrap();
    // Each has reported what it does before the next thing is done.
    let mut reported = async |name: &str, is_wanted: &dyn Fn(&Value) -> bool| loop {
        let report = reports.next(SOON).await.expect("a report");
        if report.topic == format!("outpost/{name}/config/reported") && is_wanted(&report.payload) {
            return report.payload;
        }
    };
    let retain = async |topic: &str, document: Value| {
        let mut operator = Subscriber::connect(broker.address(), "operator", topic).await.unwrap();
        let payload = document.to_string();
        operator.send(Message { retain: true, ..Message::new(topic, payload) }).await.unwrap();
        assert_eq!(operator.next(SOON).await.expect("the broker has it").payload, document);
    };
    let is_new: &dyn Fn(&Value) -> bool = &|report| report["group"]["desired"] == "k-2";

    let away = device("kitchen-2", "kitchens", port).await;
    let report = reported("kitchen-2", &|_| true).await;
    assert_eq!(report["group"], json!({ "name": "kitchens", "applied": false }));
    assert!(away.drain(SOON).await);
    let here = device("kitchen-1", "kitchens", port).await;
    let outside = device("hall", "halls", port).await;
    reported("hall", &|_| true).await;
    let (is_done, said) = fleet_status(port, &[]).await;
    assert!(!is_done && said.lines().count() == 4, "{said}");

    let roll_out = json!({ "id": "k-2", "agent": { "max_steps": 2 } });
    retain("outpost/@kitchens/config/desired", roll_out).await;
    reported("kitchen-1", is_new).await;
    let wrong = json!({ "id": "h-1", "agent": { "max_steps": 99 } });
    retain("outpost/hall/config/desired", wrong).await;
    reported("hall", &|report| report["device"]["refused"]["desired"] == "h-1").await;

    let inventory = folder.path().join("devices");
    std::fs::write(&inventory, "kitchen-1\nkitchen-2\nkitchen-3  # in its box\n").unwrap();
    let inventory = ["--inventory", inventory.to_str().unwrap()];
    let (is_done, said) =
        fleet_status(port, &[&["--group", "kitchens"], &inventory[..]].concat()).await;
    let version = env!("CARGO_PKG_VERSION");
    let rows: Vec<Vec<&str>> = said
        .lines()
        .skip(1)
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let expected = [
        ["kitchen-1", "kitchens", version, "online", "group k-2", "group in force"],
        ["kitchen-2", "kitchens", version, "offline", "group k-2", "group waiting"],
        ["kitchen-3", "-", "-", "never seen", "-", "never"],
    ];
    assert_eq!(rows, expected, "{said}");
    assert!(!is_done, "{said}");

    let (is_done, said) = fleet_status(port, &["--group", "halls", "--json"]).await;
    let rows: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        rows[0]["rollouts"],
        json!([{ "scope": "device", "desired": "h-1", "progress": "refused" }])
    );
    assert!(!is_done && rows.as_array().is_some_and(|rows| rows.len() == 1), "{said}");

    // The roll-out is done once the last one is back.
    let back = device("kitchen-2", "kitchens", port).await;
    reported("kitchen-2", is_new).await;
    let (is_done, said) = fleet_status(port, &["--group", "kitchens"]).await;
    assert!(is_done && said.matches("in force").count() == 2, "{said}");
    for device in [here, outside, back] {
        assert!(device.drain(SOON).await);
    }
}
