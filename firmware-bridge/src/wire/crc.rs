//! The checksum of a frame.

use crc::{CRC_32_ISO_HDLC, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Bytes that the checksum takes at the end of a body.
pub(super) const LEN: usize = 4;

/// CRC-32/ISO-HDLC, the one of Ethernet and zlib, in the byte order of the wire.
pub(super) fn of(bytes: &[u8]) -> [u8; LEN] {
    CRC.checksum(bytes).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn standard_check_value() {
        assert_eq!(super::of(b"123456789"), 0xcbf4_3926_u32.to_le_bytes());
    }
}
