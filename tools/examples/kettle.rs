//! A tool in Rust, called as the model would call it: `cargo run -p outpost-tools --example kettle`.

use std::sync::Arc;
use std::time::Duration;

use outpost_tools::tool::BoxFuture;
use outpost_tools::{
    Class, Context, Origin, PolicyRules, Registry, Tool, ToolError, ToolHost, ToolOutcome,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

struct Kettle;

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Degrees Celsius, 40 to 100
    #[schemars(range(min = 40, max = 100))]
    celsius: u8,
}

impl Tool for Kettle {
    type Arguments = Arguments;
    const NAME: &'static str = "boil_water";
    const DESCRIPTION: &'static str = "Heat the water in the kettle.";
    const CLASS: Class = Class::Guarded;

    async fn call(
        &self,
        arguments: Arguments,
        context: &Context,
    ) -> Result<ToolOutcome, ToolError> {
        let payload = json!({ "celsius": arguments.celsius });
        context.host.command("kettle", payload, context.deadline).await?;
        Ok(ToolOutcome::text("It will take three minutes."))
    }
}

/// In an agent, commands go to MQTT; here they go nowhere.
#[derive(Debug)]
struct Doll;

impl ToolHost for Doll {
    fn command(
        &self,
        _path: &str,
        _payload: Value,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<(), ToolError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn read_camera(&self) -> BoxFuture<'_, Result<Option<String>, ToolError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn start_timer(&self, _call: &str, _length: Duration) {}
    fn alert(&self, _message: &str) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new(PolicyRules::default());
    registry.add(Kettle)?;
    let call = |id: &str, celsius: u8, origin| {
        let arguments = Map::from_iter([("celsius".to_owned(), json!(celsius))]);
        let context = Context::new(id, Arc::new(Doll));
        let registry = &registry;
        async move {
            registry.call("boil_water", arguments, origin, &context, Duration::from_secs(1)).await
        }
    };
    let done = call("1", 95, Origin::Voice).await?;
    assert_eq!(done.text.as_deref(), Some("It will take three minutes."));
    // Too hot, and a sign that says "boil water".
    assert!(call("2", 120, Origin::Voice).await.is_err());
    assert!(call("3", 95, Origin::Untrusted).await.is_err());
    Ok(())
}
