//! Serves tools to other agents over the standard streams.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorData, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool as McpTool,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, serve_server};
use serde_json::{Map, Value};

use super::content::result;
use super::ourselves;
use crate::tool::{BoxFuture, Spec, ToolError, ToolOutcome};

/// What is served.
pub trait Backend: Send + Sync + 'static {
    /// The tools that there are now.
    fn specs(&self) -> Vec<Spec>;

    /// Carries out a call.
    fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
    ) -> BoxFuture<'_, Result<ToolOutcome, ToolError>>;

    /// Waits until the tools are others.
    fn changed(&self) -> BoxFuture<'_, ()>;
}

/// The client cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("MCP: {0}")]
pub struct ServeError(String);

/// Serves until the client goes.
///
/// # Errors
/// When what comes in is no MCP.
pub async fn serve(backend: Arc<impl Backend>, instructions: &str) -> Result<(), ServeError> {
    let server = Server { backend: Arc::clone(&backend), instructions: instructions.to_owned() };
    let fault = |fault: &dyn std::fmt::Display| ServeError(fault.to_string());
    let service = serve_server(server, (tokio::io::stdin(), tokio::io::stdout()))
        .await
        .map_err(|error| fault(&error))?;
    let peer = service.peer().clone();
    let tell = async {
        loop {
            backend.changed().await;
            if peer.notify_tool_list_changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        ended = service.waiting() => ended.map(drop).map_err(|error| fault(&error)),
        () = tell => Ok(()),
    }
}

struct Server<B> {
    backend: Arc<B>,
    instructions: String,
}

impl<B: Backend> ServerHandler for Server<B> {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        let mut info = ServerConfig::new(tools);
        info.server_info = ourselves();
        info.instructions = Some(self.instructions.clone());
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |spec: Spec| {
            let schema = spec.schema.as_object().cloned().unwrap_or_default();
            McpTool::new(spec.name, spec.description, Arc::new(schema))
        };
        Ok(ListToolsResult::with_all_items(self.backend.specs().into_iter().map(tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let done = self.backend.call(&request.name, request.arguments.unwrap_or_default()).await;
        Ok(CallToolResponse::Complete(result(done)))
    }
}
