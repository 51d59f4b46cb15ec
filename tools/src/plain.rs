//! JSON Schemas of others → the plain form that grammar and prompt are made from.
//!
//! What comes out is small, has no references, and can be met by construction: a schema that no value fits would make every
//! list of tools that it stands in useless. What is left out only makes it wider; whoever carries out the call checks again.

use serde_json::{Map, Value, json};

/// Objects in objects at most; a schema that refers to itself is deeper.
const MAX_DEPTH: usize = 6;
/// Parts of a schema at most.
const MAX_PARTS: usize = 128;
/// Values to choose from, or alternatives, at most.
const MAX_CHOICES: usize = 64;
/// A longer description is cut, characters.
const MAX_DESCRIPTION: usize = 200;
/// Items and letters that can be asked for at most.
const MAX_LENGTH: u64 = 4096;

/// The plain form of a schema of arguments.
///
/// # Errors
/// A sentence that says why it cannot be used.
pub fn plain(schema: &Value) -> Result<Value, String> {
    let mut reader = Reader { root: schema, parts: 0 };
    let mut plain = reader.node(schema, 0)?;
    match plain.get("type").and_then(Value::as_str) {
        Some("object") => {}
        None if plain.get("properties").is_some() => {}
        _ => return Err("the arguments must be an object: use \"type\": \"object\"".into()),
    }
    plain.insert("type".into(), "object".into());
    plain.remove("description");
    plain.entry("properties").or_insert_with(|| json!({}));
    plain.insert("additionalProperties".into(), false.into());
    Ok(plain.into())
}

struct Reader<'a> {
    root: &'a Value,
    parts: usize,
}

impl Reader<'_> {
    fn node(&mut self, schema: &Value, depth: usize) -> Result<Map<String, Value>, String> {
        self.parts += 1;
        if depth > MAX_DEPTH {
            return Err(format!("it is more than {MAX_DEPTH} levels deep, or refers to itself"));
        }
        if self.parts > MAX_PARTS {
            return Err(format!("it has more than {MAX_PARTS} parts"));
        }
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(true) => return Ok(Map::new()),
            _ => return Err("a schema must be an object".into()),
        };
        if let Some(target) = self.referred(schema)? {
            return Ok(described(self.node(&target, depth + 1)?, schema));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(key) {
                return Ok(described(self.alternatives(options, depth)?, schema));
            }
        }
        if let Some(values) = choices(schema)? {
            return Ok(described(Map::from_iter([("enum".to_owned(), values)]), schema));
        }
        self.typed(schema, depth)
    }

    /// What a schema stands for that is nothing but a reference, or a list of one.
    fn referred(&self, schema: &Map<String, Value>) -> Result<Option<Value>, String> {
        if let Some(reference) = schema.get("$ref") {
            let path = reference.as_str().and_then(|path| path.strip_prefix('#'));
            let target = path.and_then(|path| self.root.pointer(path)).cloned();
            return target
                .map(Some)
                .ok_or_else(|| format!("the reference {reference} leads nowhere"));
        }
        match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => Ok(Some(only.clone())),
            Some(_) => Err("allOf with more than one schema cannot be used".into()),
            None => Ok(None),
        }
    }

    fn alternatives(
        &mut self,
        options: &Value,
        depth: usize,
    ) -> Result<Map<String, Value>, String> {
        let options = options.as_array().filter(|options| options.len() <= MAX_CHOICES);
        let options = options.ok_or("the alternatives must be a list, and not a long one")?;
        let some = options.iter().filter(|option| option["type"] != "null");
        let some =
            some.map(|option| self.node(option, depth + 1)).collect::<Result<Vec<_>, _>>()?;
        match some.len() {
            0 => Err("there is no alternative but null".into()),
            1 => Ok(some.into_iter().next().unwrap_or_default()),
            _ => Ok(Map::from_iter([(
                "anyOf".to_owned(),
                some.into_iter().map(Value::Object).collect(),
            )])),
        }
    }

    fn typed(
        &mut self,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Result<Map<String, Value>, String> {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => Some(kind.as_str()),
            Some(Value::Array(kinds)) => {
                let mut some =
                    kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
                // With several left nothing is said of it.
                some.next().filter(|_| some.next().is_none())
            }
            Some(_) => return Err("type must be a text".into()),
            None if schema.contains_key("properties") => Some("object"),
            None => None,
        };
        let mut plain = Map::new();
        let Some(kind) = kind else { return Ok(described(plain, schema)) };
        plain.insert("type".into(), kind.into());
        match kind {
            "object" => self.object(&mut plain, schema, depth)?,
            "array" => {
                let items = match schema.get("items") {
                    Some(items) => self.node(items, depth + 1)?,
                    None => Map::new(),
                };
                plain.insert("items".into(), items.into());
                lengths(&mut plain, schema, ["minItems", "maxItems"])?;
            }
            "string" => lengths(&mut plain, schema, ["minLength", "maxLength"])?,
            "integer" | "number" => range(&mut plain, schema, kind == "integer")?,
            "boolean" => {}
            other => return Err(format!("there is no type {other:?}")),
        }
        Ok(described(plain, schema))
    }

    fn object(
        &mut self,
        plain: &mut Map<String, Value>,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let Some(properties) = schema.get("properties") else { return Ok(()) };
        let properties = properties.as_object().ok_or("properties must be an object")?;
        let mut known = Map::new();
        for (name, property) in properties {
            if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
                return Err(format!("{name:?} is no name for an argument"));
            }
            let node =
                self.node(property, depth + 1).map_err(|fault| format!("{name}: {fault}"))?;
            known.insert(name.clone(), node.into());
        }
        let required = schema.get("required").and_then(Value::as_array);
        let required: Vec<Value> = required.into_iter().flatten().cloned().collect();
        let is_known = |name: &Value| name.as_str().is_some_and(|name| known.contains_key(name));
        if let Some(name) = required.iter().find(|name| !is_known(name)) {
            return Err(format!("{name} is required, and is not one of the properties"));
        }
        plain.insert("properties".into(), known.into());
        plain.insert("required".into(), required.into());
        plain.insert("additionalProperties".into(), false.into());
        Ok(())
    }
}

/// With the description that stands beside it, shortened, and without what could be taken for a mark of the prompt.
fn described(mut plain: Map<String, Value>, schema: &Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::String(text)) = schema.get("description") {
        plain.insert("description".into(), short(text, MAX_DESCRIPTION).into());
    }
    plain
}

/// A text in one line, cut after so many characters.
pub fn short(text: &str, limit: usize) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(limit).collect()
}

fn choices(schema: &Map<String, Value>) -> Result<Option<Value>, String> {
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => vec![only.clone()],
        (None, Some(Value::Array(values))) => values.clone(),
        (None, Some(_)) => return Err("enum must be a list".into()),
        (None, None) => return Ok(None),
    };
    let some: Vec<Value> = values.into_iter().filter(|value| !value.is_null()).collect();
    let is_plain = |value: &Value| match value {
        Value::String(text) => text.chars().count() <= MAX_DESCRIPTION,
        other => !other.is_array() && !other.is_object(),
    };
    if some.is_empty() || some.len() > MAX_CHOICES || !some.iter().all(is_plain) {
        return Err(format!("enum must have 1 to {MAX_CHOICES} short texts, numbers or booleans"));
    }
    Ok(Some(some.into()))
}

fn lengths(
    plain: &mut Map<String, Value>,
    schema: &Map<String, Value>,
    [least, most]: [&str; 2],
) -> Result<(), String> {
    let bound = |key: &str| match schema.get(key) {
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("{key} must be a number")),
        None => Ok(None),
    };
    let (low, high) = (bound(least)?, bound(most)?.map(|high| high.min(MAX_LENGTH)));
    if low.unwrap_or(0) > high.unwrap_or(MAX_LENGTH) {
        return Err(format!("{least} is more than {most} or {MAX_LENGTH}"));
    }
    plain.extend(low.map(|low| (least.to_owned(), low.into())));
    plain.extend(high.map(|high| (most.to_owned(), high.into())));
    Ok(())
}

fn range(
    plain: &mut Map<String, Value>,
    schema: &Map<String, Value>,
    whole: bool,
) -> Result<(), String> {
    let bound = |key: &str| match schema.get(key) {
        Some(value) => {
            let number = value.as_f64().filter(|number| number.abs() <= 1e15);
            number.map(Some).ok_or_else(|| format!("{key} must be a number, and no huge one"))
        }
        None => Ok(None),
    };
    let (low, high) = (bound("minimum")?, bound("maximum")?);
    let (low, high) = if whole { (low.map(f64::ceil), high.map(f64::floor)) } else { (low, high) };
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        return Err("minimum is more than maximum".into());
    }
    let number = |number: f64| if whole { json!(number as i64) } else { json!(number) };
    plain.extend(low.map(|low| ("minimum".to_owned(), number(low))));
    plain.extend(high.map(|high| ("maximum".to_owned(), number(high))));
    Ok(())
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn hostile_schemas_are_refused() {
        let deep = (0..20).fold(
            json!({"type": "string"}),
            |inner, _| json!({"type": "object", "properties": {"a": inner}}),
        );
        let wide: Map<String, Value> =
            (0..200).map(|index| (format!("a{index}"), json!({"type": "string"}))).collect();
        for schema in [
            json!(3),
            json!([]),
            json!(false),
            json!({"type": "string"}),
            json!({"$ref": "#"}),
            json!({"$ref": "https://example.org/x"}),
            json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
            json!({"type": "object", "properties": {"a": false}}),
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}}),
            json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0.2, "maximum": 0.8}}}),
            json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 1e9 as u64}}}),
            json!({"type": "object", "properties": {"a": {"enum": []}}}),
            json!({"type": "object", "properties": {"a": {"type": "colour"}}}),
            json!({"type": "object", "properties": {}, "required": ["a"]}),
            json!({"type": "object", "properties": 3}),
            json!({"type": "object", "properties": wide}),
            deep,
        ] {
            assert!(plain(&schema).is_err(), "{schema}");
        }
    }
}
