//! The tokens of Rust, as far as imports need them.

/// Whether a token is a name or a keyword.
pub(super) fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
}

/// Names and single signs, without comments, strings and characters.
pub(super) fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut index = 0;
    while index < chars.len() {
        let first = chars[index];
        index = if first == '/' && at(index + 1) == '/' {
            find(&chars, index, |rest| rest[0] == '\n')
        } else if first == '/' && at(index + 1) == '*' {
            end_of_comment(&chars, index)
        } else if let Some(end) = end_of_raw_string(&chars, index) {
            end
        } else if first == '"' {
            end_of_string(&chars, index)
        } else if first == '\'' && (at(index + 1) == '\\' || at(index + 2) == '\'') {
            // A character; a lifetime has no closing quote.
            let closing = if at(index + 1) == '\\' { index + 3 } else { index + 2 };
            find(&chars, closing, |rest| rest[0] == '\'') + 1
        } else if first.is_alphanumeric() || first == '_' {
            let end = find(&chars, index, |rest| !(rest[0].is_alphanumeric() || rest[0] == '_'));
            tokens.push(chars[index..end].iter().collect());
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            index + 1
        };
    }
    tokens
}

/// The first index from here on at which something is so, or the end.
fn find(chars: &[char], from: usize, is: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|index| is(&chars[*index..])).unwrap_or(chars.len())
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut index = from + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// Comments in `/* */` can be nested.
fn end_of_comment(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut index = from;
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

/// The end of `r"…"`, `r#"…"#` or `br"…"`, if one begins here.
fn end_of_raw_string(chars: &[char], from: usize) -> Option<usize> {
    let before = from.checked_sub(1).map(|index| chars[index]);
    if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
        return None;
    }
    let start = from + usize::from(chars[from] == 'b');
    if chars.get(start) != Some(&'r') {
        return None;
    }
    let hashes = chars[start + 1..].iter().take_while(|sign| **sign == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|sign| *sign == '#')
    };
    Some(find(chars, open + 1, closes) + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_characters_and_comments_are_no_tokens() {
        let text = "a::b /* c /* d */ e */ \"f \\\" g\" r#\"h \" i\"# 'j' '\\'' '\\\\' <'k> // l\nbr\"m\" n";
        assert_eq!(tokens(text).join(" "), "a : : b < ' k > n");
    }

    #[test]
    fn text_that_ends_too_early_ends() {
        for text in ["\"a", "r#\"a\"", "/* a", "'", "'\\", "r", "b", "\"\\"] {
            tokens(text);
        }
    }
}
