//! JSON Schemas of others → the plain form that grammar and prompt are made from.
//!
//! What comes out is small, has no references, and can be met by construction: a schema that no value fits would make every
//! list of tools that it stands in useless. What cannot be said in it is left out, which only makes it wider: the arguments of a
//! call are held against the whole schema before the tool is called (`arguments`).

use serde_json::{Map, Value, json};

/// Objects in objects at most; a schema that refers to itself is deeper.
const MAX_DEPTH: usize = 6;
/// Parts of a schema at most; what comes after may be anything.
const MAX_PARTS: usize = 128;
/// Values to choose from, or alternatives, at most.
const MAX_CHOICES: usize = 64;
/// Values of a longer list that the description names.
const SOME_CHOICES: usize = 16;
/// A longer description is cut, characters.
const MAX_DESCRIPTION: usize = 200;
/// Items and letters that can be asked for at most.
const MAX_LENGTH: u64 = 4096;
/// Bounds beyond this are those of a number format, and say nothing.
const MAX_BOUND: f64 = 1e15;

/// The plain form of a schema of arguments.
///
/// # Errors
/// A sentence that says why no arguments could fit it.
pub fn plain(schema: &Value) -> Result<Value, String> {
    let mut reader = Reader { root: schema, parts: 0 };
    let kind = schema.get("type").and_then(Value::as_str).map(str::to_ascii_lowercase);
    if kind.is_some_and(|kind| kind != "object") {
        return Err("the arguments must be an object: use \"type\": \"object\"".into());
    }
    let mut plain = reader.node(schema, 0);
    if let Some(Value::Array(options)) = plain.remove("anyOf") {
        plain = any_of_objects(options);
    }
    let kind = plain.get("type").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind != "object") || plain.contains_key("enum") {
        return Err("the arguments must be an object: use \"type\": \"object\"".into());
    }
    plain.insert("type".into(), "object".into());
    plain.remove("description");
    plain.entry("properties").or_insert_with(|| json!({}));
    // A map has no names for its arguments, and only then they are free.
    let is_map = plain.get("properties").is_some_and(|names| names == &json!({}));
    if !is_map || !plain.get("additionalProperties").is_some_and(Value::is_object) {
        plain.insert("additionalProperties".into(), false.into());
    }
    Ok(plain.into())
}

/// Objects of which one is to be given: what any of them may have, and all must.
fn any_of_objects(options: Vec<Value>) -> Map<String, Value> {
    let mut all = Map::new();
    let mut required: Option<Vec<Value>> = None;
    for option in options {
        let Value::Object(mut option) = option else { continue };
        let own = match option.remove("required") {
            Some(Value::Array(own)) => own,
            _ => Vec::new(),
        };
        required = Some(match required {
            Some(earlier) => earlier.into_iter().filter(|name| own.contains(name)).collect(),
            None => own,
        });
        all = both(all, option);
    }
    all.insert("required".into(), required.unwrap_or_default().into());
    all
}

/// What is said by either of two schemas.
fn both(mut one: Map<String, Value>, other: Map<String, Value>) -> Map<String, Value> {
    for (key, value) in other {
        let earlier = one.remove(&key);
        let joined = match (key.as_str(), earlier, value) {
            (_, None, value) => value,
            ("properties", Some(Value::Object(mut earlier)), Value::Object(later)) => {
                for (name, schema) in later {
                    let joined = match (earlier.remove(&name), schema) {
                        (Some(Value::Object(one)), Value::Object(other)) => both(one, other).into(),
                        (_, schema) => schema,
                    };
                    earlier.insert(name, joined);
                }
                earlier.into()
            }
            ("required", Some(Value::Array(mut earlier)), Value::Array(later)) => {
                earlier.extend(
                    later.into_iter().filter(|name| !earlier.contains(name)).collect::<Vec<_>>(),
                );
                earlier.into()
            }
            (_, Some(earlier), _) => earlier,
        };
        one.insert(key, joined);
    }
    one
}

struct Reader<'a> {
    root: &'a Value,
    parts: usize,
}

impl Reader<'_> {
    /// The plain form; empty, which anything fits, where there is none.
    fn node(&mut self, schema: &Value, depth: usize) -> Map<String, Value> {
        self.parts += 1;
        let Value::Object(schema) = schema else { return Map::new() };
        if depth > MAX_DEPTH || self.parts > MAX_PARTS {
            return described(Map::new(), schema);
        }
        let mut plain = described(self.typed(schema, depth), schema);
        if let Some(target) = self.referred(schema) {
            plain = both(plain, self.node(&target, depth + 1));
        }
        for part in
            schema.get("allOf").and_then(Value::as_array).into_iter().flatten().take(MAX_CHOICES)
        {
            plain = both(plain, self.node(part, depth + 1));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(options)) = schema.get(key) {
                plain = both(plain, self.alternatives(options, depth));
            }
        }
        consistent(plain)
    }

    /// What a schema refers to.
    fn referred(&self, schema: &Map<String, Value>) -> Option<Value> {
        let path = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(path).cloned()
    }

    fn alternatives(&mut self, options: &[Value], depth: usize) -> Map<String, Value> {
        if options.len() > MAX_CHOICES {
            return Map::new();
        }
        let some = options.iter().filter(|option| option["type"] != "null");
        let some: Vec<_> = some.map(|option| self.node(option, depth + 1)).collect();
        // Where anything fits one of them, it fits all of them together.
        if some.iter().any(|option| option.keys().all(|key| key == "description")) {
            return Map::new();
        }
        match <[_; 1]>::try_from(some) {
            Ok([only]) => only,
            Err(some) if some.is_empty() => Map::new(),
            Err(some) => {
                let some = some.into_iter().map(Value::Object).collect();
                Map::from_iter([("anyOf".to_owned(), some)])
            }
        }
    }

    /// What the schema itself says.
    fn typed(&mut self, schema: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        if let Some(plain) = choices(schema) {
            return plain;
        }
        let kinds: Vec<String> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind.to_ascii_lowercase()],
            Some(Value::Array(kinds)) => {
                let some = kinds.iter().filter_map(Value::as_str).map(str::to_ascii_lowercase);
                some.filter(|kind| kind != "null").collect()
            }
            _ if schema.contains_key("properties") => vec!["object".to_owned()],
            _ => Vec::new(),
        };
        match kinds.as_slice() {
            [] => Map::new(),
            [kind] => self.of_kind(kind, schema, depth),
            kinds => {
                let options: Vec<_> =
                    kinds.iter().map(|kind| self.of_kind(kind, schema, depth)).collect();
                if options.iter().any(Map::is_empty) {
                    return Map::new();
                }
                let options = options.into_iter().map(Value::Object).collect();
                Map::from_iter([("anyOf".to_owned(), options)])
            }
        }
    }

    fn of_kind(
        &mut self,
        kind: &str,
        schema: &Map<String, Value>,
        depth: usize,
    ) -> Map<String, Value> {
        let mut plain = Map::from_iter([("type".to_owned(), kind.into())]);
        match kind {
            "object" => self.object(&mut plain, schema, depth),
            "array" => {
                let items = self.items(schema, depth);
                plain.insert("items".into(), items.into());
                lengths(&mut plain, schema, ["minItems", "maxItems"]);
            }
            "string" => lengths(&mut plain, schema, ["minLength", "maxLength"]),
            "integer" | "number" => range(&mut plain, schema, kind == "integer"),
            "boolean" => {}
            _ => plain.clear(),
        }
        plain
    }

    /// The items of a list; where each place has a schema of its own, any of those.
    fn items(&mut self, schema: &Map<String, Value>, depth: usize) -> Map<String, Value> {
        let places = schema.get("prefixItems").or_else(|| schema.get("items"));
        match places {
            Some(Value::Array(places)) => self.alternatives(places, depth),
            Some(items) => self.node(items, depth + 1),
            None => Map::new(),
        }
    }

    fn object(
        &mut self,
        plain: &mut Map<String, Value>,
        schema: &Map<String, Value>,
        depth: usize,
    ) {
        let free = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Map::new()),
            Some(values @ Value::Object(_)) => Some(self.node(values, depth + 1)),
            _ => None,
        };
        let Some(Value::Object(properties)) = schema.get("properties") else {
            plain.extend(free.map(|values| ("additionalProperties".to_owned(), values.into())));
            return;
        };
        let (mut known, mut required) = (Map::new(), Vec::new());
        for (name, property) in properties {
            // The model could not write it, and `false` fits nothing.
            let is_name =
                !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
            if !is_name || *property == Value::Bool(false) {
                continue;
            }
            if property.get("required") == Some(&true.into()) {
                required.push(Value::from(name.as_str()));
            }
            known.insert(name.clone(), self.node(property, depth + 1).into());
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if name.as_str().is_some_and(|name| known.contains_key(name))
                && !required.contains(name)
            {
                required.push(name.clone());
            }
        }
        // Where names are known, it is these that the model is to use.
        let others = free.filter(|_| known.is_empty()).map_or(Value::Bool(false), Value::Object);
        plain.insert("properties".into(), known.into());
        plain.insert("required".into(), required.into());
        plain.insert("additionalProperties".into(), others);
    }
}

/// Takes out what says more than one thing of a value: which would hold is not for a grammar to find out.
fn consistent(mut plain: Map<String, Value>) -> Map<String, Value> {
    let is_object = plain.get("type").is_some_and(|kind| kind == "object");
    if plain.contains_key("enum") {
        plain.retain(|key, _| key == "enum" || key == "description");
    } else if is_object && let Some(Value::Array(options)) = plain.remove("anyOf") {
        return both(plain, any_of_objects(options));
    } else if plain.contains_key("anyOf") {
        plain.retain(|key, _| key == "anyOf" || key == "description");
    }
    plain
}

/// With the description that stands beside it, shortened, and without what could be taken for a mark of the prompt.
fn described(mut plain: Map<String, Value>, schema: &Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::String(text)) = schema.get("description") {
        plain.entry("description").or_insert_with(|| short(text, MAX_DESCRIPTION).into());
    }
    plain
}

/// A text in one line, cut after so many characters.
pub fn short(text: &str, limit: usize) -> String {
    let words = text.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(limit).collect()
}

/// The values to choose from, where the schema names them. Of a list that is too long for a prompt only the type is left, and some
/// examples.
fn choices(schema: &Map<String, Value>) -> Option<Map<String, Value>> {
    let values = match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => std::slice::from_ref(only),
        (None, Some(Value::Array(values))) => values.as_slice(),
        _ => return None,
    };
    let some: Vec<&Value> = values.iter().filter(|value| !value.is_null()).collect();
    let is_plain = |value: &&Value| match value {
        Value::String(text) => text.chars().count() <= MAX_DESCRIPTION,
        other => !other.is_array() && !other.is_object(),
    };
    if some.is_empty() || !some.iter().all(is_plain) {
        return Some(Map::new());
    }
    if some.len() <= MAX_CHOICES {
        let some: Value = some.into_iter().cloned().collect();
        return Some(Map::from_iter([("enum".to_owned(), some)]));
    }
    let mut plain = Map::new();
    if some.iter().all(|value| value.is_string()) {
        plain.insert("type".into(), "string".into());
    }
    let named: Vec<String> = some.iter().take(SOME_CHOICES).map(ToString::to_string).collect();
    let own = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{own} One of {} values, such as {}", some.len(), named.join(", "));
    plain.insert("description".into(), short(&text, MAX_DESCRIPTION).into());
    Some(plain)
}

fn lengths(plain: &mut Map<String, Value>, schema: &Map<String, Value>, [least, most]: [&str; 2]) {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let low = bound(least).filter(|low| *low <= MAX_LENGTH);
    let high = bound(most)
        .map(|high| high.min(MAX_LENGTH))
        .filter(|high| low.is_none_or(|low| low <= *high));
    plain.extend(low.map(|low| (least.to_owned(), low.into())));
    plain.extend(high.map(|high| (most.to_owned(), high.into())));
}

fn range(plain: &mut Map<String, Value>, schema: &Map<String, Value>, whole: bool) {
    let bound = |key: &str| {
        schema.get(key).and_then(Value::as_f64).filter(|bound| bound.abs() <= MAX_BOUND)
    };
    // A bound that is itself outside is a step further where there are steps.
    let above = |low: f64| if whole { low.floor() + 1.0 } else { low };
    let below = |high: f64| if whole { high.ceil() - 1.0 } else { high };
    let low = [bound("minimum"), bound("exclusiveMinimum").map(above)];
    let high = [bound("maximum"), bound("exclusiveMaximum").map(below)];
    let low = low.into_iter().flatten().reduce(f64::max);
    let high = high.into_iter().flatten().reduce(f64::min);
    let (low, high) = if whole { (low.map(f64::ceil), high.map(f64::floor)) } else { (low, high) };
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        return;
    }
    let number = |number: f64| if whole { json!(number as i64) } else { json!(number) };
    plain.extend(low.map(|low| ("minimum".to_owned(), number(low))));
    plain.extend(high.map(|high| ("maximum".to_owned(), number(high))));
}

#[cfg(test)]
mod tests;
