//! Sounds and pictures as files.

use std::path::{Path, PathBuf};

/// Samples a second of the sounds made here.
pub const RATE: u32 = 16_000;

/// Silence of a given length.
pub fn silence(seconds: f32) -> Vec<f32> {
    vec![0.0; (seconds * RATE as f32) as usize]
}

/// A tone, loud enough to be taken for speech.
pub fn tone(seconds: f32) -> Vec<f32> {
    (0..(seconds * RATE as f32) as usize).map(|i| 0.3 * (i as f32 * 0.2).sin()).collect()
}

/// Writes a mono WAV file of 16 bits.
///
/// # Errors
/// When the file cannot be written.
pub fn write_wav(path: &Path, samples: &[f32]) -> Result<PathBuf, hound::Error> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec)?;
    for sample in samples {
        writer.write_sample((sample * f32::from(i16::MAX)) as i16)?;
    }
    writer.finalize()?;
    Ok(path.to_owned())
}

/// Writes a grey picture.
///
/// # Errors
/// When the file cannot be written.
pub fn write_png(path: &Path, width: u32, height: u32) -> Result<PathBuf, image::ImageError> {
    image::RgbImage::from_pixel(width, height, image::Rgb([128; 3])).save(path)?;
    Ok(path.to_owned())
}
