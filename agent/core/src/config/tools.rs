//! `[tools]`, `[[tool]]` and `[[mcp]]`: tools beyond the bundled ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use outpost_tools::builtin::http_request::HttpConfig;
use outpost_tools::builtin::memory::MemoryConfig;
use outpost_tools::builtin::publish::PublishConfig;
use outpost_tools::builtin::run_process::ProcessConfig;
use outpost_tools::builtin::schedule::ScheduleConfig;
use outpost_tools::declared::{Declared, DeclaredConfig};
use outpost_tools::mcp::McpConfig;
use outpost_tools::remote::RemoteConfig;
use outpost_tools::requests::Correlate;
use outpost_tools::secret::Header;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Config, Faults, Version};
use crate::toolset::{BOARD_TOOLS, bundled_tools};

/// `[tools]`: a table switches its tools on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolsConfig {
    /// `http_request`
    pub http: Option<HttpConfig>,
    /// `run_process`
    pub process: Option<ProcessConfig>,
    /// `publish`
    pub publish: Option<PublishConfig>,
    /// `remember` and `recall`
    pub memory: Option<MemoryConfig>,
    /// `schedule`, `list_schedule` and `cancel_schedule`
    pub schedule: Option<ScheduleConfig>,
    /// Tools that are offered over MQTT.
    pub mqtt: Option<RemoteConfig>,
}

impl ToolsConfig {
    /// Names of the enabled built-in tools.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (is_on, tools) in [
            (self.http.is_some(), &["http_request"][..]),
            (self.process.is_some(), &["run_process"]),
            (self.publish.is_some(), &["publish"]),
            (self.memory.is_some(), &["remember", "recall"]),
            (self.schedule.is_some(), &["schedule", "list_schedule", "cancel_schedule"]),
        ] {
            names.extend(tools.iter().filter(|_| is_on));
        }
        names
    }
}

/// Names of all configured tools; `None` if others can appear at runtime.
pub(crate) fn names(config: &Config) -> Option<Vec<String>> {
    if config.tools.mqtt.is_some() || !config.mcp.is_empty() {
        return None;
    }
    Some(written(config))
}

/// Names of the tools that the file itself defines or switches on.
pub(crate) fn written(config: &Config) -> Vec<String> {
    let built_in = config.tools.names().into_iter().map(str::to_owned);
    built_in.chain(config.tool.iter().map(|tool| tool.name.clone())).collect()
}

/// Validates all three.
pub(crate) fn check(config: &Config, found: &mut Faults) {
    let tools = &config.tools;
    tools.http.iter().for_each(|table| table.check(found));
    tools.process.iter().for_each(|table| table.check(found));
    tools.publish.iter().for_each(|table| table.check(found));
    tools.memory.iter().for_each(|table| table.check(found));
    tools.schedule.iter().for_each(|table| table.check(found));
    tools.mqtt.iter().for_each(|table| table.check(found));
    let mut schemas: BTreeMap<String, Value> =
        bundled_tools().into_iter().map(|tool| (tool.name, tool.schema)).collect();
    let bundled: Vec<String> = schemas.keys().cloned().collect();
    let mut taken: BTreeSet<&str> = bundled.iter().map(String::as_str).collect();
    taken.extend(BOARD_TOOLS);
    taken.extend(["raise_alert"]);
    taken.extend(tools.names());
    for (index, tool) in config.tool.iter().enumerate() {
        let key = format!("tool[{index}]");
        if let Some(declared) = Declared::read(tool, &key, found) {
            schemas.insert(tool.name.clone(), declared.schema().clone());
        }
        if !taken.insert(&tool.name) {
            found.add(
                format!("{key}.name"),
                format!("{:?}", tool.name),
                "there is a tool of that name: use another",
            );
        }
        let by_properties = |request: &outpost_tools::declared::config::RequestAction| {
            request.correlate == Correlate::Properties
        };
        if tool.request.as_ref().is_some_and(by_properties) && config.mqtt.version != Version::V5 {
            let remedy = "set mqtt.version to \"5\", or use another way";
            found.add(format!("{key}.request.correlate"), "\"properties\"", remedy);
        }
    }
    for (name, rule) in &config.policy.tools {
        let (Some(confirm), Some(schema)) = (&rule.confirm, schemas.get(name)) else { continue };
        for (argument, value, remedy) in confirm.misfits(schema) {
            found.add(format!("policy.tools.{name}.confirm.{argument}"), value, remedy);
        }
    }
    let mut servers = BTreeSet::new();
    for (index, server) in config.mcp.iter().enumerate() {
        let key = format!("mcp[{index}]");
        server.check(&key, found);
        if !servers.insert(&server.name) {
            found.add(
                format!("{key}.name"),
                format!("{:?}", server.name),
                "there is a server of that name: use another",
            );
        }
    }
    check_times(config, found);
}

/// A tool's timeout may not exceed that of a round of tools.
fn check_times(config: &Config, found: &mut Faults) {
    let tools = &config.tools;
    let built_in = [
        ("tools.http.timeout_seconds", tools.http.as_ref().map(|table| table.timeout_seconds)),
        (
            "tools.process.timeout_seconds",
            tools.process.as_ref().map(|table| table.timeout_seconds),
        ),
        (
            "tools.mqtt.max_timeout_seconds",
            tools.mqtt.as_ref().map(|table| table.max_timeout_seconds),
        ),
    ];
    let built_in =
        built_in.into_iter().filter_map(|(key, seconds)| Some((key.to_owned(), seconds?)));
    let declared = config.tool.iter().enumerate().filter_map(|(index, tool)| {
        Some((format!("tool[{index}].timeout_seconds"), tool.timeout_seconds?))
    });
    let servers = config.mcp.iter().enumerate();
    let servers =
        servers.map(|(index, mcp)| (format!("mcp[{index}].timeout_seconds"), mcp.timeout_seconds));
    let agent = ("agent.tool_timeout_seconds".to_owned(), config.agent.tool_timeout.as_secs_f64());
    let acting = config.agent.limits.acting.as_secs_f64();
    let all = built_in.chain(declared).chain(servers).chain([agent]);
    for (key, seconds) in all.filter(|(_, seconds)| *seconds > acting) {
        let remedy = format!(
            "use agent.limits.acting_seconds, which is {acting}, or less, or raise that: a call that takes longer is dropped with its turn"
        );
        found.add(key, seconds, remedy);
    }
}

/// Configured files, so that relative paths can be resolved.
pub(crate) fn paths<'a>(
    tools: &'a mut ToolsConfig,
    declared: &'a mut [DeclaredConfig],
    servers: &'a mut [McpConfig],
) -> Vec<&'a mut Option<PathBuf>> {
    let headers = declared.iter_mut().filter_map(|tool| tool.http.as_mut());
    let headers = headers.flat_map(|http| http.headers.values_mut());
    let headers = headers.chain(servers.iter_mut().flat_map(|server| server.headers.values_mut()));
    let secrets = headers.filter_map(|header| match header {
        Header::Secret(secret) => Some(&mut secret.file),
        Header::Text(_) => None,
    });
    let memory = tools.memory.as_mut().map(|table| &mut table.path);
    let schedule = tools.schedule.as_mut().map(|table| &mut table.path);
    memory.into_iter().chain(schedule).chain(secrets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_may_take_longer_than_a_round_of_tools_is_a_fault() {
        let text = "[agent]\ntool_timeout_seconds = 21\n[agent.limits]\nacting_seconds = 20\n\
                    [tools.http]\nhosts = ['a.example']\ntimeout_seconds = 22\n\
                    [tools.process]\ntimeout_seconds = 23\ncommands = { uptime = ['/usr/bin/uptime'] }\n\
                    [tools.mqtt]\nmax_timeout_seconds = 24\n\
                    [[tool]]\nname = 'a'\ndescription = 'Does a.'\ntimeout_seconds = 20\npublish = { topic = 'a', payload = '' }\n\
                    [[tool]]\nname = 'b'\ndescription = 'Does b.'\ntimeout_seconds = 25\npublish = { topic = 'b', payload = '' }\n\
                    [[mcp]]\nname = 'c'\ncommand = 'c'\ntimeout_seconds = 26\n";
        let faults = Config::parse(text, "test.toml").unwrap_err().to_string();
        for part in [
            "agent.tool_timeout_seconds = 21: use agent.limits.acting_seconds, which is 20",
            "tools.http.timeout_seconds = 22",
            "tools.process.timeout_seconds = 23",
            "tools.mqtt.max_timeout_seconds = 24",
            "tool[1].timeout_seconds = 25",
            "mcp[0].timeout_seconds = 26",
        ] {
            assert!(faults.contains(part), "{part} is not in:\n{faults}");
        }
        assert_eq!(faults.lines().count(), 7, "{faults}");
    }
}
