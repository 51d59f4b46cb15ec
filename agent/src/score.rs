//! Word and character error rates.

/// Errors and reference length, summed over a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorRate {
    errors: usize,
    length: usize,
}

impl ErrorRate {
    /// Adds a pair, by words.
    pub fn add_words(&mut self, expected: &str, given: &str) {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let given: Vec<&str> = given.split_whitespace().collect();
        self.errors += strsim::generic_levenshtein(&expected, &given);
        self.length += expected.len();
    }

    /// Adds a pair, by characters.
    pub fn add_chars(&mut self, expected: &str, given: &str) {
        self.errors += strsim::levenshtein(expected, given);
        self.length += expected.chars().count();
    }

    /// Error rate; 0 for an empty set, and it can exceed 1.
    pub fn rate(self) -> f64 {
        self.errors as f64 / self.length.max(1) as f64
    }
}

/// Normalizes a transcript: lower case, no punctuation.
pub fn plain_words(text: &str) -> String {
    let letters: String = text
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '\'' { c } else { ' ' })
        .flat_map(char::to_lowercase)
        .collect();
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_insertions_deletions_and_substitutions() {
        for (expected, given, errors) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            let mut rate = ErrorRate::default();
            rate.add_chars(expected, given);
            assert_eq!(rate, ErrorRate { errors, length: expected.len() }, "{expected} to {given}");
        }
    }

    #[test]
    fn rates_are_over_the_whole_set() {
        let mut rate = ErrorRate::default();
        rate.add_words("turn on the light", "turn off the light");
        rate.add_words("stop", "stop");
        assert!((rate.rate() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn plain_words_lose_case_and_punctuation() {
        assert_eq!(plain_words("  Turn on, the Light!  What's up"), "turn on the light what's up");
    }
}
