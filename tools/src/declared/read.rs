//! A declared tool is read: its parts are checked, and what is wrong with any of them is noted.

use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value, json};

use super::config::{DeclaredConfig, HttpAction, ProcessAction, PublishAction, RequestAction};
use super::{Action, Declared, HttpPlan};
use crate::arguments::Arguments;
use crate::bus::is_topic;
use crate::fault::Faults;
use crate::http::{Bounds, HostRule, shown};
use crate::plain::{plain, short};
use crate::process::{self, Program};
use crate::requests::Correlate;
use crate::template::{JsonTemplate, Template};
use crate::tool::{Definition, Source, Spec};

/// How long a call may take where nothing is said of it.
const LIMIT: Duration = Duration::from_secs(10);

/// A payload or body.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Text(Template),
    Json(JsonTemplate),
}

impl Body {
    /// With the arguments put in.
    pub(super) fn fill(&self, arguments: &Map<String, Value>) -> String {
        match self {
            Self::Text(template) => template.plain(arguments),
            Self::Json(template) => template.fill(arguments).unwrap_or_default().to_string(),
        }
    }

    fn arguments(&self) -> Vec<&str> {
        match self {
            Self::Text(template) => template.arguments().collect(),
            Self::Json(template) => template.arguments(),
        }
    }
}

/// Reads a table; `None`, with its faults noted, if something is wrong with it.
pub(super) fn read(config: &DeclaredConfig, key: &str, faults: &mut Faults) -> Option<Declared> {
    let before = faults.0.len();
    let fits = crate::registry::is_name(&config.name);
    let remedy = "use 1 to 64 letters, digits, _ and -";
    faults.require(fits, format!("{key}.name"), format!("{:?}", config.name), remedy);
    let fits = !config.description.trim().is_empty();
    faults.require(fits, format!("{key}.description"), "\"\"", "say in a sentence what it does");
    let seconds = config.timeout_seconds.unwrap_or(LIMIT.as_secs_f64());
    let fits = (0.1..=600.0).contains(&seconds);
    faults.require(fits, format!("{key}.timeout_seconds"), seconds, "use a value from 0.1 to 600");
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(LIMIT);
    let written = schema(config);
    let schema = match plain(&written) {
        Ok(schema) => schema,
        Err(fault) => {
            let table = if config.parameters.is_some() { "parameters" } else { "arguments" };
            faults.add(format!("{key}.{table}"), "", fault);
            json!({})
        }
    };
    if config.parameters.is_some() && config.arguments.is_some() {
        faults.add(format!("{key}.arguments"), "", "leave it out, or parameters");
    }
    for (name, value, remedy) in config.confirm.misfits(&schema) {
        faults.add(format!("{key}.confirm.{name}"), value, remedy);
    }
    if let Err(fault) = Arguments::of(&written) {
        faults.add(format!("{key}.parameters"), "", fault);
    }
    let action = Reader { schema: &schema, key, faults, limit }.action(config);
    if faults.0.len() > before {
        return None;
    }
    let definition = Definition {
        spec: Spec {
            name: config.name.clone(),
            description: short(&config.description, 300),
            schema,
        },
        full: Some(written),
        class: config.class.into(),
        confirm: config.confirm.clone(),
        idempotent: config.idempotent,
        limit: Some(limit + Duration::from_millis(500)),
        source: Source::Own,
    };
    Some(Declared { definition, action: action? })
}

/// The schema of the arguments as it was written; the short form written out.
fn schema(config: &DeclaredConfig) -> Value {
    if let Some(parameters) = &config.parameters {
        return parameters.clone();
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, short) in config.arguments.iter().flatten() {
        let mut schema = match short {
            Value::Array(values) => json!({ "enum": values }),
            Value::Object(schema) => schema.clone().into(),
            kind => json!({ "type": kind }),
        };
        let optional = schema.as_object_mut().and_then(|schema| schema.remove("optional"));
        if optional != Some(true.into()) {
            required.push(name.clone());
        }
        properties.insert(name.clone(), schema);
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

struct Reader<'a> {
    schema: &'a Value,
    key: &'a str,
    faults: &'a mut Faults,
    limit: Duration,
}

impl Reader<'_> {
    fn action(&mut self, config: &DeclaredConfig) -> Option<Action> {
        let read = [
            config.publish.as_ref().map(|action| self.publish(action)),
            config.request.as_ref().map(|action| self.request(action)),
            config.process.as_ref().map(|action| Some(self.process(action))),
            config.http.as_ref().map(|action| self.http(action)),
        ];
        let mut actions = read.into_iter().flatten();
        let (first, second) = (actions.next(), actions.next());
        if first.is_none() || second.is_some() {
            self.faults.add(
                self.key,
                "",
                "give one of the tables publish, request, process and http",
            );
        }
        first.flatten()
    }

    fn publish(&mut self, action: &PublishAction) -> Option<Action> {
        let topic = self.topic("publish.topic", &action.topic);
        let payload = self.body("publish.payload", &action.payload)?;
        Some(Action::Publish { topic, payload, retain: action.retain })
    }

    fn request(&mut self, action: &RequestAction) -> Option<Action> {
        let topic = self.topic("request.topic", &action.topic);
        let payload = self.body("request.payload", &action.payload)?;
        let fits = is_topic(&action.response)
            && Template::new(&action.response).arguments().next().is_none();
        let remedy = "name the topic on which answers come, without wildcards and {arguments}";
        let key = format!("{}.request.response", self.key);
        self.faults.require(fits, key, format!("{:?}", action.response), remedy);
        let is_object = matches!(payload, Body::Json(JsonTemplate::Object(_)));
        let fits = is_object || action.correlate != Correlate::Transaction;
        let remedy = "use a table, to which the transaction is added, or another way to correlate";
        self.faults.require(fits, format!("{}.request.payload", self.key), "", remedy);
        let (response, correlate) = (action.response.clone(), action.correlate);
        Some(Action::Request { topic, payload, response, correlate })
    }

    fn process(&mut self, action: &ProcessAction) -> Action {
        let key = format!("{}.process.argv", self.key);
        let output = action.max_kib.unwrap_or(16);
        let fits = (1..=256).contains(&output);
        let bound = format!("{}.process.max_kib", self.key);
        self.faults.require(fits, bound, output, "use a value from 1 to 256");
        let bounds = process::Bounds {
            time: self.limit,
            output: output.min(256) * 1024,
            folder: action.folder.clone().unwrap_or_else(|| "/".into()),
            environment: action.environment.clone(),
        };
        let program = Program::new(&action.argv, bounds, &key, self.faults);
        self.known(&key, program.arguments());
        Action::Process(program)
    }

    fn http(&mut self, action: &HttpAction) -> Option<Action> {
        let url = Template::new(&action.url);
        let key = format!("{}.http.url", self.key);
        self.known(&key, url.arguments());
        let sample = url.fill(&Map::new(), |_, text| Ok(text)).unwrap_or_default();
        let parsed =
            Url::parse(&sample).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let host = parsed.as_ref().and_then(|url| {
            let host = url.host_str()?;
            Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
        });
        let authority = url.head().split_once("://").map_or("", |(_, rest)| rest);
        let is_fixed = url.arguments().next().is_none() || authority.contains('/');
        let rule = host.as_deref().and_then(HostRule::new).filter(|_| is_fixed);
        let Some(rule) = rule else {
            let remedy =
                "use a whole http or https address, with {arguments} only after the host and a /";
            self.faults.add(key, format!("{:?}", shown(&action.url)), remedy);
            return None;
        };
        let body = action.body.as_ref().and_then(|body| self.body("http.body", body));
        self.headers(action);
        let answer = action.max_kib.unwrap_or(64);
        let fits = (1..=1024).contains(&answer);
        let bound = format!("{}.http.max_kib", self.key);
        self.faults.require(fits, bound, answer, "use a value from 1 to 1024");
        let answer = answer.min(1024) * 1024;
        let bounds = Bounds { hosts: vec![rule], refuse_private: false, time: self.limit, answer };
        let (method, headers) = (action.method.into(), action.headers.clone());
        Some(Action::Http(HttpPlan { method, url, headers, body, bounds }))
    }

    fn headers(&mut self, action: &HttpAction) {
        for (name, header) in &action.headers {
            header.check(name, &format!("{}.http.headers.{name}", self.key), self.faults);
        }
    }

    fn topic(&mut self, place: &str, text: &str) -> Template {
        let topic = Template::new(text);
        let key = format!("{}.{place}", self.key);
        self.known(&key, topic.arguments());
        let is_optional = |name: &&str| self.knows(name) && !self.requires(name);
        let optional: Vec<&str> = topic.arguments().filter(is_optional).collect();
        for name in optional {
            let remedy = "a topic needs it: it must not be optional";
            self.faults.add(&key, format!("{{{name}}}"), remedy);
        }
        let all = topic.arguments().map(|name| (name.to_owned(), "x".into())).collect();
        let fits = is_topic(&topic.plain(&all));
        let remedy = "name a topic, without wildcards and not below $";
        self.faults.require(fits, key, format!("{text:?}"), remedy);
        topic
    }

    fn body(&mut self, place: &str, value: &Value) -> Option<Body> {
        let key = format!("{}.{place}", self.key);
        let body = match value {
            Value::Null => Body::Text(Template::new("")),
            Value::String(text)
                if text.trim_start().starts_with(['{', '[']) && !is_placeholder(text) =>
            {
                match serde_json::from_str(text) {
                    Ok(value) => Body::Json(JsonTemplate::new(&value)),
                    Err(fault) => {
                        let remedy = format!(
                            "this is no JSON: {fault}. Write {{arguments}} in quotes: alone they keep their type"
                        );
                        self.faults.add(key, text, remedy);
                        return None;
                    }
                }
            }
            Value::String(text) => Body::Text(Template::new(text)),
            other => Body::Json(JsonTemplate::new(other)),
        };
        self.known(&key, body.arguments().into_iter());
        Some(body)
    }

    fn known<'n>(&mut self, key: &str, names: impl Iterator<Item = &'n str>) {
        let known = self.schema["properties"].as_object();
        let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        for name in names.filter(|name| !known.contains(name)) {
            let remedy = if known.is_empty() {
                "no such argument: the tool has none".to_owned()
            } else {
                format!("no such argument; known are {}", known.join(", "))
            };
            self.faults.add(key, format!("{{{name}}}"), remedy);
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.schema["properties"].get(name).is_some()
    }

    fn requires(&self, name: &str) -> bool {
        let required = self.schema["required"].as_array();
        required.is_some_and(|required| required.iter().any(|known| known == name))
    }
}

/// Whether a text begins with a placeholder, and so not as JSON.
fn is_placeholder(text: &str) -> bool {
    let template = Template::new(text.trim_start());
    template.head().is_empty() && template.arguments().next().is_some()
}
