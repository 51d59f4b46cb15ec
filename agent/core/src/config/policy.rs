//! `[policy]`: who may call which tool. `outpost_tools::policy` applies it.

use std::collections::BTreeMap;
use std::time::Duration;

use outpost_tools::declared::DeclaredConfig;
use outpost_tools::schedule::{Day, Schedule};
use outpost_tools::tool::Class;
use outpost_tools::{Confirm, Origin, PolicyRules, ToolRule};
use serde::Deserialize;

use crate::config::duration::seconds;
use crate::config::{AgentConfig, Faults};

/// `[policy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Who may call guarded tools.
    pub guarded_from: Vec<Origin>,
    /// Rate limit per tool and minute.
    pub per_minute: usize,
    /// Dry run: calls are checked and reported, but not made.
    pub dry_run: bool,
    /// How long a call waits for confirmation.
    #[serde(with = "seconds", rename = "confirm_seconds")]
    pub confirm: Duration,
    /// Utterances that count as a yes. Anything else is a no.
    pub yes: Vec<String>,
    /// `[policy.tools.NAME]`
    pub tools: BTreeMap<String, RuleConfig>,
}

/// `[policy.tools.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Overrides the tool's own class.
    pub class: Option<Class>,
    /// Origins that may call it. Default: by class.
    pub from: Option<Vec<Origin>>,
    /// Days on which it may be called; all if left out.
    pub days: Option<Vec<Day>>,
    /// Hours of local time, such as `07:00-22:00`; always if left out.
    pub hours: Option<String>,
    /// Rate limit per minute; `policy.per_minute` if left out.
    pub per_minute: Option<usize>,
    /// Which calls need confirmation: `true`, `false`, or a table of argument values. Default: as
    /// the tool has it.
    pub confirm: Option<Confirm>,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        let PolicyRules { guarded_from, per_minute, dry_run, .. } = PolicyRules::default();
        let yes = ["yes", "yes please", "yeah", "confirm", "go ahead", "do it"];
        Self {
            guarded_from,
            per_minute,
            dry_run,
            confirm: Duration::from_secs(30),
            yes: yes.map(str::to_owned).to_vec(),
            tools: BTreeMap::new(),
        }
    }
}

impl RuleConfig {
    fn schedule(&self) -> Option<Schedule> {
        Schedule::new(self.days.as_deref(), self.hours.as_deref())
    }

    /// Whether calls may need confirmation.
    fn asks(&self) -> bool {
        self.confirm.as_ref().is_some_and(|confirm| *confirm != Confirm::Never)
            || self.from.iter().flatten().any(|origin| *origin == Origin::Untrusted)
    }

    fn check(&self, key: &str, faults: &mut Faults) {
        if self.schedule().is_none() {
            let hours = self.hours.as_deref().unwrap_or_default();
            faults.add(
                format!("{key}.hours"),
                format!("{hours:?}"),
                "write them as \"07:00-22:00\"",
            );
        }
        if self.days.as_ref().is_some_and(Vec::is_empty) {
            faults.add(format!("{key}.days"), "[]", "leave it out for all days");
        }
        if self.per_minute == Some(0) {
            faults.add(format!("{key}.per_minute"), 0, "use 1 or more, or class = \"forbidden\"");
        }
    }
}

impl PolicyConfig {
    /// The policy rules.
    pub fn rules(&self) -> PolicyRules {
        let rule = |rule: &RuleConfig| ToolRule {
            class: rule.class,
            from: rule.from.clone(),
            when: rule.schedule().unwrap_or_default(),
            per_minute: rule.per_minute,
            confirm: rule.confirm.clone(),
        };
        PolicyRules {
            guarded_from: self.guarded_from.clone(),
            per_minute: self.per_minute,
            dry_run: self.dry_run,
            tools: self.tools.iter().map(|(name, own)| (name.clone(), rule(own))).collect(),
        }
    }

    pub(crate) fn check(
        &self,
        agent: &AgentConfig,
        declared: &[DeclaredConfig],
        faults: &mut Faults,
    ) {
        if self.guarded_from.contains(&Origin::Untrusted) {
            let remedy = "text that was read is data: name `untrusted` in policy.tools.NAME.from, and a person is asked each time";
            faults.add("policy.guarded_from", "\"untrusted\"", remedy);
        }
        if self.per_minute == 0 {
            faults.add("policy.per_minute", 0, "use 1 or more");
        }
        if self.yes.iter().any(|words| words.trim().is_empty()) {
            faults.add("policy.yes", "\"\"", "silence is no yes: leave it out");
        }
        for (name, rule) in &self.tools {
            rule.check(&format!("policy.tools.{name}"), faults);
        }
        let asks = self.tools.values().any(RuleConfig::asks)
            || declared.iter().any(|tool| tool.confirm != Confirm::Never);
        if self.confirm.is_zero() {
            faults.add("policy.confirm_seconds", 0, "use more than 0");
        } else if asks && self.confirm + agent.tool_timeout > agent.limits.acting {
            let remedy = "with agent.tool_timeout_seconds it is more than agent.limits.acting_seconds, so that a call would be dropped while a person is asked";
            faults.add("policy.confirm_seconds", self.confirm.as_secs_f64(), remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_is_what_is_judged_by() {
        let text = "[policy]\nguarded_from = ['voice']\ndry_run = true\n[policy.tools.set_lock]\nclass = 'guarded'\n\
                    from = ['voice', 'untrusted']\nhours = '07:00-22:00'\nper_minute = 2\nconfirm = true\n\
                    [policy.tools.set_light]\nconfirm = { state = 'off', room = ['hallway', 'office'] }\n";
        let rules = Config::parse(text, "test.toml").unwrap().policy.rules();
        let rule = ToolRule {
            class: Some(Class::Guarded),
            from: Some(vec![Origin::Voice, Origin::Untrusted]),
            when: Schedule::new(None, Some("07:00-22:00")).unwrap(),
            per_minute: Some(2),
            confirm: Some(Confirm::Always),
        };
        let named = serde_json::json!({"state": "off", "room": ["hallway", "office"]});
        let confirm = Some(Confirm::Where(named.as_object().unwrap().clone()));
        let light = ToolRule { confirm, ..ToolRule::default() };
        let tools = BTreeMap::from([("set_lock".into(), rule), ("set_light".into(), light)]);
        let guarded_from = vec![Origin::Voice];
        assert_eq!(rules, PolicyRules { guarded_from, per_minute: 60, dry_run: true, tools });
        assert_eq!(PolicyConfig::default().rules(), PolicyRules::default());
    }

    #[test]
    fn rules_that_give_too_much_away_or_nothing_at_all_are_faults() {
        let text = "[policy]\nguarded_from = ['untrusted', 'agent']\nper_minute = 0\nyes = ['']\nconfirm_seconds = 55\n\
                    [policy.tools.set_lock]\nclass = 'internal'\nhours = 'late'\ndays = []\nper_minute = 0\nconfirm = true\n\
                    [policy.tools.set_light]\nconfirm = { state = 'of' }\n[policy.tools.set_blinds]\nconfirm = {}\n\
                    [policy.tools.fan]\nconfirm = { sped = 3 }\n\
                    [[tool]]\nname = 'fan'\ndescription = 'Set the fan.'\narguments = { speed = 'integer' }\n\
                    confirm = { speed = 'fast' }\npublish = { topic = 'fan', payload = '{speed}' }\n";
        let faults = Config::parse(text, "test.toml").unwrap_err().to_string();
        for part in [
            "policy.guarded_from[1] = \"agent\": unknown variant",
            "policy.guarded_from = \"untrusted\"",
            "policy.per_minute = 0",
            "policy.yes",
            "policy.confirm_seconds = 55",
            "policy.tools.set_lock.class = \"internal\": unknown variant",
            "policy.tools.set_lock.hours = \"late\"",
            "policy.tools.set_lock.days",
            "policy.tools.set_lock.per_minute = 0",
            "policy.tools.set_light.confirm.state = \"of\": no call can have this value",
            "policy.tools.set_blinds.confirm",
            "use true or false",
            "tool[0].confirm.speed = \"fast\": no call can have this value",
        ] {
            assert!(faults.contains(part), "{part} is not in:\n{faults}");
        }
    }
}
