//! The arguments of a call, held in full against the schema that its tool came with: grammar and prompt are made from a looser one.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Number, Value};

use crate::plain::short;

/// Steps that a pattern may take on a text.
const MAX_STEPS: usize = 100_000;
/// Faults that are told of one call.
const MAX_FAULTS: usize = 4;
/// A longer fault is cut, characters.
const MAX_FAULT: usize = 300;
/// Larger whole numbers are not told from their neighbours by a float.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// What arguments are held against.
#[derive(Debug)]
pub(crate) struct Arguments(Validator);

impl Arguments {
    /// By the version of JSON Schema that the schema names, else by the newest in which it makes sense: tools are written by older
    /// ones too, and seldom say so.
    ///
    /// # Errors
    /// Why it makes no sense in any.
    pub(crate) fn of(schema: &Value) -> Result<Self, String> {
        let build = |draft: Option<Draft>, schema: &Value| {
            let options = jsonschema::options()
                .offline()
                .should_validate_formats(true)
                .should_ignore_unknown_formats(true)
                .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_STEPS));
            match draft {
                Some(draft) => options.with_draft(draft),
                None => options,
            }
            .build(schema)
            .map_err(|fault| {
                let place = fault.instance_path().to_string();
                format!("{}: {fault}", place.trim_start_matches('/'))
            })
        };
        if endless(schema) {
            return Err("it refers to itself without end".into());
        }
        let first = match build(None, schema) {
            Ok(validator) => return Ok(Self(validator)),
            Err(fault) => fault,
        };
        let mut bare = schema.clone();
        if let Some(bare) = bare.as_object_mut() {
            bare.remove("$schema");
        }
        [Draft::Draft202012, Draft::Draft7, Draft::Draft4]
            .into_iter()
            .find_map(|draft| build(Some(draft), &bare).ok())
            .map(Self)
            .ok_or(first)
    }

    /// # Errors
    /// What is wrong with the arguments, each fault with its place.
    pub(crate) fn check(&self, arguments: &Value) -> Result<(), String> {
        let told = |fault: jsonschema::ValidationError<'_>| {
            let path = fault.instance_path().to_string();
            let place = if path.is_empty() { "arguments" } else { path.trim_start_matches('/') };
            short(&format!("{place}: {fault}"), MAX_FAULT)
        };
        let faults: Vec<String> =
            self.0.iter_errors(arguments).take(MAX_FAULTS).map(told).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

/// Whole numbers that are written with a fraction of 0, as some clients do, without it: they are the same to JSON Schema.
pub(crate) fn whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() <= MAX_EXACT
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(object) => object.values_mut().for_each(whole),
        _ => {}
    }
}

/// Whether following references leads back to where it began with the same value still to be judged, which never ends.
fn endless(root: &Value) -> bool {
    fn goes_round<'a>(
        root: &'a Value,
        at: &'a Value,
        path: &mut Vec<&'a Value>,
        steps: &mut usize,
    ) -> bool {
        *steps += 1;
        if path.iter().any(|earlier| std::ptr::eq(*earlier, at)) || *steps > 10_000 {
            return true;
        }
        let Value::Object(schema) = at else { return false };
        path.push(at);
        let target =
            schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        let target = target.and_then(|path| root.pointer(path));
        let lists = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .filter_map(|key| schema.get(key)?.as_array())
            .flatten();
        let single = ["not", "if", "then", "else"].into_iter().filter_map(|key| schema.get(key));
        let found = target
            .into_iter()
            .chain(lists)
            .chain(single)
            .any(|next| goes_round(root, next, path, steps));
        path.pop();
        found
    }
    /// Every schema of the tree may be where it begins.
    fn any(root: &Value, at: &Value, steps: &mut usize) -> bool {
        if goes_round(root, at, &mut Vec::new(), steps) {
            return true;
        }
        match at {
            Value::Object(object) => object.values().any(|next| any(root, next, steps)),
            Value::Array(items) => items.iter().any(|next| any(root, next, steps)),
            _ => false,
        }
    }
    any(root, root, &mut 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
    fn fits(schema: Value, arguments: Value) -> bool {
        Arguments::of(&schema).unwrap().check(&arguments).is_ok()
    }

    #[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
    fn of(property: Value) -> Value {
        json!({"type": "object", "properties": {"a": property}, "required": ["a"]})
    }

    #[test]
    fn what_a_grammar_leaves_out_is_held() {
        for (schema, good, bad) in [
            (
                of(json!({"type": "number", "exclusiveMinimum": 0})),
                json!({"a": 0.5}),
                json!({"a": 0}),
            ),
            (
                of(json!({"type": "string", "pattern": r"^(?!x)\w+$"})),
                json!({"a": "yes"}),
                json!({"a": "xno"}),
            ),
            (
                of(json!({"type": "string", "format": "date-time"})),
                json!({"a": "2026-01-01T00:00:00Z"}),
                json!({"a": "nope"}),
            ),
            (
                of(json!({"prefixItems": [{"type": "number"}, {"type": "string"}]})),
                json!({"a": [1, "x"]}),
                json!({"a": ["x", 1]}),
            ),
            (
                of(json!({"type": "object", "additionalProperties": {"type": "string"}})),
                json!({"a": {"x": "y"}}),
                json!({"a": {"x": 1}}),
            ),
            (json!({"dependentRequired": {"a": ["b"]}}), json!({"a": 1, "b": 2}), json!({"a": 1})),
            (
                json!({"if": {"properties": {"a": {"const": "x"}}}, "then": {"required": ["b"]}}),
                json!({"a": "y"}),
                json!({"a": "x"}),
            ),
            (
                of(json!({"type": "integer", "maximum": u64::MAX})),
                json!({"a": u64::MAX}),
                json!({"a": 0.5}),
            ),
            (of(json!({"type": "number", "multipleOf": 5})), json!({"a": 15}), json!({"a": 16})),
        ] {
            assert!(fits(schema.clone(), good), "{schema}");
            assert!(!fits(schema.clone(), bad), "{schema}");
        }
    }

    #[test]
    fn older_versions_of_json_schema_are_understood_without_being_named() {
        let tuple = of(json!({"items": [{"type": "number"}, {"type": "string"}]}));
        assert!(
            fits(tuple.clone(), json!({"a": [1, "x"]})) && !fits(tuple, json!({"a": ["x", 1]}))
        );
        let above = of(json!({"minimum": 0, "exclusiveMinimum": true}));
        assert!(fits(above.clone(), json!({"a": 1})) && !fits(above, json!({"a": 0})));
        let foreign =
            json!({"$schema": "http://127.0.0.1/none", "properties": {"a": {"type": "integer"}}});
        assert!(fits(foreign.clone(), json!({"a": 1})) && !fits(foreign, json!({"a": "x"})));
    }

    #[test]
    fn schemas_that_make_no_sense_or_do_not_end_are_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"properties": {"n": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}),
            json!({"$ref": "https://example.org/x"}),
            of(json!({"pattern": "("})),
            of(json!({"type": "STRING"})),
        ] {
            assert!(Arguments::of(&schema).is_err(), "{schema}");
        }
        let tree = json!({"properties": {"next": {"$ref": "#"}, "v": {"type": "string"}}});
        assert!(
            fits(tree.clone(), json!({"next": {"v": "x"}}))
                && !fits(tree, json!({"next": {"next": {"v": 1}}}))
        );
    }

    #[test]
    fn whole_numbers_lose_their_fraction() {
        let mut value = json!({"level": 30.0, "list": [3e1, -0.0, 0.5, 1e300], "text": "30.0"});
        whole(&mut value);
        assert_eq!(value, json!({"level": 30, "list": [30, 0, 0.5, 1e300], "text": "30.0"}));
    }
}
