//! Names that are fit for a topic, a client id and Home Assistant.

/// Name of a device whose host has none.
const NAMELESS: &str = "outpost";

/// The host's name as an [`id`]: `mqtt.device` where the configuration has none, and `%H` in its texts.
pub(super) fn of_host() -> String {
    // The kernel has it, also of a container.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" | "(none)" => NAMELESS.into(),
        name => id(name),
    }
}

/// A device's name in letters, digits, `_` and `-`, for client ids and Home Assistant. Different names give different ids, and a
/// name of these characters is its own id, unless `_` stands beside another `_`: then, as for all else, each byte becomes `__` and
/// two hexadecimal digits.
pub fn id(device: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let letters: Vec<char> = device.chars().collect();
    let mut id = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let is_alone = || before.into_iter().chain(letters.get(at + 1)).all(|next| plain(*next));
        if plain(*letter) || (*letter == '_' && is_alone()) {
            id.push(*letter);
        } else {
            let mut bytes = [0; 4];
            let hex = |byte: u8| [u32::from(byte >> 4), u32::from(byte & 15)];
            for digit in letter.encode_utf8(&mut bytes).bytes().map(hex) {
                id.push_str("__");
                id.extend(digit.into_iter().filter_map(|digit| char::from_digit(digit, 16)));
            }
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_host_has_a_name_that_is_fit_for_a_topic() {
        let name = of_host();
        let fits = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        assert!(!name.is_empty() && name.chars().all(fits), "{name}");
    }

    #[test]
    fn names_that_differ_have_ids_that_differ() {
        for name in ["desk", "living_room", "kitchen-2", "A1"] {
            assert_eq!(id(name), name);
        }
        let mut names: Vec<String> =
            ["客厅", "厨房", "é", "e\u{301}", "living room", "living.room"]
                .map(str::to_owned)
                .into();
        // All short names of characters that could be taken for one another.
        let letters = ["_", "a", "5", "f", "é", " "];
        let mut words = vec![String::new()];
        for _ in 0..5 {
            words = words
                .iter()
                .flat_map(|word| letters.map(|letter| format!("{word}{letter}")))
                .collect();
            names.extend(words.clone());
        }
        names.extend(["__c3__a9", "_5f", "__5f", "a__20a", "a_ _a"].map(str::to_owned));
        names.sort();
        names.dedup();
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        for name in names {
            let known = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
            assert!(id(&name).chars().all(known), "{name}");
            let other = ids.insert(id(&name), name.clone());
            assert!(other.is_none(), "{name} and {other:?} are both {}", id(&name));
        }
    }
}
