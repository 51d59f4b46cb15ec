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
use crate::registry::Registry;
use crate::testing::{call, registry};

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
