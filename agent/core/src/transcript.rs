//! Matching transcripts: is it a yes, does it contain the wake phrase.

/// Whether a transcript is one of these phrases, and nothing else.
pub fn is_yes(said: &str, yes: &[String]) -> bool {
    let said = plain(said);
    !said.is_empty() && yes.iter().any(|words| plain(words) == said)
}

fn plain(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.join(" ")
}

/// Whether a transcript contains a phrase, allowing one wrong letter in three.
pub fn is_said(phrase: &str, transcript: &str) -> bool {
    let letters = |text: &str| -> Vec<char> {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let phrase = letters(phrase);
    let transcript = letters(transcript);
    // Edit distance of the phrase to any substring of the transcript, by columns.
    let mut costs: Vec<usize> = (0..=phrase.len()).collect();
    let mut least = costs[phrase.len()];
    for heard in transcript {
        let mut diagonal = 0;
        for (index, letter) in phrase.iter().enumerate() {
            let changed = diagonal + usize::from(*letter != heard);
            diagonal = costs[index + 1];
            costs[index + 1] = changed.min(diagonal + 1).min(costs[index] + 1);
        }
        least = least.min(costs[phrase.len()]);
    }
    least * 3 <= phrase.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicyConfig;

    #[test]
    fn a_phrase_is_found_within_what_was_said_give_or_take() {
        for (transcript, said) in [
            ("hey jarvis", true),
            ("and then he said Hey, Jarvis!", true),
            ("hay jarvus turn on", true),
            ("turn on the light", false),
            ("", false),
        ] {
            assert_eq!(is_said("Hey Jarvis", transcript), said, "{transcript}");
        }
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        let yes = PolicyConfig::default().yes;
        for said in ["Yes.", " yes, please!", "YEAH", "Go ahead.", "do it"] {
            assert!(is_yes(said, &yes), "{said}");
        }
        for said in
            ["", "...", "no", "yes no", "yes but not now", "yesterday", "do not do it", "ja"]
        {
            assert!(!is_yes(said, &yes), "{said}");
        }
    }
}
