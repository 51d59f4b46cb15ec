//! Which calls of a tool wait for a person's yes.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::arguments::{Arguments, whole};

/// Calls of a tool that need a person's yes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Confirm {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Calls with all of these argument values. A list means any of its values.
    Where(Map<String, Value>),
}

impl Confirm {
    /// Calls with this value of an argument.
    pub fn on(argument: &str, value: impl Into<Value>) -> Self {
        Self::Where(Map::from_iter([(argument.to_owned(), value.into())]))
    }

    /// Whether a call with these arguments needs a yes. An argument that is left out counts as named:
    /// the tool may take any value for it.
    pub fn applies(&self, arguments: &Value) -> bool {
        let is = |named: &Value, given: &Value| {
            named == given || named.as_array().is_some_and(|any| any.contains(given))
        };
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Where(named) => named.iter().all(|(argument, named)| {
                arguments.get(argument).is_none_or(|given| is(named, given))
            }),
        }
    }

    /// Named values that no call can have, each as argument, value and remedy. A rule with such a value would never apply.
    pub fn misfits(&self, schema: &Value) -> Vec<(&str, &Value, String)> {
        let Self::Where(named) = self else { return Vec::new() };
        named
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value, misfit(schema, name, value)?)))
            .collect()
    }
}

/// Why no call can have this value of an argument.
fn misfit(schema: &Value, name: &str, value: &Value) -> Option<String> {
    let known = schema["properties"].as_object();
    let Some(property) = known.and_then(|known| known.get(name)) else {
        let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        return Some(match known.as_slice() {
            [] => "the tool has no arguments: use true or false".to_owned(),
            known => format!("no such argument; known are {}", known.join(", ")),
        });
    };
    let object = json!({ "type": "object", "properties": { name: property } });
    let arguments = Arguments::of(&object).ok()?;
    let fault = |value: &Value| arguments.check(&json!({ name: value })).err();
    let whole = fault(value)?;
    let any = value.as_array().filter(|any| !any.is_empty());
    let fault = any.map_or(Some(whole), |any| any.iter().find_map(fault))?;
    Some(format!("no call can have this value: {fault}"))
}

impl From<bool> for Confirm {
    fn from(always: bool) -> Self {
        if always { Self::Always } else { Self::Never }
    }
}

/// `true`, `false`, or a table of argument values.
struct Written;

impl<'de> Visitor<'de> for Written {
    type Value = Confirm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a table of argument values such as { locked = false }")
    }

    fn visit_bool<E: Error>(self, always: bool) -> Result<Confirm, E> {
        Ok(always.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Confirm, A::Error> {
        let mut named = Map::new();
        while let Some((argument, mut value)) = map.next_entry::<String, Value>()? {
            whole(&mut value);
            named.insert(argument, value);
        }
        if named.is_empty() {
            return Err(A::Error::custom("an empty table names no argument: use true or false"));
        }
        Ok(Confirm::Where(named))
    }
}

impl<'de> Deserialize<'de> for Confirm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_calls_by_the_values_of_their_arguments() {
        let read = |text: &str| serde_json::from_str::<Confirm>(text).unwrap();
        let rule = read(r#"{"locked": false, "door": ["front", "garage"], "level": 3.0}"#);
        let call = |door: &str, locked: bool| json!({"door": door, "locked": locked, "level": 3, "other": 1});
        assert!(rule.applies(&call("front", false)) && rule.applies(&call("garage", false)));
        assert!(!rule.applies(&call("back", false)) && !rule.applies(&call("front", true)));
        // What is left out may be taken for anything.
        assert!(rule.applies(&json!({"door": "front"})) && rule.applies(&json!({})));
        assert!(!rule.applies(&json!({"locked": true})));
        assert_eq!((read("true"), read("false")), (Confirm::Always, Confirm::Never));
        let fault = serde_json::from_str::<Confirm>("{}").unwrap_err().to_string();
        assert!(fault.contains("use true or false"), "{fault}");
        let fault = serde_json::from_str::<Confirm>("3").unwrap_err().to_string();
        assert!(fault.contains("table of argument values"), "{fault}");
    }

    #[test]
    fn values_that_no_call_can_have_are_faults() {
        let schema = json!({"type": "object", "properties":
            {"door": {"enum": ["front", "back"]}, "locked": {"type": "boolean"}}});
        let faults = |rule: Value| {
            let rule: Confirm = serde_json::from_value(rule).unwrap();
            let told = rule.misfits(&schema);
            let told =
                told.iter().map(|(name, value, remedy)| format!("{name} = {value}: {remedy}"));
            told.collect::<Vec<_>>().join("; ")
        };
        for (rule, part) in [
            (json!({"lockd": false}), "lockd = false: no such argument; known are door, locked"),
            (json!({"door": "frnt"}), "door = \"frnt\": no call can have this value"),
            (json!({"door": ["front", 3]}), "no call can have this value"),
            (json!({"locked": "no"}), "no call can have this value"),
        ] {
            let told = faults(rule);
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert_eq!(faults(json!({"door": ["front", "back"], "locked": false})), "");
        assert_eq!(faults(json!(true)), "");
    }
}
