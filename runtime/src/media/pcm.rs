//! Samples that are written one by one, as integers, floats or by the laws of telephony.

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One byte, the middle is 128.
    Unsigned8,
    /// So many bytes, 1 to 4.
    Signed(u8),
    Float32,
    Float64,
    ALaw,
    MuLaw,
}

/// An encoding, and the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pcm {
    pub(super) encoding: Encoding,
    pub(super) big_endian: bool,
}

impl Pcm {
    /// Bytes of a sample.
    pub(super) fn bytes(self) -> usize {
        match self.encoding {
            Encoding::Unsigned8 | Encoding::ALaw | Encoding::MuLaw => 1,
            Encoding::Signed(width) => usize::from(width),
            Encoding::Float32 => 4,
            Encoding::Float64 => 8,
        }
    }

    /// The samples of whole ones, in `[-1, 1]`.
    pub(super) fn unpack(self, bytes: &[u8], out: &mut Vec<f32>) {
        out.clear();
        out.extend(bytes.chunks_exact(self.bytes()).map(|bytes| self.sample(bytes)));
    }

    fn sample(self, bytes: &[u8]) -> f32 {
        // The bytes at the upper end of a word, the lowest first.
        let mut word = [0; 8];
        let upper = &mut word[8 - bytes.len()..];
        upper.copy_from_slice(bytes);
        if self.big_endian {
            upper.reverse();
        }
        match self.encoding {
            Encoding::Unsigned8 => (f32::from(bytes[0]) - 128.0) / 128.0,
            Encoding::Signed(_) => (i64::from_le_bytes(word) >> 32) as f32 / 2f32.powi(31),
            Encoding::Float32 => f32::from_bits((u64::from_le_bytes(word) >> 32) as u32),
            Encoding::Float64 => f64::from_le_bytes(word) as f32,
            Encoding::ALaw => f32::from(a_law(bytes[0])) / 32_768.0,
            Encoding::MuLaw => f32::from(mu_law(bytes[0])) / 32_768.0,
        }
    }
}

/// ITU-T G.711, A-law: a sign, three bits of exponent, four of mantissa, every other bit inverted.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = (byte >> 4 & 7, i16::from(byte & 15) << 4);
    let size = match exponent {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -size } else { size }
}

/// ITU-T G.711, mu-law: as A-law, with all bits inverted and an offset.
fn mu_law(byte: u8) -> i16 {
    const BIAS: i16 = 0x84;
    let byte = !byte;
    let size = ((i16::from(byte & 15) << 3) + BIAS) << (byte >> 4 & 7);
    if byte & 0x80 == 0 { size - BIAS } else { BIAS - size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_gives_the_same_samples() {
        let le = |encoding| Pcm { encoding, big_endian: false };
        let be = |encoding| Pcm { encoding, big_endian: true };
        for (pcm, bytes) in [
            (le(Encoding::Unsigned8), &[0x40][..]),
            (le(Encoding::Signed(1)), &[0xc0]),
            (le(Encoding::Signed(2)), &[0, 0xc0]),
            (be(Encoding::Signed(2)), &[0xc0, 0]),
            (le(Encoding::Signed(3)), &[0, 0, 0xc0]),
            (be(Encoding::Signed(3)), &[0xc0, 0, 0]),
            (le(Encoding::Signed(4)), &[0, 0, 0, 0xc0]),
            (le(Encoding::Float32), &[0, 0, 0, 0xbf]),
            (be(Encoding::Float32), &[0xbf, 0, 0, 0]),
            (le(Encoding::Float64), &[0, 0, 0, 0, 0, 0, 0xe0, 0xbf]),
            (be(Encoding::Float64), &[0xbf, 0xe0, 0, 0, 0, 0, 0, 0]),
        ] {
            let mut samples = Vec::new();
            pcm.unpack(&bytes.repeat(3), &mut samples);
            assert_eq!(samples, [-0.5; 3], "{pcm:?}");
        }
    }

    /// The ends and the middle of both laws, as in the tables of G.711.
    #[test]
    fn the_laws_of_telephony_are_those_of_g_711() {
        assert_eq!([0xd5, 0x55, 0xaa, 0x2a, 0x80].map(a_law), [8, -8, 32_256, -32_256, 5504]);
        assert_eq!([0xff, 0x7f, 0x80, 0x00, 0xf0].map(mu_law), [0, 0, 32_124, -32_124, 120]);
    }
}
