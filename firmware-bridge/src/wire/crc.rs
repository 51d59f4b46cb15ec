//! The checksum of a frame.

use super::Identity;
use crc::{CRC_16_IBM_SDLC, CRC_32_ISO_HDLC, Crc};

const CRC_32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const CRC_16: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

/// How frames are checked. Both ends of a line have to use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Check {
    /// CRC-32/ISO-HDLC, the one of Ethernet and zlib.
    #[default]
    Crc32,
    /// CRC-16/IBM-SDLC, also known as X-25: two bytes less a frame, for slow lines with little noise.
    Crc16,
}

impl Check {
    /// Bytes that the checksum takes at the end of a body.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Crc32 => 4,
            Self::Crc16 => 2,
        }
    }

    /// The checksum over a key and the bytes of a body, little-endian; the first [`Check::len`] bytes count.
    pub(super) fn of(self, key: Key, bytes: &[u8]) -> [u8; 4] {
        match self {
            Self::Crc32 => {
                let mut digest = CRC_32.digest();
                digest.update(&key.0.to_le_bytes());
                digest.update(bytes);
                digest.finalize().to_le_bytes()
            }
            Self::Crc16 => {
                let mut digest = CRC_16.digest();
                digest.update(&key.0.to_le_bytes());
                digest.update(bytes);
                u32::from(digest.finalize()).to_le_bytes()
            }
        }
    }
}

/// What a checksum covers besides the body: frames of another session, or an echo, fail their check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u32);

impl Key {
    /// The key of hellos, which belong to no session.
    pub const OPEN: Self = Self(0);

    /// The key of the frames that one end sends to the other.
    pub fn between(from: Identity, to: Identity) -> Self {
        let mut digest = CRC_32.digest();
        for end in [from, to] {
            digest.update(&end.boot.to_le_bytes());
            digest.update(&end.epoch.to_le_bytes());
        }
        Self(digest.finalize())
    }

    /// The number itself.
    pub const fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_check_values() {
        assert_eq!(CRC_32.checksum(b"123456789"), 0xcbf4_3926);
        assert_eq!(CRC_16.checksum(b"123456789"), 0x906e);
    }

    #[test]
    fn each_direction_and_session_has_its_key() {
        let a = Identity { boot: 1, epoch: 0 };
        let b = Identity { boot: 2, epoch: 0 };
        let later = Identity { epoch: 1, ..a };
        assert_ne!(Key::between(a, b), Key::between(b, a));
        assert_ne!(Key::between(a, b), Key::between(later, b));
        assert_ne!(
            Check::Crc32.of(Key::between(a, b), b"x"),
            Check::Crc32.of(Key::between(later, b), b"x")
        );
    }
}
