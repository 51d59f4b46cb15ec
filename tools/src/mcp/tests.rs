//! The client against the reference implementation in Python, which `cargo xtask test` fetches.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::McpConfig;
use super::client::attend;
use crate::http::plain_client;
use crate::registry::Registry;
use crate::testing::{call, registry};
use crate::tool::ErrorKind;

async fn until(registry: &Registry, is_wanted: impl Fn(&[String]) -> bool) {
    let wanted = async {
        loop {
            let names: Vec<String> = registry.specs().into_iter().map(|spec| spec.name).collect();
            if is_wanted(&names) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(2), wanted).await.expect("the tools come and go");
}

fn has(names: &[String], wanted: &str) -> bool {
    names.iter().any(|name| name == wanted)
}

#[tokio::test]
async fn tools_of_a_server_are_called_grow_and_come_back_after_a_crash() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let peers = root.join(".outpost/peers");
    if !peers.exists() {
        let required = std::env::var_os("OUTPOST_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "no Python packages in .outpost/peers, and OUTPOST_REQUIRE_PEERS is 1");
        writeln!(std::io::stderr(), "SKIPPED: no Python packages in .outpost/peers").unwrap();
        return;
    }
    let config = McpConfig {
        name: "reference".into(),
        command: Some("python3".into()),
        args: vec![root.join("tests/fixtures/mcp/server.py").display().to_string()],
        environment: [("PYTHONPATH".to_owned(), peers.display().to_string())].into(),
        ..McpConfig::default()
    };
    let (registry, changed) = (registry(), Arc::<Notify>::default());
    let test = async {
        until(&registry, |names| has(names, "reference_add")).await;
        let sum = call(&registry, "1", "reference_add", json!({"a": 1, "b": 2})).await.unwrap();
        assert_eq!((sum.data, sum.text), (Some(json!({"total": 3})), None));
        let picture = call(&registry, "2", "reference_picture", json!({})).await.unwrap();
        assert_eq!(picture.media[0].mime, "image/png");
        let error = call(&registry, "3", "reference_fail", json!({})).await.unwrap_err();
        assert!(error.for_model.contains("fail"), "{error}");
        call(&registry, "4", "reference_grow", json!({})).await.unwrap();
        until(&registry, |names| has(names, "reference_grown")).await;
        call(&registry, "5", "reference_crash", json!({})).await.unwrap_err();
        until(&registry, <[String]>::is_empty).await;
        until(&registry, |names| has(names, "reference_add") && !has(names, "reference_grown"))
            .await;
    };
    tokio::select! {
        () = test => {}
        () = attend(config, registry.clone(), changed) => {}
    }
    assert!(registry.specs().is_empty(), "tools go with the connection");
}

/// A server of `tests/fixtures/mcp/odd.py`.
fn odd(arguments: &[&str]) -> Vec<String> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/fixtures/mcp/odd.py");
    std::iter::once(script.display().to_string())
        .chain(arguments.iter().map(ToString::to_string))
        .collect()
}

fn odd_config(mode: &str) -> McpConfig {
    McpConfig {
        name: "s".into(),
        command: Some("python3".into()),
        args: odd(&[mode]),
        max_tools: 64,
        ..McpConfig::default()
    }
}

/// Runs a test beside the client of a server.
async fn with(config: McpConfig, test: impl AsyncFnOnce(&Registry)) {
    let (registry, changed) = (registry(), Arc::<Notify>::default());
    tokio::select! {
        () = test(&registry) => {}
        () = attend(config, registry.clone(), changed) => {}
    }
}

#[tokio::test]
async fn a_list_of_tools_is_read_to_its_end_and_no_further() {
    for (mode, tools) in [("pages", 12), ("stuck", 1), ("empty", 1), ("banner", 1), ("endless", 64)]
    {
        with(odd_config(mode), async |registry| {
            until(registry, |names| names.len() == tools).await;
        })
        .await;
    }
}

#[tokio::test]
async fn arguments_are_held_against_the_schema_in_full_and_results_taken_as_they_are() {
    with(odd_config("plain"), async |registry| {
        until(registry, |names| has(names, "s_good")).await;
        assert!(
            call(registry, "1", "s_good", json!({"a": "xy", "b": 30.0}))
                .await
                .unwrap()
                .text
                .unwrap()
                .contains("\"b\": 30}")
        );
        let refused = call(registry, "2", "s_good", json!({"a": "y"})).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Invalid);
    })
    .await;
    with(odd_config("structured"), async |registry| {
        until(registry, |names| names.len() == 4).await;
        let data = call(registry, "1", "s_data", json!({})).await.unwrap();
        assert_eq!((data.data, data.text), (Some(json!({"v": 5})), None));
        let text = call(registry, "2", "s_text", json!({})).await.unwrap();
        assert_eq!((text.data, text.text.as_deref()), (None, Some("{}")));
        assert!(call(registry, "3", "s_nothing", json!({})).await.unwrap().text.is_none());
    })
    .await;
    with(odd_config("names"), async |registry| {
        until(registry, |names| names.len() == 4 && has(names, "s_a_b")).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_over_http_that_forgot_the_session_is_connected_to_again() {
    for status in ["400", "404", "500"] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = std::process::Command::new("python3")
            .args(odd(&["http", &port.to_string(), status]))
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{port}");
        let config = McpConfig {
            name: "s".into(),
            url: Some(format!("{address}/mcp")),
            ..McpConfig::default()
        };
        with(config, async |registry| {
            until(registry, |names| has(names, "s_good")).await;
            call(registry, "1", "s_good", json!({})).await.unwrap();
            plain_client()
                .unwrap()
                .build()
                .unwrap()
                .get(format!("{address}/forget"))
                .send()
                .await
                .unwrap();
            let called = timeout(Duration::from_secs(8), call(registry, "2", "s_good", json!({})))
                .await
                .expect("at once");
            // Of 404 the protocol itself says that the session is over, so that it is opened again unseen.
            match called {
                Ok(_) => assert_eq!(status, "404"),
                Err(error) => {
                    assert!(error.for_model.contains(&format!("HTTP {status}")), "{error:?}");
                }
            }
            let again = async {
                loop {
                    let id = next_id();
                    if call(registry, &id, "s_good", json!({})).await.is_ok() {
                        return;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            };
            timeout(Duration::from_secs(30), again).await.expect("a new session");
        })
        .await;
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

/// An id that no call had before.
fn next_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}
