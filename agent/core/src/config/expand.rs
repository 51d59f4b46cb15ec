//! `%H` and `${NAME}` in the texts of the file, so that one image suits many devices.
//!
//! Only the file is treated so: a document that comes over MQTT must not read the environment.

use toml::Value;

use crate::config::Faults;

/// The host's name.
const HOST: &str = "%H";
/// `%H` itself.
const HOST_ITSELF: &str = "%%H";
/// The beginning of a variable's name.
const VARIABLE: &str = "${";
/// `${` itself.
const VARIABLE_ITSELF: &str = "$${";

/// What the places stand for.
pub(super) struct Places<'a> {
    host: &'a str,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Places<'a> {
    /// As this process has them.
    pub(super) fn of_this_machine(host: &'a str) -> Self {
        Self { host, environment: &|name| std::env::var(name).ok() }
    }

    /// Fills the places in all texts of a file. A variable that is not set is a fault, and its text stays as it is.
    pub(super) fn fill(&self, table: &mut toml::Table, faults: &mut Faults) {
        for (key, value) in table.iter_mut() {
            self.fill_value(value, key, faults);
        }
    }

    fn fill_value(&self, value: &mut Value, key: &str, faults: &mut Faults) {
        match value {
            Value::String(text) => match self.filled(text) {
                Ok(filled) => *text = filled,
                Err(unset) => faults.add(
                    key,
                    format!("{text:?}"),
                    format!(
                        "the environment variable {unset} is not set: set it, or write $${{{unset}}} for these characters"
                    ),
                ),
            },
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    self.fill_value(value, &format!("{key}[{index}]"), faults);
                }
            }
            Value::Table(table) => {
                for (name, value) in table.iter_mut() {
                    self.fill_value(value, &format!("{key}.{name}"), faults);
                }
            }
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    /// The text with its places filled, or the name of a variable that is not set.
    fn filled(&self, text: &str) -> Result<String, String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            let variable = rest.strip_prefix(VARIABLE).and_then(|rest| rest.split_once('}'));
            if let Some(after) = rest.strip_prefix(HOST_ITSELF) {
                filled.push_str(HOST);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(HOST) {
                filled.push_str(self.host);
                rest = after;
            } else if let Some(after) = rest.strip_prefix(VARIABLE_ITSELF) {
                filled.push_str(VARIABLE);
                rest = after;
            } else if let Some((name, after)) = variable.filter(|(name, _)| is_variable(name)) {
                filled.push_str(&(self.environment)(name).ok_or(name)?);
                rest = after;
            } else {
                // One character, and both are of one byte.
                filled.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn is_variable(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    name.chars().all(fits) && name.starts_with(|first: char| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places<'static> {
        Places {
            host: "board-7",
            environment: &|name| (name == "SITE").then(|| "${HOME} 100%H".to_owned()),
        }
    }

    #[test]
    fn places_are_filled_once_and_can_be_written_as_they_are() {
        for (text, wanted) in [
            ("kitchen-%H", "kitchen-board-7"),
            ("%H%H", "board-7board-7"),
            // What a variable holds is not looked into.
            ("${SITE}/x", "${HOME} 100%H/x"),
            ("date +%%H:%M", "date +%H:%M"),
            ("echo $${SITE}", "echo ${SITE}"),
            (
                "100 %, $5, ${}, ${1}, ${a b}, {SITE}, ${open",
                "100 %, $5, ${}, ${1}, ${a b}, {SITE}, ${open",
            ),
            ("Zürich %", "Zürich %"),
        ] {
            assert_eq!(places().filled(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_a_fault_with_its_key() {
        let mut table: toml::Table =
            "[mqtt]\ndevice = '%H'\n[[tool]]\nprocess = ['a', '${NOWHERE}']\n".parse().unwrap();
        let mut faults = Faults::default();
        places().fill(&mut table, &mut faults);
        assert_eq!(table["mqtt"]["device"].as_str(), Some("board-7"));
        let text = faults.to_string();
        for part in ["tool[0].process[1]", "NOWHERE is not set", "$${NOWHERE}"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
