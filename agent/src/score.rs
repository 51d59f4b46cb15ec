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
        self.add(
            &expected.split_whitespace().collect::<Vec<_>>(),
            &given.split_whitespace().collect::<Vec<_>>(),
        );
    }

    /// Adds a pair, by characters.
    pub fn add_chars(&mut self, expected: &str, given: &str) {
        self.add(&expected.chars().collect::<Vec<_>>(), &given.chars().collect::<Vec<_>>());
    }

    fn add<T: PartialEq>(&mut self, expected: &[T], given: &[T]) {
        self.errors += edit_distance(expected, given);
        self.length += expected.len();
    }

    /// Error rate; 0 for an empty set, and it can exceed 1.
    pub fn rate(self) -> f64 {
        self.errors as f64 / self.length.max(1) as f64
    }
}

/// Edit distance.
fn edit_distance<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
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
        for (a, b, distance) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0)]
        {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(edit_distance(&chars(a), &chars(b)), distance, "{a} to {b}");
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
