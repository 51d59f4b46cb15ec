use jiff::civil::date;
use serde_json::json;

use super::*;
use crate::schedule::Day;

const CLASSES: [Class; 4] = [Class::Open, Class::Guarded, Class::Forbidden, Class::Internal];

fn at(hour: i8) -> Moment {
    Moment { instant: Instant::now(), local: date(2026, 11, 27).at(hour, 0, 0, 0) }
}

/// A call without arguments.
fn call(tool: &str, class: Class) -> Proposed<'_> {
    Proposed { tool, class, confirm: &Confirm::Never, arguments: &Value::Null }
}

fn judge(rules: &PolicyRules, class: Class, origin: Origin) -> Verdict {
    Policy::new(rules.clone()).decide(call("set_lock", class), origin, at(12))
}

fn with(rule: ToolRule) -> PolicyRules {
    let tools = BTreeMap::from([("set_lock".to_owned(), rule)]);
    PolicyRules { tools, ..PolicyRules::default() }
}

#[test]
fn without_rules_the_class_decides() {
    let rules = PolicyRules::default();
    for (class, allowed) in [
        (Class::Open, Origin::ALL.to_vec()),
        (
            Class::Guarded,
            vec![Origin::Voice, Origin::Ask, Origin::Firmware, Origin::Schedule, Origin::Agent],
        ),
        (Class::Forbidden, vec![]),
        (Class::Internal, vec![Origin::Agent]),
    ] {
        for origin in Origin::ALL {
            let allows = judge(&rules, class, origin) == Verdict::Allow;
            assert_eq!(allows, allowed.contains(&origin), "{class:?} from {origin:?}");
        }
    }
}

#[test]
fn text_that_was_read_never_opens_a_guarded_tool_whatever_the_rules_are() {
    let confirms = [None, Some(Confirm::Never), Some(Confirm::Always)];
    for from in [None, Some(vec![Origin::Untrusted]), Some(Origin::ALL.to_vec())] {
        for confirm in confirms.clone() {
            for class in [None, Some(Class::Guarded), Some(Class::Forbidden)] {
                let (from, confirm) = (from.clone(), confirm.clone());
                let rule = ToolRule { class, from, confirm, ..ToolRule::default() };
                let rules = PolicyRules { guarded_from: Origin::ALL.to_vec(), ..with(rule) };
                let verdict = judge(&rules, Class::Guarded, Origin::Untrusted);
                assert!(
                    matches!(verdict, Verdict::Confirm | Verdict::Refuse(_)),
                    "{rules:?} {verdict:?}"
                );
            }
        }
    }
    let named = with(ToolRule { from: Some(vec![Origin::Untrusted]), ..ToolRule::default() });
    assert_eq!(judge(&named, Class::Guarded, Origin::Untrusted), Verdict::Confirm);
    let silent = with(ToolRule { confirm: Some(Confirm::Always), ..ToolRule::default() });
    assert!(matches!(judge(&silent, Class::Guarded, Origin::Untrusted), Verdict::Refuse(_)));
}

#[test]
fn a_rule_changes_the_class_but_not_of_what_is_the_agents_own() {
    for class in CLASSES {
        let rules = with(ToolRule { class: Some(class), ..ToolRule::default() });
        assert_eq!(rules.class_of("set_lock", Class::Open), class);
        assert_eq!(rules.class_of("set_light", Class::Open), Class::Open);
        assert_eq!(rules.class_of("set_lock", Class::Internal), Class::Internal);
    }
    let forbidden = with(ToolRule { class: Some(Class::Forbidden), ..ToolRule::default() });
    assert_eq!(
        judge(&forbidden, Class::Open, Origin::Voice),
        Verdict::Refuse("set_lock is forbidden".into())
    );
}

#[test]
fn a_rule_says_from_where_when_and_whether_a_person_has_to_agree() {
    let rule = ToolRule {
        from: Some(vec![Origin::Voice]),
        when: Schedule::new(Some(&[Day::Fri]), Some("07:00-22:00")).unwrap(),
        confirm: Some(Confirm::Always),
        ..ToolRule::default()
    };
    let mut policy = Policy::new(with(rule));
    let mut decide =
        |origin, hour| policy.decide(call("set_lock", Class::Guarded), origin, at(hour));
    assert_eq!(decide(Origin::Voice, 12), Verdict::Confirm);
    for (origin, hour, part) in
        [(Origin::Voice, 22, "at this time"), (Origin::Ask, 12, "guarded"), (Origin::Ask, 22, "")]
    {
        let Verdict::Refuse(reason) = decide(origin, hour) else { panic!("{origin:?} {hour}") };
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn calls_with_the_named_values_wait_for_a_person_and_a_rule_replaces_what_the_tool_says() {
    let own = Confirm::on("locked", false);
    let verdict = |confirm: Option<Confirm>, locked: bool| {
        let arguments = json!({ "locked": locked });
        let (tool, class) = ("set_lock", Class::Guarded);
        let proposed = Proposed { tool, class, confirm: &own, arguments: &arguments };
        let rules = with(ToolRule { confirm, ..ToolRule::default() });
        Policy::new(rules).decide(proposed, Origin::Ask, at(12))
    };
    for (rule, unlock, lock) in [
        (None, Verdict::Confirm, Verdict::Allow),
        (Some(Confirm::Never), Verdict::Allow, Verdict::Allow),
        (Some(Confirm::Always), Verdict::Confirm, Verdict::Confirm),
        (Some(Confirm::on("locked", true)), Verdict::Allow, Verdict::Confirm),
    ] {
        let verdicts = (verdict(rule.clone(), false), verdict(rule.clone(), true));
        assert_eq!(verdicts, (unlock, lock), "{rule:?}");
    }
}

#[test]
fn the_rate_is_bounded_and_recovers() {
    let rules = with(ToolRule { per_minute: Some(2), ..ToolRule::default() });
    let mut policy = Policy::new(rules);
    let start = at(12);
    let mut called = |tool: &str, seconds: u64| {
        let now = Moment { instant: start.instant + Duration::from_secs(seconds), ..start };
        policy.decide(call(tool, Class::Open), Origin::Voice, now) == Verdict::Allow
    };
    assert!(called("set_lock", 0) && called("set_lock", 1));
    assert!(!called("set_lock", 59));
    assert!(called("set_light", 59));
    assert!(called("set_lock", 60));
    assert!(!called("set_lock", 60));
}

#[test]
fn no_alert_is_refused_for_rate() {
    let rules = with(ToolRule { per_minute: Some(1), ..ToolRule::default() });
    let mut policy = Policy::new(PolicyRules { per_minute: 1, ..rules });
    for tool in ["raise_alert", "set_lock"] {
        for _ in 0..100 {
            assert_eq!(
                policy.decide(call(tool, Class::Internal), Origin::Agent, at(12)),
                Verdict::Allow,
                "{tool}"
            );
        }
    }
    assert_eq!(policy.decide(call("set_lock", Class::Open), Origin::Voice, at(12)), Verdict::Allow);
    assert!(matches!(
        policy.decide(call("set_lock", Class::Open), Origin::Voice, at(12)),
        Verdict::Refuse(_)
    ));
}

#[test]
fn untrusted_text_beside_the_command_leaves_guarded_calls_to_a_person() {
    for origin in Origin::ALL {
        for class in CLASSES {
            let rules = PolicyRules::default();
            let sure = judge(&rules, class, origin);
            let doubtful = Caller { origin, doubtful: true };
            let verdict = Policy::new(rules).decide(call("set_lock", class), doubtful, at(12));
            let asked =
                sure == Verdict::Allow && class == Class::Guarded && origin != Origin::Agent;
            assert_eq!(
                verdict,
                if asked { Verdict::Confirm } else { sure },
                "{class:?} {origin:?}"
            );
        }
    }
}

#[test]
fn a_dry_run_carries_nothing_out_and_refuses_as_ever() {
    let dry = PolicyRules {
        dry_run: true,
        ..with(ToolRule { confirm: Some(Confirm::Always), ..ToolRule::default() })
    };
    assert_eq!(judge(&dry, Class::Guarded, Origin::Voice), Verdict::DryRun);
    assert_eq!(judge(&dry, Class::Open, Origin::Untrusted), Verdict::DryRun);
    assert!(matches!(judge(&dry, Class::Guarded, Origin::Untrusted), Verdict::Refuse(_)));
    // The watch list still raises its alerts.
    let dry = PolicyRules { dry_run: true, ..PolicyRules::default() };
    assert_eq!(judge(&dry, Class::Internal, Origin::Agent), Verdict::Allow);
}
