//! WAV and picture files → [`Audio`] and [`Image`], with bounds checked before anything large is read.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use hound::{SampleFormat, WavReader};
use image::{ImageReader, Limits};

use crate::audio;
use crate::error::{Error, Result};
use crate::request::{Audio, Image};
use crate::vision;

/// File name extensions of the pictures that can be read.
pub const PICTURES: [&str; 4] = ["png", "jpg", "jpeg", "bmp"];
/// Most bytes per pixel that a decoder may ask for: 16-bit RGBA, and as much to work in.
const BYTES_PER_PIXEL: u64 = 16;

/// Reads a WAV file: integers of 8 to 32 bits or floats, channels mixed to their mean.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened, [`Error::Audio`] naming it when it is no WAV, ends early, or cannot be taken.
pub fn read_wav(path: &Path) -> Result<Audio> {
    wav(BufReader::new(open(path)?), Some(path))
}

/// As [`read_wav`], from memory.
///
/// # Errors
/// [`Error::Audio`] when the bytes are no WAV, end early, or cannot be taken.
pub fn wav_from_bytes(bytes: &[u8]) -> Result<Audio> {
    wav(bytes, None)
}

/// Reads a PNG, JPEG or BMP file. An alpha channel is dropped, an EXIF rotation is not applied, as in the reference.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened, [`Error::Image`] naming it when it is no picture, is damaged, or too large.
pub fn read_image(path: &Path) -> Result<Image> {
    picture(|| Ok(BufReader::new(open(path)?)), Some(path))
}

/// As [`read_image`], from memory.
///
/// # Errors
/// [`Error::Image`] when the bytes are no picture, are damaged, or of a picture too large.
pub fn image_from_bytes(bytes: &[u8]) -> Result<Image> {
    picture(|| Ok(Cursor::new(bytes)), None)
}

fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.is_dir() {
        return Err(Error::io(path)(std::io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

fn wav(reader: impl Read, path: Option<&Path>) -> Result<Audio> {
    let fault = |reason: String| Error::Audio { path: path.map(Path::to_owned), reason };
    let unreadable = |error: hound::Error| {
        fault(match error {
            // What comes from the system has a code; what the reader says itself is that there are too few bytes.
            hound::Error::IoError(error) if error.raw_os_error().is_some() => error.to_string(),
            hound::Error::IoError(_) => "is empty or cut short".to_owned(),
            hound::Error::FormatError(reason) => format!("is not a WAV file: {reason}"),
            other => format!("cannot be read as WAV: {other}"),
        })
    };
    let mut reader = WavReader::new(reader).map_err(unreadable)?;
    let spec = reader.spec();
    audio::check_length(u64::from(reader.duration()), spec.sample_rate).map_err(fault)?;
    let samples = match spec.sample_format {
        SampleFormat::Float => mixed(reader.samples::<f32>(), spec.channels),
        SampleFormat::Int => {
            let scale = (1u64 << (spec.bits_per_sample - 1)) as f32;
            let samples = reader.samples::<i32>().map(|sample| Ok(sample? as f32 / scale));
            mixed(samples, spec.channels)
        }
    };
    Ok(Audio { samples: samples.map_err(unreadable)?.into(), rate: spec.sample_rate })
}

/// Mean over the channels. Grows with what is there, whatever the header says.
fn mixed(
    samples: impl Iterator<Item = hound::Result<f32>>,
    channels: u16,
) -> hound::Result<Vec<f32>> {
    let mut mono = Vec::new();
    let (mut sum, mut seen) = (0.0, 0);
    for sample in samples {
        sum += sample?;
        seen += 1;
        if seen == channels {
            mono.push(sum / f32::from(channels));
            (sum, seen) = (0.0, 0);
        }
    }
    Ok(mono)
}

fn picture<R: BufRead + Seek>(open: impl Fn() -> Result<R>, path: Option<&Path>) -> Result<Image> {
    let fault = |reason: String| Error::Image { path: path.map(Path::to_owned), reason };
    let reader = || {
        let reader = ImageReader::new(open()?)
            .with_guessed_format()
            .map_err(|error| fault(error.to_string()))?;
        match reader.format() {
            Some(_) => Ok(reader),
            None => Err(fault("is not a picture: only PNG, JPEG and BMP are known".to_owned())),
        }
    };
    let unreadable =
        |error: image::ImageError| fault(format!("is not a readable picture: {error}"));
    let (width, height) = reader()?.into_dimensions().map_err(unreadable)?;
    vision::check_size(width, height).map_err(fault)?;

    let mut limits = Limits::default();
    limits.max_alloc = Some(vision::MAX_PIXELS * BYTES_PER_PIXEL);
    let mut reader = reader()?;
    reader.limits(limits);
    let rgb = reader.decode().map_err(unreadable)?.into_rgb8();
    Ok(Image { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw().into() })
}

#[cfg(test)]
mod tests {
    use hound::{WavSpec, WavWriter};
    use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

    use super::*;

    fn spec(channels: u16, bits_per_sample: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate: 16_000, bits_per_sample, sample_format }
    }

    fn written<S: hound::Sample + Copy>(spec: WavSpec, frame: &[S]) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for sample in frame.repeat(400) {
            writer.write_sample(sample).unwrap();
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_format_gives_the_same_samples() {
        for bytes in [
            written(spec(1, 8, SampleFormat::Int), &[-64i8]),
            written(spec(1, 16, SampleFormat::Int), &[-16_384i16]),
            written(spec(1, 24, SampleFormat::Int), &[-4_194_304i32]),
            written(spec(1, 32, SampleFormat::Int), &[-1_073_741_824i32]),
            written(spec(1, 32, SampleFormat::Float), &[-0.5f32]),
            written(spec(2, 16, SampleFormat::Int), &[0i16, -32_768]),
            written(spec(3, 32, SampleFormat::Float), &[-1.5f32, 0.0, 0.0]),
        ] {
            let audio = wav_from_bytes(&bytes).unwrap();
            assert_eq!((audio.rate, &*audio.samples), (16_000, &[-0.5; 400][..]));
        }
    }

    #[test]
    fn unusable_sounds_are_typed() {
        let whole = written(spec(1, 16, SampleFormat::Int), &[1i16]);
        let mut hour = whole.clone();
        hour[40..44].copy_from_slice(&(3_600u32 * 32_000).to_le_bytes());
        for (bytes, text) in [
            (&[][..], "empty or cut short"),
            (b"this is plain text, not sound", "not a WAV file"),
            (&whole[..30], "cut short"),
            (&whole[..500], "cut short"),
            (&hour, "3600.0 s long, but at most 1800 s"),
            (&written::<i16>(spec(1, 16, SampleFormat::Int), &[]), "0.000 s long"),
        ] {
            let fault = wav_from_bytes(bytes).unwrap_err();
            assert!(
                matches!(&fault, Error::Audio { reason, .. } if reason.contains(text)),
                "{fault}"
            );
        }
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn alpha_is_dropped() {
        let picture =
            DynamicImage::ImageRgba8(RgbaImage::from_pixel(12, 11, Rgba([10, 20, 30, 0])));
        let image = image_from_bytes(&encoded(&picture, ImageFormat::Png)).unwrap();
        assert_eq!(
            (image.width, image.height, &image.rgb[..6]),
            (12, 11, &[10, 20, 30, 10, 20, 30][..])
        );
    }

    #[test]
    fn unusable_pictures_are_typed() {
        let grey =
            |width, height| encoded(&DynamicImage::new_luma8(width, height), ImageFormat::Png);
        for (bytes, text) in [
            (vec![], "not a picture"),
            (b"this is plain text, not a picture".to_vec(), "not a picture"),
            (grey(64, 64)[..40].to_vec(), "not a readable picture"),
            (grey(10_000, 5_100), "10000x5100 is 51.0 megapixels"),
        ] {
            let fault = image_from_bytes(&bytes).unwrap_err();
            assert!(
                matches!(&fault, Error::Image { reason, .. } if reason.contains(text)),
                "{fault}"
            );
        }
    }

    #[test]
    fn faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.bin");
        assert!(read_wav(&path).unwrap_err().to_string().contains("noise.bin"));
        std::fs::write(&path, "neither").unwrap();
        assert!(read_wav(&path).unwrap_err().to_string().contains("noise.bin"));
        assert!(read_image(&path).unwrap_err().to_string().contains("noise.bin"));
        assert!(matches!(read_image(dir.path()), Err(Error::Io { .. })));
    }
}
