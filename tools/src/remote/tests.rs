use super::*;
use crate::testing::{Notes, call, registry};
use crate::tool::{Class, Tool};

struct Desk {
    registry: Arc<Registry>,
    bus: Arc<Notes>,
    switchboard: Switchboard,
}

fn desk(config: RemoteConfig) -> Desk {
    let (registry, bus) = (registry(), Arc::new(Notes::default()));
    let settings = (config, vec!["files_".to_owned()]);
    let switchboard =
        Switchboard::new(registry.clone(), bus.clone(), settings, Requests::default());
    Desk { registry, bus, switchboard }
}

const TORCH: &str = r#"{"description": "Switch the torch.", "availability": "shed/status",
    "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}}"#;

fn heard(payload: impl Into<Vec<u8>>) -> Heard {
    Heard { payload: payload.into(), ..Heard::default() }
}

impl Desk {
    fn names(&self) -> Vec<String> {
        self.registry.specs().into_iter().map(|spec| spec.name).collect()
    }

    fn available(&self, payload: &str) {
        let topic = "shed/status".into();
        self.switchboard.other(&Heard { topic, ..heard(payload) });
    }

    /// Calls the torch, and has its program answer with `results` once it was called.
    async fn call(&self, id: &str, results: &[String]) -> Answer {
        let answer = async {
            while self.bus.calls.lock().unwrap().last().is_none_or(|call| call.call != id) {
                tokio::task::yield_now().await;
            }
            for result in results {
                self.switchboard.result("torch", &heard(result.clone())).ok();
            }
        };
        tokio::join!(call(&self.registry, id, "torch", json!({"on": true})), answer).0
    }
}

#[tokio::test]
async fn a_tool_is_offered_called_and_withdrawn() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    assert_eq!(
        (desk.names(), desk.bus.listened.lock().unwrap().clone()),
        (vec!["torch".into()], vec!["shed/status".to_owned()])
    );
    let done = desk.call("1", &[json!({"call": "1", "text": "lit"}).to_string()]).await.unwrap();
    assert_eq!(done, ToolOutcome::text("lit"));
    let sent = desk.bus.calls.lock().unwrap()[0].clone();
    assert_eq!(
        (sent.tool.as_str(), sent.arguments.clone(), sent.limit),
        ("torch", json!({"on": true}).as_object().unwrap().clone(), LIMIT)
    );
    let error = call(&desk.registry, "2", "torch", json!({"on": 3})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);

    desk.available("offline");
    assert!(desk.names().is_empty());
    desk.available("online");
    desk.available("online");
    assert_eq!(desk.names(), ["torch"]);
    desk.switchboard.define("torch", b"").unwrap();
    assert!(desk.names().is_empty());
    desk.available("online");
    assert!(desk.names().is_empty());
}

#[test]
fn a_tool_that_is_away_is_not_offered_however_it_is_defined() {
    let desk = desk(RemoteConfig::default());
    let define = |name: &str| desk.switchboard.define(name, TORCH.as_bytes());
    define("torch").unwrap();
    desk.available("offline");
    define("torch").unwrap();
    assert!(desk.names().is_empty(), "defined again");
    define("lamp").unwrap();
    assert!(desk.names().is_empty(), "shares the topic");
    // What is retained comes again with the next connection, in any order.
    desk.switchboard.lose();
    define("torch").unwrap();
    define("lamp").unwrap();
    assert!(desk.names().is_empty(), "after a reconnect");
    desk.available("Offline ");
    desk.available("online");
    assert_eq!(desk.names(), ["lamp", "torch"]);
    define("torch").unwrap();
    define("fan").unwrap();
    assert_eq!(desk.names(), ["lamp", "torch", "fan"]);
    desk.available("offline");
    assert!(desk.names().is_empty());
    // Under another topic, it is there.
    desk.switchboard.define("fan", TORCH.replace("shed/", "hall/").as_bytes()).unwrap();
    assert_eq!(desk.names(), ["fan"]);
    define("fan").unwrap();
    assert!(desk.names().is_empty(), "it moved to a topic that is offline");
}

#[test]
fn a_tool_that_is_away_leaves_one_that_took_its_name_alone() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("set_lock", TORCH.as_bytes()).unwrap();
    desk.available("offline");
    desk.registry.add(Own).unwrap();
    for payload in ["online", "offline", "online"] {
        desk.available(payload);
        assert_eq!(desk.registry.specs()[0].description, "Our own.");
    }
    let taken = desk.switchboard.define("set_lock", TORCH.as_bytes());
    assert!(taken.is_err(), "{taken:?}");
    desk.available("offline");
    assert!(desk.switchboard.define("set_lock", TORCH.as_bytes()).is_err());
    desk.switchboard.define("set_lock", b"").unwrap();
    desk.switchboard.lose();
    assert_eq!(desk.names(), ["set_lock"]);
}

#[test]
fn a_tool_that_is_defined_again_is_known_all_the_time() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    let registry = desk.registry.clone();
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let looking = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert!(registry.knows("torch"));
        }
    });
    for _ in 0..2000 {
        desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    }
    drop(stop);
    looking.join().unwrap();
}

#[tokio::test]
async fn results_that_are_late_of_others_or_retained_are_ignored() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    let result = |call: &str, text: &str| json!({"call": call, "text": text}).to_string();
    let retained = Heard { retained: true, ..heard(result("2", "old")) };
    let answer = async {
        while desk.bus.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        desk.switchboard.result("torch", &retained).unwrap();
        desk.switchboard.result("lamp", &heard(result("2", "of another tool"))).unwrap();
        desk.switchboard.result("torch", &heard(result("1", "of another call"))).unwrap();
        desk.switchboard.result("torch", &heard(result("2", "first"))).unwrap();
        desk.switchboard.result("torch", &heard(result("2", "second"))).unwrap();
    };
    let (done, ()) = tokio::join!(call(&desk.registry, "2", "torch", json!({"on": true})), answer);
    assert_eq!(done.unwrap().text.unwrap(), "first");
    assert!(desk.switchboard.state().waiting.is_empty());
}

#[tokio::test]
async fn a_result_may_be_data_media_or_an_error() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    let whole = json!({"call": "1", "data": {"lux": 3}, "media": [{"mime": "image/png", "base64": "cG5n"}]});
    let done = desk.call("1", &[whole.to_string()]).await.unwrap();
    assert_eq!(
        (done.data, done.media[0].bytes.as_slice()),
        (Some(json!({"lux": 3})), b"png".as_slice())
    );
    let error = desk.call("2", &[json!({"call": "2", "error": "no battery"}).to_string()]).await;
    assert_eq!(error.unwrap_err().for_model, "no battery");
    let long = json!({"call": "3", "text": "x".repeat(MAX_RESULT + 1)}).to_string();
    assert_eq!(desk.call("3", &[long]).await.unwrap_err().kind, ErrorKind::Failed);
}

#[tokio::test]
async fn with_the_connection_go_tools_and_calls() {
    let desk = desk(RemoteConfig::default());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    let lose = async {
        while desk.bus.calls.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        desk.switchboard.lose();
    };
    let (done, ()) = tokio::join!(call(&desk.registry, "1", "torch", json!({"on": true})), lose);
    assert!(done.unwrap_err().for_model.contains("may have been done"));
    assert!(desk.names().is_empty());
    desk.switchboard.define("torch", TORCH.as_bytes()).unwrap();
    desk.bus.down.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(call(&desk.registry, "2", "torch", json!({"on": true})).await.is_err());
}

#[test]
fn a_class_is_never_laxer_than_the_configuration_allows() {
    let define = |most: ClassName, asked: Value| {
        let desk = desk(RemoteConfig { class: most, ..RemoteConfig::default() });
        let mut offer = json!({"description": "x"});
        offer.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        desk.switchboard.define("x", offer.to_string().as_bytes()).unwrap();
        desk.switchboard.state().offers["x"].definition.class
    };
    let open = json!({"class": "open"});
    assert_eq!(define(ClassName::Guarded, open.clone()), Class::Guarded);
    assert_eq!(define(ClassName::Open, open), Class::Open);
    assert_eq!(define(ClassName::Open, json!({})), Class::Guarded);
    assert_eq!(define(ClassName::Open, json!({"class": "guarded"})), Class::Guarded);
}

#[derive(Debug)]
struct Own;

#[derive(Deserialize, schemars::JsonSchema)]
struct Nothing {}

impl Tool for Own {
    type Arguments = Nothing;
    const NAME: &'static str = "set_lock";
    const DESCRIPTION: &'static str = "Our own.";
    async fn call(&self, _: Nothing, _: &Context) -> Result<ToolOutcome, ToolError> {
        Ok(ToolOutcome::done())
    }
}

#[test]
fn hostile_offers_are_refused_and_take_no_name_of_ours() {
    let desk = desk(RemoteConfig { max_tools: 2, ..RemoteConfig::default() });
    desk.registry.add(Own).unwrap();
    let good = json!({"description": "x"}).to_string();
    let nested = format!("{{\"description\": \"x\", \"parameters\": {}", "[".repeat(10_000));
    for (name, payload) in [
        ("set_lock", good.clone()),
        ("files_read", good.clone()),
        ("a b", good.clone()),
        ("", good.clone()),
        ("x", "ON".into()),
        ("x", "{}".into()),
        ("x", "\u{0}".into()),
        ("x", r#"{"description": " "}"#.into()),
        ("x", r#"{"description": 3}"#.into()),
        ("x", r#"{"description": "x", "command": "rm"}"#.into()),
        ("x", r#"{"description": "x", "class": "internal"}"#.into()),
        ("x", r#"{"description": "x", "availability": "$SYS/#"}"#.into()),
        ("x", r#"{"description": "x", "parameters": {"type": "string"}}"#.into()),
        ("x", format!("{{\"description\": \"{}\"}}", "x".repeat(MAX_DEFINITION))),
        ("x", nested),
    ] {
        assert!(desk.switchboard.define(name, payload.as_bytes()).is_err(), "{name} {payload:.60}");
    }
    assert!(desk.switchboard.define("x", b"\xff\xfe").is_err());
    assert_eq!(desk.names(), ["set_lock"]);
    desk.switchboard.define("set_lock", b"").unwrap();
    assert_eq!(desk.names(), ["set_lock"], "clearing a topic takes no tool of ours away");
    desk.switchboard.define("a", good.as_bytes()).unwrap();
    desk.switchboard.define("b", good.as_bytes()).unwrap();
    assert!(desk.switchboard.define("c", good.as_bytes()).is_err(), "their number is bounded");
    desk.switchboard.define("b", b"nonsense").unwrap_err();
    assert_eq!(desk.names(), ["set_lock", "a"], "what is retained counts");
}

#[test]
fn subscriptions_are_bounded_however_often_a_tool_is_defined() {
    let desk = desk(RemoteConfig { max_tools: 2, ..RemoteConfig::default() });
    for index in 0..1000 {
        let offer = json!({"description": "x", "availability": format!("a/{index}")});
        desk.switchboard.define("x", offer.to_string().as_bytes()).ok();
    }
    assert_eq!(desk.bus.listened.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn a_call_that_was_not_delivered_fails_as_its_delivery_did() {
    let desk = desk(RemoteConfig::default());
    let definition = json!({"description": "Switch the torch.", "idempotent": true}).to_string();
    desk.switchboard.define("torch", definition.as_bytes()).unwrap();
    for (id, kind) in [("1", ErrorKind::Unavailable), ("2", ErrorKind::Unacknowledged)] {
        *desk.bus.fate.lock().unwrap() = Some(kind);
        let error = call(&desk.registry, id, "torch", json!({})).await.unwrap_err();
        assert_eq!((error.kind, desk.switchboard.state().waiting.len()), (kind, 0));
    }
    // With the connection goes a call whose fate is open.
    *desk.bus.fate.lock().unwrap() = None;
    let lose = async {
        while desk.bus.calls.lock().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        desk.switchboard.lose();
    };
    let (lost, ()) = tokio::join!(call(&desk.registry, "3", "torch", json!({})), lose);
    assert_eq!(lost.unwrap_err().kind, ErrorKind::Unacknowledged);
}
