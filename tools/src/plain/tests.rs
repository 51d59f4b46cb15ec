use super::*;

#[test]
fn schemas_as_others_make_them_become_plain() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Weather", "type": "object",
        "$defs": {"Unit": {"enum": ["c", "f"], "title": "Unit", "type": "string"}},
        "properties": {
            "city": {"type": "string", "title": "City", "description": "Where\n to look", "pattern": "(a+)+$"},
            "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}], "default": null},
            "days": {"type": ["integer", "null"], "minimum": 0.5, "maximum": 7},
            "tags": {"type": "array", "items": {"type": "string"}}
        },
        "required": ["city"]
    });
    let expected = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where to look"},
            "unit": {"enum": ["c", "f"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
            "tags": {"type": "array", "items": {"type": "string"}}
        },
        "required": ["city"],
        "additionalProperties": false
    });
    let plain = plain(&schema).unwrap();
    assert_eq!(plain, expected);
    assert_eq!(super::plain(&plain).unwrap(), expected);
}

#[test]
fn an_object_without_properties_takes_no_arguments() {
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    assert_eq!(plain(&json!({"type": "object"})).unwrap(), none);
}

#[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
fn of(property: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"a": property}});
    plain(&schema).unwrap()["properties"]["a"].clone()
}

#[test]
fn what_cannot_be_said_is_left_out() {
    for (written, plain) in [
        (
            json!({"type": "integer", "minimum": -9_007_199_254_740_991i64, "maximum": 9_007_199_254_740_991i64}),
            json!({"type": "integer"}),
        ),
        (
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            json!({"type": "integer", "minimum": 0}),
        ),
        (json!({"type": "integer", "minimum": i64::MIN}), json!({"type": "integer"})),
        (
            json!({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 2.5}),
            json!({"type": "integer", "minimum": 1, "maximum": 2}),
        ),
        (json!({"type": "integer", "minimum": 5, "maximum": 1}), json!({"type": "integer"})),
        (
            json!({"type": "string", "pattern": "(", "format": "date-time"}),
            json!({"type": "string"}),
        ),
        (json!({"type": "string", "minLength": 1_000_000}), json!({"type": "string"})),
        (
            json!({"type": "string", "maxLength": 100_000}),
            json!({"type": "string", "maxLength": 4096}),
        ),
        (json!({"type": "STRING"}), json!({"type": "string"})),
        (json!({"type": "string", "nullable": true}), json!({"type": "string"})),
        (
            json!({"type": ["string", "integer", "null"]}),
            json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ),
    ] {
        assert_eq!(of(written.clone()), plain, "{written}");
    }
}

#[test]
fn choices_references_and_lists_are_brought_into_one_form() {
    let values: Vec<String> = (0..100).map(|index| format!("v{index}")).collect();
    for (written, plain) in [
        (json!({"const": "x"}), json!({"enum": ["x"]})),
        (
            json!({"oneOf": [{"const": "x", "title": "X"}, {"const": "y"}]}),
            json!({"anyOf": [{"enum": ["x"]}, {"enum": ["y"]}]}),
        ),
        (json!({"enum": []}), json!({})),
        (json!({"enum": [["x"]]}), json!({})),
        (json!({"type": "colour"}), json!({})),
        (json!({"$ref": "#/nowhere"}), json!({})),
        (json!({"$ref": "https://example.org/x"}), json!({})),
        (
            json!({"type": "array", "items": [{"type": "number"}, {"type": "string"}]}),
            json!({"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string"}]}}),
        ),
        (
            json!({"type": "array", "prefixItems": [{"type": "number"}]}),
            json!({"type": "array", "items": {"type": "number"}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
        ),
        (json!({"allOf": [{"type": "string"}, {"minLength": 2}]}), json!({"type": "string"})),
        (json!({"type": "object", "properties": []}), json!({"type": "object"})),
    ] {
        assert_eq!(of(written.clone()), plain, "{written}");
    }
    let long = of(json!({"type": "string", "enum": values}));
    assert_eq!(long["type"], "string");
    assert!(
        long["description"]
            .as_str()
            .unwrap()
            .starts_with("One of 100 values, such as \"v0\", \"v1\"")
    );
}

#[test]
fn arguments_may_be_written_in_parts_or_not_at_all() {
    let (a, b) = (json!({"type": "string"}), json!({"type": "integer"}));
    let parts = [
        json!({"type": "object", "properties": {"a": a}, "required": ["a"]}),
        json!({"type": "object", "properties": {"b": b}, "required": ["b"]}),
    ];
    for (key, required) in
        [("allOf", json!(["a", "b"])), ("anyOf", json!([])), ("oneOf", json!([]))]
    {
        let plain = plain(&json!({key: parts})).unwrap();
        assert_eq!(plain["properties"], json!({"a": a, "b": b}), "{key}");
        assert_eq!(plain["required"], required, "{key}");
    }
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    for schema in [
        json!({}),
        json!([]),
        json!(null),
        json!(true),
        json!({"properties": []}),
        json!({"required": null}),
    ] {
        assert_eq!(plain(&schema).unwrap()["properties"], none["properties"], "{schema}");
    }
    let old = json!({"properties": {"a": {"type": "string", "required": true}}, "required": ["zz", "zz"]});
    assert_eq!(plain(&old).unwrap()["required"], json!(["a"]));
    let map = json!({"type": "object", "additionalProperties": {"type": "string"}});
    assert_eq!(plain(&map).unwrap()["additionalProperties"], json!({"type": "string"}));
}

#[test]
fn what_is_endless_or_huge_stays_small() {
    let deep = (0..20).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "object", "properties": {"a": inner}}),
    );
    let wide: Map<String, Value> =
        (0..200).map(|index| (format!("a{index}"), json!({"type": "string"}))).collect();
    let double = json!({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}});
    let round = json!({"properties": {"n": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}});
    for schema in
        [json!({"$ref": "#"}), deep, json!({"type": "object", "properties": wide}), double, round]
    {
        let plain = plain(&schema).unwrap();
        assert!(plain.to_string().len() < 20_000, "{plain}");
    }
}

#[test]
fn what_no_object_fits_is_refused() {
    for schema in [
        json!({"type": "string"}),
        json!({"type": "objekt"}),
        json!({"enum": [1]}),
        json!({"$ref": "#/$defs/N", "$defs": {"N": {"type": "array"}}}),
    ] {
        assert!(plain(&schema).unwrap_err().contains("must be an object"), "{schema}");
    }
}
