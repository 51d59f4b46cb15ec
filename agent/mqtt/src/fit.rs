//! Cuts a report to the size of a packet, before it is stored: cut and marked rather than lost.

use serde_json::Value;

/// Text is not cut below this many bytes.
const SHORT: usize = 256;
/// What stands at the end of a text that was cut.
const MARK: &str = "…";

/// Cuts the longest texts and lists of an object until its JSON has at most `limit` bytes, and marks it with `cut`. Fields of the
/// object itself stay, with the short ones whole.
pub(super) fn fit(object: &mut Value, limit: usize) {
    let mut length = object.to_string().len();
    if length <= limit {
        return;
    }
    if let Value::Object(fields) = object {
        fields.insert("cut".into(), true.into());
    }
    length += r#","cut":true"#.len();
    while length > limit {
        let Some(longest) = longest(object) else { return };
        cut(longest, length - limit);
        let now = object.to_string().len();
        if now >= length {
            return;
        }
        length = now;
    }
}

/// The text that takes most room; without a long one, the list or object below the outermost that has most entries.
fn longest(value: &mut Value) -> Option<&mut Value> {
    let text = texts(value).max().filter(|(length, _)| *length > SHORT);
    let place = match text {
        Some((_, place)) => place,
        None => containers(value).filter(|(length, _)| *length > 0).max()?.1,
    };
    value.pointer_mut(&place)
}

/// A value below another, as a JSON pointer.
fn below(place: &str, key: &str) -> String {
    format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn walk(value: &Value, place: &str, seen: &mut impl FnMut(&Value, &str)) {
    seen(value, place);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &below(place, &index.to_string()), seen);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                walk(field, &below(place, key), seen);
            }
        }
        _ => {}
    }
}

fn texts(value: &Value) -> impl Iterator<Item = (usize, String)> {
    let mut found = Vec::new();
    walk(value, "", &mut |value, place| {
        if let Value::String(text) = value {
            found.push((text.len(), place.to_owned()));
        }
    });
    found.into_iter()
}

fn containers(value: &Value) -> impl Iterator<Item = (usize, String)> {
    let mut found = Vec::new();
    walk(value, "", &mut |value, place| match value {
        Value::Array(items) => found.push((items.len(), place.to_owned())),
        Value::Object(fields) if !place.is_empty() => found.push((fields.len(), place.to_owned())),
        _ => {}
    });
    found.into_iter()
}

/// Takes about `excess` bytes away, half of a text or list at least.
fn cut(value: &mut Value, excess: usize) {
    match value {
        Value::String(text) => {
            // A character may take several bytes in JSON, so take no more than half at a time.
            let keep = text.len().saturating_sub(excess + MARK.len()).max(text.len() / 2);
            text.truncate(text.floor_char_boundary(keep.min(text.len() - MARK.len() - 1)));
            text.push_str(MARK);
        }
        Value::Array(items) => items.truncate(items.len() / 2),
        Value::Object(fields) => {
            let gone: Vec<String> = fields.keys().skip(fields.len() / 2).cloned().collect();
            for key in gone {
                fields.remove(&key);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let mut report = json!({ "id": "7", "text": "a".repeat(900) });
        let before = report.clone();
        fit(&mut report, 1000);
        assert_eq!(report, before);
    }

    #[test]
    fn what_is_too_long_is_cut_where_it_is_longest_and_marked() {
        let limit = 4000;
        let many: Vec<usize> = (0..5000).collect();
        let fields: serde_json::Map<String, Value> =
            (0..2000).map(|key| (format!("k/~{key}"), key.into())).collect();
        for long in [
            json!("a".repeat(100_000)),
            json!("\u{1}é\"".repeat(50_000)),
            json!({ "deep": ["short", { "text": "b".repeat(100_000) }] }),
            json!(many),
            json!({ "fields": fields }),
            json!(vec!["c".repeat(200); 1000]),
        ] {
            let mut report = json!({ "id": "7", "name": "set_light", "arguments": { "a": long },
                "outcome": { "status": "done", "result": long } });
            fit(&mut report, limit);
            assert!(report.to_string().len() <= limit);
            assert_eq!((&report["id"], &report["cut"]), (&json!("7"), &json!(true)));
            assert_eq!(report["name"], "set_light");
            assert_eq!(report["outcome"]["status"], "done");
        }
    }
}
