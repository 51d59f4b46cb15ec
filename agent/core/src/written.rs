//! What people write, before a model reads it: the same letters in one form, without what cannot be seen.

use unicode_normalization::UnicodeNormalization as _;

/// A text in NFC, its lines ended by `\n`, without controls and marks of direction. Case, digits, quotes and emoji stay as they are.
pub fn normalized(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars().filter(|letter| is_seen(*letter)).nfc().collect()
}

/// Whether a character says something. What joins letters and emoji does.
fn is_seen(letter: char) -> bool {
    match letter {
        '\n' | '\t' => true,
        // Marks of direction, and of the order of bytes.
        '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => false,
        letter => !letter.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_goes_and_all_else_stays() {
        for (written, wanted) in [
            ("LOCK the Front Door 30%", "LOCK the Front Door 30%"),
            ("\u{201c}lock\u{201d} the door\u{2019}s", "\u{201c}lock\u{201d} the door\u{2019}s"),
            ("a\r\nb\rc\td", "a\nb\nc\td"),
            ("lo\0ck\u{7}", "lock"),
            ("\u{202e}lock\u{202c} \u{2067}x\u{2069}\u{200f}", "lock x"),
            ("cafe\u{301}", "caf\u{e9}"),
            ("\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{200d}\u{1f469}"),
            ("\u{feff}hi", "hi"),
        ] {
            assert_eq!(normalized(written), wanted);
        }
        let long = "a".repeat(100_000);
        assert_eq!(normalized(&long), long);
    }
}
