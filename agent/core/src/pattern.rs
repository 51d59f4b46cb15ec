//! Text patterns of the watch list. Pure.

use regex::{Regex, RegexBuilder};

/// Memory limit of a regular expression, bytes.
const REGEX_SIZE: usize = 1 << 20;

/// A pattern.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    Exact(String),
    Contains(String),
    Wildcard(String),
    Regex(Regex),
    Fuzzy { text: String, distance: usize },
}

impl Pattern {
    pub(crate) fn exact(text: &str) -> Self {
        Self::Exact(normal(text))
    }

    pub(crate) fn contains(text: &str) -> Self {
        Self::Contains(normal(text))
    }

    pub(crate) fn wildcard(text: &str) -> Self {
        Self::Wildcard(normal(text))
    }

    pub(crate) fn regex(text: &str) -> Result<Self, regex::Error> {
        let regex =
            RegexBuilder::new(text).case_insensitive(true).size_limit(REGEX_SIZE).build()?;
        Ok(Self::Regex(regex))
    }

    pub(crate) fn fuzzy(text: &str, distance: usize) -> Self {
        Self::Fuzzy { text: normal(text), distance }
    }

    /// Whether a text matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text = normal(text);
        match self {
            Self::Exact(pattern) => *pattern == text,
            Self::Contains(pattern) => text.contains(pattern),
            Self::Wildcard(pattern) => wildcard(pattern, &text),
            Self::Regex(pattern) => pattern.is_match(&text),
            Self::Fuzzy { text: pattern, distance } => fuzzy(pattern, *distance, &text),
        }
    }
}

/// Normalizes: upper case, single spaces.
pub(crate) fn normal(text: &str) -> String {
    text.split_whitespace().map(str::to_uppercase).collect::<Vec<_>>().join(" ")
}

/// Whether the text, or a run of as many words as the pattern has, is within `distance` edits of
/// it.
fn fuzzy(pattern: &str, distance: usize, text: &str) -> bool {
    let near = |text: &str| strsim::levenshtein(pattern, text) <= distance;
    let words: Vec<&str> = text.split(' ').collect();
    let length = pattern.split(' ').count();
    near(text) || words.windows(length).any(|run| near(&run.join(" ")))
}

/// Whether `text` matches a `*`/`?` pattern. Linear memory, quadratic time at worst.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let mut p = 0;
    let mut t = 0;
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &Pattern, table: &[(&str, bool)]) {
        for (text, fits) in table {
            assert_eq!(pattern.matches(text), *fits, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn texts_fit_whole_parts_and_patterns() {
        check(&Pattern::exact("Exit 4"), &[("EXIT  4", true), ("EXIT 45", false)]);
        check(&Pattern::contains("danger"), &[("HIGH DANGER ZONE", true), ("HIGH ANGER", false)]);
        let table = [
            ("B-AB 123", true),
            ("B-AB 1", true),
            ("B-ABC 123", false),
            ("XB-AB 123", false),
            ("B-AB 2", false),
        ];
        check(&Pattern::wildcard("b-?? 1*"), &table);
        let plate = Pattern::regex(r"^[a-z]{1,3}-[a-z]{1,2} \d{1,4}$").unwrap();
        check(&plate, &[("B-AB 123", true), ("b-ab\n123", true), ("B-AB 12345", false)]);
    }

    #[test]
    fn fuzzy_forgives_a_few_letters_anywhere_in_the_text() {
        let table = [
            ("B-AB 123", true),
            ("8-A8 123", true),
            ("8-A8 l23", false),
            ("PARKED: B-A8 123 SINCE NOON", true),
            ("", false),
        ];
        check(&Pattern::fuzzy("B-AB 123", 2), &table);
    }

    #[test]
    fn stars_backtrack() {
        for (pattern, text, fits) in [
            ("*A*B", "XAYAB", true),
            ("A*", "A", true),
            ("*", "", true),
            ("A*C", "ABCD", false),
            ("", "", true),
        ] {
            assert_eq!(wildcard(pattern, text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_regular_expression_that_would_eat_the_memory_is_refused() {
        assert!(Pattern::regex(r"((\w{100}){100}){100}").is_err());
        assert!(Pattern::regex("(").is_err());
    }
}
