use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use super::*;
use crate::policy::{Moment, Origin};
use crate::requests::Heard;
use crate::testing::{Notes, call, registry};

/// Reads a tool from a TOML-like value, which JSON stands for here.
fn read(config: Value) -> Result<Declared, Vec<String>> {
    let config: DeclaredConfig = serde_json::from_value(config).unwrap();
    let mut faults = Faults::default();
    let declared = Declared::read(&config, "tool[0]", &mut faults);
    let shown =
        faults.0.iter().map(|fault| format!("{} = {}: {}", fault.key, fault.value, fault.remedy));
    declared.ok_or_else(|| shown.collect())
}

struct Desk {
    registry: Arc<Registry>,
    bus: Arc<Notes>,
    requests: Requests,
}

fn desk(config: Value) -> Desk {
    let (registry, bus, requests) = (registry(), Arc::new(Notes::default()), Requests::default());
    read(config).unwrap().add_to(&registry, bus.clone(), requests.clone()).unwrap();
    Desk { registry, bus, requests }
}

#[tokio::test]
async fn a_message_is_published_with_the_arguments_put_in() {
    let desk = desk(json!({
        "name": "fan", "description": "Set the fan.",
        "arguments": {"room": ["attic", "cellar"], "percent": {"type": "integer", "minimum": 0, "maximum": 100, "optional": true}},
        "publish": {"topic": "home/{room}/fan/set", "payload": {"state": "on", "percent": "{percent}"}, "retain": true},
    }));
    call(&desk.registry, "1", "fan", json!({"room": "attic", "percent": 40})).await.unwrap();
    call(&desk.registry, "2", "fan", json!({"room": "cellar"})).await.unwrap();
    let error = call(&desk.registry, "3", "fan", json!({"room": "hall"})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let published = desk.bus.published.lock().unwrap();
    let sent: Vec<(&str, &[u8], bool)> = published
        .iter()
        .map(|sent| (sent.topic.as_str(), sent.payload.as_slice(), sent.retain))
        .collect();
    assert_eq!(
        sent,
        [
            ("home/attic/fan/set", br#"{"state":"on","percent":40}"#.as_slice(), true),
            ("home/cellar/fan/set", br#"{"state":"on"}"#.as_slice(), true),
        ]
    );
}

#[tokio::test]
async fn an_answer_is_known_by_its_transaction_its_properties_or_its_arrival() {
    for correlate in ["transaction", "properties", "arrival"] {
        let desk = desk(json!({
            "name": "door", "description": "Ask the door.", "arguments": {},
            "request": {"topic": "door/get", "payload": {"what": "state"}, "response": "door/state", "correlate": correlate},
        }));
        let answer = async {
            while desk.bus.published.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            let question = desk.bus.published.lock().unwrap()[0].clone();
            let asked: Value = serde_json::from_slice(&question.payload).unwrap();
            let transaction = asked.get("transaction").cloned();
            let answer = json!({"open": true, "transaction": transaction});
            let heard = |topic: &str, correlation: Option<Vec<u8>>, payload: Value| Heard {
                topic: topic.into(),
                payload: payload.to_string().into_bytes(),
                retained: false,
                correlation,
            };
            if correlate != "arrival" {
                desk.requests.hear(&heard(
                    "door/state",
                    None,
                    json!({"open": false, "transaction": "other"}),
                ));
            }
            desk.requests.hear(&Heard {
                retained: true,
                ..heard("door/state", question.correlation.clone(), answer.clone())
            });
            desk.requests.hear(&heard("door/other", question.correlation.clone(), answer.clone()));
            desk.requests.hear(&heard("door/state", question.correlation, answer));
        };
        let (done, ()) = tokio::join!(call(&desk.registry, "7", "door", json!({})), answer);
        assert_eq!(done.unwrap().data.unwrap()["open"], true, "{correlate}");
    }
}

#[tokio::test]
async fn a_program_runs_and_what_its_schema_asks_for_is_held() {
    let desk = desk(json!({
        "name": "say", "description": "Say a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string", "pattern": "^[a-z]+$"}}, "required": ["word"]},
        "process": {"argv": ["/bin/echo", "said", "{word}"]},
    }));
    let done = call(&desk.registry, "1", "say", json!({"word": "hello"})).await.unwrap();
    assert_eq!(done.text.unwrap(), "said hello");
    // Before anybody is asked for a yes.
    let arguments = json!({"word": "a; b"}).as_object().unwrap().clone();
    let judged = desk.registry.judge("say", arguments, Origin::Voice, ("2", Moment::now()));
    assert_eq!(judged.unwrap_err().kind, ErrorKind::Invalid);
}

#[tokio::test]
async fn http_is_asked_with_encoded_arguments_and_a_secret_from_a_file() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        String::from_utf8(asked).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let desk = desk(json!({
        "name": "order", "description": "Order something.", "arguments": {"what": "string"},
        "http": {"method": "POST", "url": format!("http://127.0.0.1:{port}/order/{{what}}?q={{what}}"), "body": {"item": "{what}"},
            "headers": {"Accept": "text/plain", "Authorization": {"prefix": "Bearer ", "file": token}}},
    }));
    let done = call(&desk.registry, "1", "order", json!({"what": "a/b \"&"})).await.unwrap();
    assert_eq!(done.text.unwrap(), "ok");
    let asked = served.join().unwrap();
    for part in [
        "POST /order/a%2Fb%20%22%26?q=a%2Fb%20%22%26 HTTP/1.1",
        "authorization: Bearer s3cret\r\n",
        "accept: text/plain\r\n",
        "content-type: application/json\r\n",
        r#"{"item":"a/b \"&"}"#,
    ] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
    std::fs::remove_file(&token).unwrap();
    let error = call(&desk.registry, "2", "order", json!({"what": "x"})).await.unwrap_err();
    assert!(!error.for_model.contains("token") && error.for_operator.contains("token"), "{error}");
}

#[tokio::test]
async fn no_name_leads_a_declared_tool_to_the_machine_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("http://localhost:{port}/?key=s3cret");
    let desk = desk(json!({"name": "local", "description": "x", "http": {"url": url}}));
    let error = call(&desk.registry, "1", "local", json!({})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
    assert!(error.for_operator.contains("write the address itself"), "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[test]
fn a_fault_does_not_show_the_secret_in_an_address() {
    for url in ["ftp://u:s3cret@h/s3cret", "https://{a}/?key=s3cret", "s3cret@h/?key=s3cret"] {
        let tool = json!({"name": "x", "description": "x", "arguments": {"a": "string"}, "http": {"url": url}});
        let faults = read(tool).unwrap_err().join("\n");
        assert!(faults.contains("http.url") && !faults.contains("s3cret"), "{url}: {faults}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let faults = read(json!({
        "name": "a b", "description": "",
        "arguments": {"room": "string", "level": {"type": "integer", "optional": true}},
        "publish": {"topic": "home/{rom}/{level}", "payload": "{\"a\": {level}}"},
        "timeout_seconds": 0.0,
    }))
    .unwrap_err();
    for part in [
        "tool[0].name = \"a b\"",
        "tool[0].description = \"\"",
        "tool[0].timeout_seconds = 0",
        "tool[0].publish.topic = {rom}: no such argument; known are room, level",
        "tool[0].publish.topic = {level}: a topic needs it",
        "tool[0].publish.payload = {\"a\": {level}}: this is no JSON",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part} is not in {faults:#?}");
    }
}

#[test]
fn tables_that_cannot_be_used_are_refused() {
    let tool = |action: Value| {
        let mut tool = json!({"name": "x", "description": "x", "arguments": {"a": "string"}});
        tool.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
        read(tool)
    };
    for (action, part) in [
        (json!({}), "give one of the tables"),
        (
            json!({"publish": {"topic": "x"}, "process": {"argv": ["/bin/true"]}}),
            "give one of the tables",
        ),
        (json!({"publish": {"topic": "a/#"}}), "name a topic"),
        (json!({"publish": {"topic": "$SYS/{a}"}}), "name a topic"),
        (json!({"publish": {"topic": "x", "payload": {"b": "{b}"}}}), "no such argument"),
        (json!({"request": {"topic": "x", "response": "a/+", "payload": {}}}), "without wildcards"),
        (json!({"request": {"topic": "x", "response": "y", "payload": "ask"}}), "use a table"),
        (json!({"process": {"argv": ["ls"]}}), "whole path"),
        (json!({"process": {"argv": ["/bin/ls", "{b}"]}}), "no such argument"),
        (json!({"process": {"argv": []}}), "give the program"),
        (json!({"http": {"url": "https://{a}/x"}}), "only after the host"),
        (json!({"http": {"url": "https://example.org{a}"}}), "only after the host"),
        (json!({"http": {"url": "file:///etc/passwd"}}), "only after the host"),
        (
            json!({"http": {"url": "https://h/", "headers": {"A": {"prefix": "x"}}}}),
            "either file or env",
        ),
        (json!({"http": {"url": "https://h/", "headers": {"A B": "x"}}}), "no name of a header"),
        (
            json!({"parameters": {"type": "object"}, "publish": {"topic": "x"}}),
            "leave it out, or parameters",
        ),
        (
            json!({"arguments": {"a": "colour"}, "publish": {"topic": "x"}}),
            "properties/a/type: \"colour\"",
        ),
    ] {
        let faults = tool(action.clone()).err().unwrap_or_else(|| panic!("{action} is taken"));
        assert!(faults.iter().any(|fault| fault.contains(part)), "{action}: {faults:?}");
    }
}

#[tokio::test]
async fn a_message_that_was_not_delivered_is_a_call_that_failed() {
    for action in [
        json!({"publish": {"topic": "home/fan/set", "payload": "on"}}),
        json!({"request": {"topic": "door/get", "payload": "state", "response": "door/state", "correlate": "arrival"}}),
    ] {
        let mut tool = json!({"name": "act", "description": "Act.", "arguments": {}});
        tool.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
        let desk = desk(tool);
        for (id, kind) in [("1", ErrorKind::Unavailable), ("2", ErrorKind::Unacknowledged)] {
            *desk.bus.fate.lock().unwrap() = Some(kind);
            let error = call(&desk.registry, id, "act", json!({})).await.unwrap_err();
            assert_eq!(error.kind, kind);
        }
    }
}
