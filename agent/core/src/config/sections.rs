//! A configuration's tables, read one by one so that all their faults are found.

use serde::de::DeserializeOwned;

use crate::config::Faults;

/// With so many faults found, no more are looked for: each costs another reading of its table.
const MANY: usize = 100;

/// The tables of a file, taken out one by one.
pub(crate) struct Sections<'a> {
    pub(crate) table: &'a mut toml::Table,
    pub(crate) faults: &'a mut Faults,
}

impl Sections<'_> {
    /// Reads a table. A key that does not fit is noted and left out, and the rest is read again, so that one run finds all.
    pub(crate) fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(mut value) = self.table.remove(name) else { return T::default() };
        loop {
            let fault = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
                Ok(config) => return config,
                Err(fault) => fault,
            };
            let steps: Vec<String> = fault.path().iter().map(ToString::to_string).collect();
            let reason = fault.inner().message().trim().to_owned();
            let removed = remove(&mut value, &steps);
            let shown = removed.as_ref().map_or_else(String::new, ToString::to_string);
            self.faults.add(key(name, &steps), shown, reason);
            if removed.is_none() || self.faults.len() >= MANY {
                return T::default();
            }
        }
    }
}

fn key(section: &str, steps: &[String]) -> String {
    let mut key = section.to_owned();
    for step in steps.iter().filter(|step| *step != ".") {
        if !step.starts_with('[') {
            key.push('.');
        }
        key.push_str(step);
    }
    key
}

/// Takes the value at a path out of a table or array.
fn remove(value: &mut toml::Value, steps: &[String]) -> Option<toml::Value> {
    let (first, rest) = steps.split_first()?;
    match value {
        toml::Value::Table(table) if rest.is_empty() => table.remove(first),
        toml::Value::Table(table) => remove(table.get_mut(first)?, rest),
        toml::Value::Array(array) => {
            let index: usize = first.trim_matches(['[', ']']).parse().ok()?;
            if rest.is_empty() {
                (index < array.len()).then(|| array.remove(index))
            } else {
                remove(array.get_mut(index)?, rest)
            }
        }
        _ => None,
    }
}
