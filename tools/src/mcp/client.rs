//! Keeps a connection to an MCP server up, and offers its tools for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, PaginatedRequestParams,
    Tool as McpTool,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, Peer, RoleClient, ServiceError, serve_client};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::content::outcome;
use super::transport::Answering;
use super::{McpConfig, ourselves};
use crate::confirm::Confirm;
use crate::http::plain_client;
use crate::plain::{plain, short};
use crate::process::Group;
use crate::registry::{MAX_NAME, Registry};
use crate::tool::{
    BoxFuture, Callable, Context, Definition, ErrorKind, Source, Spec, ToolError, ToolOutcome,
};

/// Pauses between attempts to connect.
const BACK_OFF: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_mins(2);
/// A server that lasted for this long is tried again soon.
const LASTED: Duration = Duration::from_mins(1);
/// From the first word of a change to the reading of the list, in which others may come.
const REST: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(30);
/// How long a server has for its start, and for its list of tools.
const START: Duration = Duration::from_mins(1);
/// Pages of a list of tools that are read at most, and tools on them.
const MAX_PAGES: usize = 100;
const MAX_LISTED: usize = 2000;
/// Characters of a name that was shortened which tell it from others.
const HASH: usize = 8;
/// A longer description is cut, characters.
const MAX_DESCRIPTION: usize = 300;
/// A longer message of a server over HTTP is refused, bytes.
const MAX_MESSAGE: usize = 8 << 20;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the connection to a server for ever. `changed` is told whenever the tools of it come or go; when this is dropped, so is
/// the server.
pub async fn attend(config: McpConfig, registry: Arc<Registry>, changed: Arc<Notify>) {
    let mut pause = *BACK_OFF.start();
    loop {
        let started = Instant::now();
        let mut offered = Offered { registry: &registry, names: Vec::new(), changed: &changed };
        let Err(fault) = connection(&config, &mut offered).await;
        drop(offered);
        if started.elapsed() > LASTED {
            pause = *BACK_OFF.start();
        }
        warn!(server = config.name, %fault, retry_in = ?pause, "no MCP server");
        sleep(pause).await;
        pause = (pause * 2).min(*BACK_OFF.end());
    }
}

/// The tools of one connection, which go with it.
struct Offered<'a> {
    registry: &'a Registry,
    names: Vec<String>,
    changed: &'a Notify,
}

impl Offered<'_> {
    /// Offers these tools in place of those before. What is on both lists is known all the time.
    fn set<T: Callable + 'static>(&mut self, tools: impl Iterator<Item = (Definition, T)>) {
        let mut names = Vec::new();
        for (definition, tool) in tools {
            let name = definition.spec.name.clone();
            match self.registry.put_defined(definition, tool, self.names.contains(&name)) {
                Ok(()) => names.push(name),
                Err(fault) => warn!(%fault, "left out a tool"),
            }
        }
        for name in std::mem::replace(&mut self.names, names) {
            if !self.names.contains(&name) {
                self.registry.remove(&name);
            }
        }
        self.changed.notify_one();
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.set(std::iter::empty::<(Definition, Ready)>());
    }
}

/// One connection from beginning to end, and why it ended.
async fn connection(
    config: &McpConfig,
    offered: &mut Offered<'_>,
) -> Result<std::convert::Infallible, Fault> {
    let handler = Handler::default();
    let changed = Arc::clone(&handler.changed);
    let late = "the server did not start in time";
    let (service, _program) = timeout(START, open(config, handler)).await.map_err(|_| late)??;
    serve(config, offered, (&service, &changed)).await
}

/// Offers what a server has, whenever that changes, until the connection ends.
async fn serve(
    config: &McpConfig,
    offered: &mut Offered<'_>,
    (service, changed): (&RunningService<RoleClient, Handler>, &Notify),
) -> Result<std::convert::Infallible, Fault> {
    let broken = Arc::<Notify>::default();
    let mut rest = *REST.start();
    loop {
        let listed = Instant::now();
        let tools = timeout(START, list(config, service.peer()))
            .await
            .map_err(|_| "no list of tools came")??;
        offer(config, offered, (service.peer(), &broken), tools);
        info!(
            server = config.name,
            tools = offered.names.len(),
            "an MCP server's tools are offered"
        );
        // A list that changes again and again is read less and less often.
        let settled = async {
            changed.notified().await;
            sleep(rest).await;
        };
        tokio::select! {
            () = settled => {
                let is_flood = listed.elapsed() < 3 * rest;
                rest = if is_flood { (rest * 2).min(*REST.end()) } else { *REST.start() };
            }
            () = closed(service) => return Err("the server ended the connection".into()),
            () = broken.notified() => return Err("the server refuses what it is asked".into()),
        }
    }
}

async fn closed(service: &RunningService<RoleClient, Handler>) {
    while !service.is_closed() && !service.is_transport_closed() {
        sleep(Duration::from_millis(250)).await;
    }
}

async fn open(
    config: &McpConfig,
    handler: Handler,
) -> Result<(RunningService<RoleClient, Handler>, Option<Program>), Fault> {
    if let Some(url) = &config.url {
        let mut headers = HashMap::new();
        for (name, header) in &config.headers {
            headers.extend([header.ready(name)?]);
        }
        let settings = StreamableHttpClientTransportConfig::with_uri(url.as_str())
            .custom_headers(headers)
            .max_json_response_size(MAX_MESSAGE)
            .max_sse_event_size(MAX_MESSAGE);
        // No redirects: they could carry the headers elsewhere.
        let client = plain_client()?.redirect(reqwest::redirect::Policy::none()).build()?;
        let transport = StreamableHttpClientTransport::with_client(Answering(client), settings);
        return Ok((serve_client(handler, transport).await?, None));
    }
    let program = config.command.as_deref().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(&config.args).env_clear().process_group(0).kill_on_drop(true);
    for name in ["PATH", "HOME"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.env("LANG", "C.UTF-8").envs(&config.environment);
    if let Some(folder) = &config.folder {
        command.current_dir(folder);
    }
    // What it says beside the protocol goes where the agent's own log goes.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().map_err(|fault| format!("{program}: {fault}"))?;
    let (Some(out), Some(into)) = (child.stdout.take(), child.stdin.take()) else {
        return Err(format!("{program}: it has no standard streams").into());
    };
    let program = Program { _group: Group::of(child.id()), _child: child };
    Ok((serve_client(handler, (out, into)).await?, Some(program)))
}

/// The program of a server, which ends with the connection, and with it what it started.
struct Program {
    _group: Group,
    _child: Child,
}

/// All the tools of a server, page by page.
async fn list(config: &McpConfig, peer: &Peer<RoleClient>) -> Result<Vec<McpTool>, ServiceError> {
    let (mut tools, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..MAX_PAGES {
        let page = PaginatedRequestParams::default().with_cursor(cursor.clone());
        let page = peer.list_tools(Some(page)).await?;
        tools.extend(page.tools);
        // Some servers end with an empty cursor in place of none.
        let next = page.next_cursor.filter(|next| !next.is_empty());
        if next.is_none() {
            return Ok(tools);
        }
        if next == cursor {
            warn!(
                server = config.name,
                "the server's list of tools does not go on: one page comes again and again"
            );
            return Ok(tools);
        }
        if tools.len() > MAX_LISTED {
            break;
        }
        cursor = next;
    }
    warn!(
        server = config.name,
        tools = tools.len(),
        "the server's list of tools has no end: what follows is left out"
    );
    Ok(tools)
}

/// Offers what a server has now, in place of what it had.
fn offer(
    config: &McpConfig,
    offered: &mut Offered<'_>,
    (peer, broken): (&Peer<RoleClient>, &Arc<Notify>),
    tools: Vec<McpTool>,
) {
    let mut seen = BTreeSet::new();
    let tools: Vec<McpTool> =
        tools.into_iter().filter(|tool| seen.insert(tool.name.clone())).collect();
    let names = names(config, &tools);
    let is_wanted = |tool: &McpTool| {
        config.tools.as_ref().is_none_or(|names| names.iter().any(|name| *name == tool.name))
    };
    let mut wanted = tools.into_iter().zip(names).filter(|(tool, _)| is_wanted(tool));
    let ready = |(tool, name): (McpTool, String)| match definition(config, &tool, name) {
        Ok(definition) => {
            let (peer, broken) = (peer.clone(), Arc::clone(broken));
            Some((definition, Ready { peer, name: tool.name.into_owned(), broken }))
        }
        Err(fault) => {
            warn!(server = config.name, tool = %tool.name, fault, "left out a tool");
            None
        }
    };
    offered.set(wanted.by_ref().take(config.max_tools).filter_map(ready));
    let missing = wanted.count();
    if missing > 0 {
        let max = config.max_tools;
        warn!(
            server = config.name,
            missing, max, "left out tools: raise mcp.max_tools, or choose with mcp.tools"
        );
    }
}

/// What the tools are called here: a name that the model cannot write, or that is another's then, gets a hash of what it was.
fn names(config: &McpConfig, tools: &[McpTool]) -> Vec<String> {
    let is_usable = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    let clean = |name: &str| {
        let name = name.replace(|letter: char| !is_usable(letter), "_");
        format!("{}{name}", config.prefix())
    };
    let mut counts = BTreeMap::<String, usize>::new();
    for tool in tools {
        *counts.entry(clean(&tool.name)).or_default() += 1;
    }
    let name = |tool: &McpTool| {
        let name = clean(&tool.name);
        let is_own = name.ends_with(&*tool.name);
        if name.len() <= MAX_NAME && (is_own || counts.get(&name) == Some(&1)) {
            return name;
        }
        let hash = format!("{:x}", Sha256::digest(tool.name.as_bytes()));
        let room = MAX_NAME - HASH - 1;
        format!("{}_{}", &name[..room.min(name.len())], &hash[..HASH])
    };
    tools.iter().map(name).collect()
}

fn definition(config: &McpConfig, tool: &McpTool, name: String) -> Result<Definition, String> {
    let full = Value::Object((*tool.input_schema).clone());
    let schema = plain(&full)?;
    let said = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or(&tool.name);
    Ok(Definition {
        spec: Spec { name, description: short(said, MAX_DESCRIPTION), schema },
        full: Some(full),
        class: config.class.into(),
        confirm: Confirm::Never,
        // What a server says of itself in this is a hint only.
        idempotent: false,
        limit: Some(config.limit()),
        source: if config.trusted { Source::Trusted } else { Source::Foreign },
    })
}

/// Hears what the server says by itself.
#[derive(Debug, Default)]
struct Handler {
    changed: Arc<Notify>,
}

impl ClientHandler for Handler {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), ourselves())
    }
}

/// A tool of a server.
struct Ready {
    peer: Peer<RoleClient>,
    name: String,
    /// Told where the server no longer takes requests of this connection.
    broken: Arc<Notify>,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Callable for Ready {
    fn call<'a>(
        &'a self,
        arguments: Value,
        _context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        Box::pin(async move {
            let mut call = CallToolRequestParams::new(self.name.clone());
            call.arguments = arguments.as_object().cloned();
            match self.peer.call_tool(call).await {
                Ok(result) => outcome(result),
                Err(fault) => Err(self.failed(&fault)),
            }
        })
    }
}

impl Ready {
    /// What to say of a call that has no result. Where the connection is to blame, another is opened.
    fn failed(&self, fault: &ServiceError) -> ToolError {
        let refused = matches!(
            fault,
            ServiceError::TransportSend(_)
                | ServiceError::TransportClosed
                | ServiceError::UnexpectedResponse
        );
        if refused {
            self.broken.notify_one();
        }
        let mut chain = fault.to_string();
        let mut cause = std::error::Error::source(fault);
        while let Some(next) = cause {
            if !chain.contains(&next.to_string()) {
                chain = format!("{chain}: {next}");
            }
            cause = next.source();
        }
        let status = chain.find("HTTP ").and_then(|at| chain.get(at..at + 8));
        let status = status.filter(|status| status.ends_with(|last: char| last.is_ascii_digit()));
        let status = status.map_or_else(String::new, |status| format!(" ({status})"));
        ToolError {
            kind: ErrorKind::Failed,
            for_model: format!("the tool's server did not carry it out{status}"),
            for_operator: short(&chain, MAX_DESCRIPTION),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rmcp::model::{ErrorData, ListToolsResult, ServerCapabilities, ServerConfig};
    use rmcp::service::RequestContext;
    use rmcp::{RoleServer, ServerHandler, serve_server};

    use super::*;

    /// A server whose list of tools is another whenever it was read.
    struct Restless(Arc<AtomicUsize>);

    impl ServerHandler for Restless {
        fn get_info(&self) -> ServerConfig {
            let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
            ServerConfig::new(tools.build())
        }

        async fn list_tools(
            &self,
            _: Option<PaginatedRequestParams>,
            context: RequestContext<RoleServer>,
        ) -> Result<ListToolsResult, ErrorData> {
            self.0.fetch_add(1, Ordering::SeqCst);
            for _ in 0..100 {
                context.peer.notify_tool_list_changed().await.expect("the client is there");
            }
            Ok(ListToolsResult::with_all_items(vec![McpTool::new("a", "d", Arc::default())]))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_changes_all_the_time_is_read_now_and_then() {
        let reads = Arc::<AtomicUsize>::default();
        let (here, there) = tokio::io::duplex(1 << 16);
        let handler = Handler::default();
        let list_changed = Arc::clone(&handler.changed);
        let (client, server) = tokio::join!(
            serve_client(handler, tokio::io::split(here)),
            serve_server(Restless(reads.clone()), tokio::io::split(there)),
        );
        let (client, _server) = (client.unwrap(), server.unwrap());
        let config = McpConfig { name: "s".into(), ..McpConfig::default() };
        let (registry, changed) = (crate::testing::registry(), Notify::new());
        let mut offered = Offered { registry: &registry, names: Vec::new(), changed: &changed };
        let serving = serve(&config, &mut offered, (&client, &list_changed));
        // After 0, ¼, ¾, 1¾, 3¾, 7¾, 15¾, 31¾ and 61¾ seconds.
        let ended = timeout(Duration::from_secs(70), serving).await;
        assert!(ended.is_err(), "the connection lasts");
        assert_eq!(reads.load(Ordering::SeqCst), 9);
        assert!(registry.knows("s_a"));
    }

    /// A tool of a server that is not there.
    struct Absent;

    impl Callable for Absent {
        fn call<'a>(
            &'a self,
            _arguments: Value,
            _context: &'a Context,
        ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
            Box::pin(std::future::ready(Ok(ToolOutcome::done())))
        }
    }

    #[test]
    fn a_list_that_is_read_again_leaves_no_moment_without_the_tools_that_stay() {
        let (registry, changed) = (crate::testing::registry(), Notify::new());
        let mut offered = Offered { registry: &registry, names: Vec::new(), changed: &changed };
        let config = McpConfig { name: "s".into(), ..McpConfig::default() };
        let tools = |names: &[&'static str]| -> Vec<(Definition, Absent)> {
            let tool = |name: &&'static str| {
                let tool = McpTool::new(*name, "d", Arc::default());
                (definition(&config, &tool, (*name).to_owned()).unwrap(), Absent)
            };
            names.iter().map(tool).collect()
        };
        offered.set(tools(&["a", "b", "c"]).into_iter());
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        std::thread::scope(|scope| {
            let registry = &registry;
            scope.spawn(move || {
                while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    assert!(registry.knows("a") && registry.knows("c"));
                }
            });
            for _ in 0..1000 {
                offered.set(tools(&["a", "c", "d"]).into_iter());
                offered.set(tools(&["a", "b", "c"]).into_iter());
            }
            drop(stop);
        });
        let names =
            || -> Vec<String> { registry.specs().into_iter().map(|spec| spec.name).collect() };
        assert_eq!(names(), ["a", "c", "b"]);
        drop(offered);
        assert!(names().is_empty());
    }

    #[test]
    fn names_that_cannot_be_written_or_are_others_get_a_hash() {
        let config = McpConfig { name: "s".into(), ..McpConfig::default() };
        let long = |end: &str| format!("{}{end}", "n".repeat(69));
        let given = [
            "good".to_owned(),
            long("a"),
            long("b"),
            "a.b".into(),
            "a_b".into(),
            "a b".into(),
            "A_B".into(),
            "c/d".into(),
        ];
        let tools: Vec<McpTool> =
            given.iter().map(|name| McpTool::new(name.clone(), "d", Arc::default())).collect();
        let names = names(&config, &tools);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), given.len(), "{names:?}");
        assert!(names.iter().all(|name| crate::registry::is_name(name)), "{names:?}");
        assert_eq!(
            [&names[0], &names[4], &names[6], &names[7]],
            ["s_good", "s_a_b", "s_A_B", "s_c_d"]
        );
        assert!(names[1].len() == MAX_NAME && names[3].starts_with("s_a_b_"), "{names:?}");
    }
}
