//! Argument types → JSON Schema in the plain form that grammar and prompt are made from: no references, no titles, and an
//! optional argument is one that may be left out, not one that may be null.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The schema of an argument struct. Properties are in the order of its fields.
pub fn of<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let Value::Object(mut schema) =
        settings.into_generator().into_root_schema_for::<A>().to_value()
    else {
        return Value::Object(Map::new());
    };
    schema.remove("title");
    schema.remove("description");
    schema.insert("additionalProperties".into(), Value::Bool(false));
    let properties = schema.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(properties) = properties {
        properties.values_mut().for_each(plain);
    }
    Value::Object(schema)
}

/// Takes `null` out of an optional argument.
fn plain(property: &mut Value) {
    let Value::Object(property) = property else { return };
    property.remove("format");
    property.remove("default");
    if let Some(Value::Array(options)) = property.remove("anyOf")
        && let Some(Value::Object(some)) =
            options.into_iter().find(|option| option["type"] != "null")
    {
        let own = std::mem::replace(property, some);
        property.extend(own);
    }
    if let Some(Value::Array(types)) = property.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            property.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = property.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}
