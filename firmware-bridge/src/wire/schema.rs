//! Which protocol this build speaks.

/// Counts incompatible changes of the frame or of a message, from 1 to 15. Raise it with any change to the message table
/// but a message added at its end.
pub const PROTOCOL_VERSION: u8 = 2;

/// Fingerprint of the message table: two builds that agree on it agree on every message.
///
/// It is FNV-1a, 32 bits, over the source of the table without comments and white space.
pub const SCHEMA_HASH: u32 = fingerprint(include_str!("message.rs").as_bytes());

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which refuses a bad index")]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, which refuses overflow"
)]
const fn fingerprint(source: &[u8]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < source.len() {
        if source[at] == b'/' && at + 1 < source.len() && source[at + 1] == b'/' {
            while at < source.len() && source[at] != b'\n' {
                at += 1;
            }
        } else {
            if !source[at].is_ascii_whitespace() {
                hash = (hash ^ source[at] as u32).wrapping_mul(0x0100_0193);
            }
            at += 1;
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_table_needs_a_new_version() {
        assert_eq!(
            (PROTOCOL_VERSION, SCHEMA_HASH),
            (2, 0xdeb6_7af8),
            "the message table changed: raise PROTOCOL_VERSION unless a message was only added at its end, then record the \
             new pair here and in include/outpost_wire.h"
        );
    }

    #[test]
    fn comments_and_layout_do_not_count() {
        let hash = fingerprint(b"pub struct A { b: u8 }");
        assert_eq!(hash, fingerprint(b"/// Words.\npub struct A {\n    b: u8 // more\n}\n"));
        assert_ne!(hash, fingerprint(b"pub struct A { b: u16 }"));
    }
}
