//! `http_request`, for the hosts that the configuration lists.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confirm::Confirm;
use crate::fault::{ClassName, Faults};
use crate::http::{Bounds, Client, ClientError, Exchange, HostRule};
use crate::tool::{
    BoxFuture, Callable, Context, Definition, ErrorKind, Source, Spec, ToolError, ToolOutcome,
};

/// `[tools.http]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Hosts that may be asked: `name`, `*.name`, `name:port`.
    pub hosts: Vec<String>,
    /// Methods that may be used.
    pub methods: Vec<Verb>,
    /// Whether hosts that only a rule with `*.` allows must have public addresses.
    pub refuse_private: bool,
    /// An exchange that takes longer has failed.
    pub timeout_seconds: f64,
    /// A longer answer is refused.
    pub max_kib: usize,
    /// Who may call it.
    pub class: ClassName,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            methods: vec![Verb::Get],
            refuse_private: true,
            timeout_seconds: 10.0,
            max_kib: 64,
            class: ClassName::Guarded,
        }
    }
}

/// A method of HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "they say it themselves")]
pub enum Verb {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Patch => Self::PATCH,
            Verb::Delete => Self::DELETE,
        }
    }
}

impl HttpConfig {
    /// Notes what cannot be used.
    pub fn check(&self, faults: &mut Faults) {
        if self.hosts.is_empty() {
            faults.add("tools.http.hosts", "[]", "list the hosts that may be asked");
        }
        for host in self.hosts.iter().filter(|host| HostRule::new(host).is_none()) {
            let remedy = "use a host name, \"*.\" and a name, or either with a port";
            faults.add("tools.http.hosts", format!("{host:?}"), remedy);
        }
        let fits = !self.methods.is_empty();
        faults.require(fits, "tools.http.methods", "[]", "list the methods that may be used");
        let fits = (0.1..=300.0).contains(&self.timeout_seconds);
        let key = "tools.http.timeout_seconds";
        faults.require(fits, key, self.timeout_seconds, "use a value from 0.1 to 300");
        let fits = (1..=1024).contains(&self.max_kib);
        faults.require(fits, "tools.http.max_kib", self.max_kib, "use a value from 1 to 1024");
    }
}

/// The tool.
#[derive(Debug)]
pub struct HttpRequest {
    client: Client,
    methods: Vec<Verb>,
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Method; GET if left out
    #[serde(default)]
    method: Option<Verb>,
    /// Whole address, beginning with https://
    url: String,
    /// Body, JSON or text
    #[serde(default)]
    body: Option<String>,
}

impl HttpRequest {
    /// The tool with its definition.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &HttpConfig) -> Result<(Definition, Self), ClientError> {
        let time = Duration::try_from_secs_f64(config.timeout_seconds).unwrap_or_default();
        let bounds = Bounds {
            hosts: config.hosts.iter().filter_map(|host| HostRule::new(host)).collect(),
            refuse_private: config.refuse_private,
            time,
            answer: config.max_kib * 1024,
        };
        let hosts = config.hosts.join(", ");
        let spec = Spec {
            name: "http_request".into(),
            description: format!("Send an HTTP request to one of: {hosts}."),
            schema: crate::schema::of::<Arguments>(),
        };
        let definition = Definition {
            spec,
            full: None,
            class: config.class.into(),
            confirm: Confirm::Never,
            idempotent: false,
            // The client keeps the time, and says more about it.
            limit: Some(time + Duration::from_secs(1)),
            source: Source::Own,
        };
        Ok((definition, Self { client: Client::new(bounds)?, methods: config.methods.clone() }))
    }

    async fn request(&self, arguments: Arguments) -> Result<ToolOutcome, ToolError> {
        let verb = arguments.method.unwrap_or_default();
        if !self.methods.contains(&verb) {
            let text = format!("the method {} is not one of those allowed", Method::from(verb));
            return Err(ToolError::new(ErrorKind::Refused, text));
        }
        let is_json = |body: &String| serde_json::from_str::<serde_json::Value>(body).is_ok();
        let kind = |body: &String| if is_json(body) { "application/json" } else { "text/plain" };
        let body = arguments.body.map(|body| (kind(&body), body));
        let (method, url) = (verb.into(), arguments.url);
        self.client.exchange(Exchange { method, url, headers: HeaderMap::new(), body }).await
    }
}

impl Callable for HttpRequest {
    fn call<'a>(
        &'a self,
        arguments: serde_json::Value,
        _context: &'a Context,
    ) -> BoxFuture<'a, Result<ToolOutcome, ToolError>> {
        Box::pin(async {
            let fault =
                |fault: serde_json::Error| ToolError::new(ErrorKind::Invalid, fault.to_string());
            self.request(serde_json::from_value(arguments).map_err(fault)?).await
        })
    }
}
