//! Parses a configuration table by table, so that all faults are found in one run.

use outpost_tools::fault::plainly;
use serde::de::DeserializeOwned;

use crate::config::Faults;

/// Stop after this many faults: each costs another pass over its table.
const MANY: usize = 100;

/// Takes tables out of a file.
pub(crate) struct Sections<'a> {
    pub(crate) table: &'a mut toml::Table,
    pub(crate) faults: &'a mut Faults,
}

impl Sections<'_> {
    /// Parses a table. An invalid key is recorded and removed, and the rest parsed again.
    pub(crate) fn take<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let Some(mut value) = self.table.remove(name) else { return T::default() };
        loop {
            let fault = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
                Ok(config) => return config,
                Err(fault) => fault,
            };
            let steps: Vec<String> = fault.path().iter().map(ToString::to_string).collect();
            let reason = plainly(fault.inner().message().trim());
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
