//! Sound card bytes → mono samples in `[-1, 1]`.

use outpost_runtime::media::Mixer;

/// Sample encoding, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Unsigned, 8 bits.
    U8,
    /// 16 bits.
    S16,
    /// 24 bits in three bytes.
    S24Packed,
    /// 24 bits in the lower part of four bytes.
    S24,
    /// 32 bits.
    S32,
    /// Floating point, 32 bits.
    Float,
}

impl Encoding {
    /// Bytes per sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::S16 => 2,
            Self::S24Packed => 3,
            Self::S24 | Self::S32 | Self::Float => 4,
        }
    }

    fn sample(self, bytes: &[u8]) -> f32 {
        let mut word = [0; 4];
        let (skipped, bits) = match self {
            Self::U8 => return (f32::from(bytes[0]) - 128.0) / 128.0,
            Self::S16 => (2, &bytes[..2]),
            // The upper byte is undefined.
            Self::S24Packed | Self::S24 => (1, &bytes[..3]),
            Self::S32 | Self::Float => (0, &bytes[..4]),
        };
        word[skipped..].copy_from_slice(bits);
        if self == Self::Float {
            let sample = f32::from_le_bytes(word);
            return if sample.is_finite() { sample } else { 0.0 };
        }
        i32::from_le_bytes(word) as f32 / 2f32.powi(31)
    }
}

/// Mixes the channels to mono. An incomplete frame is dropped.
pub fn mix_down(
    bytes: &[u8],
    (encoding, channels): (Encoding, usize),
    mixer: &mut Mixer,
    mono: &mut Vec<f32>,
) {
    let length = encoding.bytes();
    let mut samples = Vec::with_capacity(channels);
    mono.extend(bytes.chunks_exact(length * channels.max(1)).map(|frame| {
        samples.clear();
        samples.extend(frame.chunks_exact(length).map(|bytes| encoding.sample(bytes)));
        mixer.mix(&samples)
    }));
}

#[cfg(test)]
mod tests {
    use outpost_runtime::media::Channel;

    use super::*;

    #[test]
    fn every_encoding_gives_the_same_samples() {
        let minus_half = [
            (Encoding::U8, vec![0x40]),
            (Encoding::S16, (-16_384i16).to_le_bytes().to_vec()),
            (Encoding::S24Packed, vec![0, 0, 0xc0]),
            (Encoding::S24, vec![0, 0, 0xc0, 0x55]),
            (Encoding::S32, (-1_073_741_824i32).to_le_bytes().to_vec()),
            (Encoding::Float, (-0.5f32).to_le_bytes().to_vec()),
        ];
        for (encoding, bytes) in minus_half {
            let mut mono = Vec::new();
            mix_down(&bytes.repeat(6), (encoding, 2), &mut Mixer::new(Channel::Auto), &mut mono);
            assert_eq!(mono, [-0.5; 3], "{encoding:?}");
        }
    }

    #[test]
    fn channels_are_mixed_or_chosen_and_a_float_that_is_no_number_is_silence() {
        let frame = [1.0f32, 0.0, -0.25, f32::NAN].map(f32::to_le_bytes).concat();
        let mut mono = Vec::new();
        let bytes = [frame.as_slice(), &[1, 2]].concat();
        mix_down(&bytes, (Encoding::Float, 4), &mut Mixer::new(Channel::Mix), &mut mono);
        mix_down(&bytes, (Encoding::Float, 4), &mut Mixer::new(Channel::Only(3)), &mut mono);
        assert_eq!(mono, [0.1875, -0.25]);
    }
}
