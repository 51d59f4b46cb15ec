use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use image::metadata::Orientation;
use image::{DynamicImage, ImageEncoder as _, ImageFormat, Rgba, RgbaImage};

use super::*;
use crate::Error;

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

/// A chunk without its pad byte.
fn chunk(id: &[u8], size: u32, content: &[u8]) -> Vec<u8> {
    [id, &size.to_le_bytes()[..], content].concat()
}

fn riff(form: &[u8], size: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
    [&form[..4], &size.to_le_bytes(), &form[4..], &chunks.concat()].concat()
}

/// The content of `fmt ` for samples of 16 kHz.
fn format(tag: u16, channels: u16, bits: u16) -> Vec<u8> {
    let block = channels * bits.div_ceil(8);
    let bytes = 16_000 * u32::from(block);
    let words = |words: [u16; 2]| words.map(u16::to_le_bytes).concat();
    let longs = [16_000, bytes].map(u32::to_le_bytes).concat();
    [words([tag, channels]), longs, words([block, bits])].concat()
}

/// 400 samples of 16 bits, from -0.5 on.
fn samples() -> Vec<u8> {
    (0..400i16).flat_map(|index| (index - 16_384).to_le_bytes()).collect()
}

fn expected() -> Vec<f32> {
    (0..400i16).map(|index| f32::from(index - 16_384) / 32_768.0).collect()
}

fn heard(bytes: &[u8]) -> Vec<f32> {
    let audio = wav_from_bytes(bytes).unwrap();
    assert_eq!(audio.rate, 16_000);
    audio.samples.to_vec()
}

fn reason(bytes: &[u8]) -> String {
    match wav_from_bytes(bytes) {
        Err(Error::Audio { reason, path: None }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_format_gives_the_same_samples() {
    for bytes in [
        written(spec(1, 8, SampleFormat::Int), &[-64i8]),
        written(spec(1, 16, SampleFormat::Int), &[-16_384i16]),
        written(spec(1, 24, SampleFormat::Int), &[-4_194_304i32]),
        written(spec(1, 32, SampleFormat::Int), &[-1_073_741_824i32]),
        written(spec(1, 32, SampleFormat::Float), &[-0.5f32]),
        written(spec(2, 16, SampleFormat::Int), &[-16_384i16, -16_384]),
    ] {
        assert_eq!(heard(&bytes), [-0.5; 400]);
    }
    let doubles = (-0.5f64).to_le_bytes().repeat(400);
    let data = chunk(b"data", doubles.len() as u32, &doubles);
    let fmt = chunk(b"fmt ", 16, &format(3, 1, 64));
    assert_eq!(heard(&riff(b"RIFFWAVE", 0, &[fmt, data])), [-0.5; 400]);
}

/// As programs leave them that write to a pipe: ffmpeg, sox, arecord, `GStreamer`, and any that was stopped.
#[test]
fn sizes_that_were_never_written_are_those_of_what_is_there() {
    let fmt = chunk(b"fmt ", 16, &format(1, 1, 16));
    for (whole, data) in [
        (u32::MAX, u32::MAX),
        (0, 0),
        (836, 0),
        (0x7fff_f024, 0x7fff_f000),
        (0x8000_0024, 0x8000_0000),
        (u32::MAX, 0xffff_ffdb),
    ] {
        for odd in [&[][..], &[7]] {
            let data = chunk(b"data", data, &[&samples(), odd].concat());
            assert_eq!(heard(&riff(b"RIFFWAVE", whole, &[fmt.clone(), data])), expected());
        }
    }
}

#[test]
fn chunks_may_be_odd_and_stand_in_any_order() {
    let fmt = chunk(b"fmt ", 16, &format(1, 1, 16));
    let data = chunk(b"data", 800, &samples());
    let odd = chunk(b"LIST", 27, &[b'x'; 27]);
    let padded = [odd.clone(), vec![0]].concat();
    let title = chunk(b"INFO", 4, b"name");
    for chunks in [
        vec![fmt.clone(), padded.clone(), data.clone()],
        vec![fmt.clone(), odd.clone(), data.clone()],
        vec![data.clone(), fmt.clone()],
        vec![padded, data.clone(), title.clone(), fmt.clone()],
        vec![fmt.clone(), data, title.clone()],
    ] {
        assert_eq!(heard(&riff(b"RIFFWAVE", 0, &chunks)), expected());
    }
    // No samples, and a chunk behind them, is not samples of unknown number.
    let empty = riff(b"RIFFWAVE", 0, &[fmt, chunk(b"data", 0, &[]), title]);
    assert!(reason(&empty).contains("0.000 s long"));
}

#[test]
fn large_and_foreign_headers_are_read() {
    let data = chunk(b"data", u32::MAX, &[&samples()[..], b"beyond"].concat());
    let sizes = [836u64, 800].map(u64::to_le_bytes).concat();
    let ds64 = chunk(b"ds64", 28, &[sizes, vec![0; 12]].concat());
    let fmt = chunk(b"fmt ", 16, &format(1, 1, 16));
    assert_eq!(heard(&riff(b"RF64WAVE", u32::MAX, &[ds64, fmt, data])), expected());

    // 24 bits at the upper end of 32, with the true tag in a longer `fmt `.
    let mut long = format(0xfffe, 1, 32);
    long.extend([22u16.to_le_bytes(), 24u16.to_le_bytes()].concat());
    long.extend([[0; 4], [1, 0, 0, 0]].concat());
    long.extend(b"\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
    let words = (-0.5f32 * 2f32.powi(31)) as i32;
    let data = chunk(b"data", 1600, &words.to_le_bytes().repeat(400));
    let fmt = chunk(b"fmt ", long.len() as u32, &long);
    assert_eq!(heard(&riff(b"RIFFWAVE", 0, &[fmt, data])), [-0.5; 400]);
}

/// AIFF, and AIFF-C with its bytes the other way round.
#[test]
fn aiff_is_read() {
    let rate = [0x40, 0x0c, 0xfa, 0, 0, 0, 0, 0, 0, 0];
    let head = [&[0, 1, 0, 0, 1, 0x90, 0, 16][..], &rate].concat();
    let big = |id: &[u8; 4], content: &[u8]| {
        [id, &(content.len() as u32).to_be_bytes()[..], content].concat()
    };
    let swapped: Vec<u8> = samples().chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    let sound = |samples: &[u8]| big(b"SSND", &[&[0; 8], samples].concat());
    let form = |kind: &[u8], chunks: &[Vec<u8>]| [b"FORM\0\0\0\0", kind, &chunks.concat()].concat();
    let plain = form(b"AIFF", &[big(b"COMM", &head), sound(&swapped)]);
    assert_eq!(heard(&plain), expected());
    let little = [&head[..], b"sowt\0\0"].concat();
    let little = form(b"AIFC", &[sound(&samples()), big(b"COMM", &little)]);
    assert_eq!(heard(&little), expected());
}

#[test]
fn unusable_sounds_are_typed() {
    let whole = written(spec(1, 16, SampleFormat::Int), &[1i16]);
    let mut hour = whole.clone();
    hour[40..44].copy_from_slice(&(3_600u32 * 32_000).to_le_bytes());
    let data = chunk(b"data", 800, &samples());
    let with = |tag, bits| {
        riff(b"RIFFWAVE", 0, &[chunk(b"fmt ", 16, &format(tag, 1, bits)), data.clone()])
    };
    for (bytes, text) in [
        (&[][..], "is empty"),
        (b"this is plain text, not sound", "no sound of a known format: WAV, AIFF"),
        (&whole[..15], "no `fmt ` chunk"),
        (&whole[..30], "`fmt ` chunk that is cut short"),
        (&whole[..500], "cut short: its header promises 800 bytes of sound, and 456 are there"),
        (&hour, "3600.0 s long, but at most 1800 s"),
        (&written::<i16>(spec(1, 16, SampleFormat::Int), &[]), "0.000 s long"),
        (&with(0x31, 0), "GSM 6.10"),
        (&with(0x161, 16), "WMA"),
        (&with(0x1234, 16), "unknown codec 0x1234"),
        (&with(1, 64), "integers of 64 bits"),
        (b"\x89PNG\r\n\x1a\n", "is a picture (PNG), and no sound"),
        (b"#!AMR\n", "AMR, which is not read: convert it, as `ffmpeg"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "is no sound, but a PDF document"),
    ] {
        let reason = reason(bytes);
        assert!(reason.contains(text), "{reason}");
    }
}

#[test]
fn the_channel_that_speaks_is_heard() {
    let bytes = |gains: &[f32]| {
        let mut bytes = Cursor::new(Vec::new());
        let spec = spec(gains.len() as u16, 32, SampleFormat::Float);
        let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
        for index in 0..1600 {
            for gain in gains {
                writer.write_sample((index as f32 * 0.1).sin() * gain).unwrap();
            }
        }
        writer.finalize().unwrap();
        bytes.into_inner()
    };
    let peak = |gains: &[f32], channel| {
        let audio = audio_from_bytes(&bytes(gains), channel).unwrap();
        audio.samples.iter().fold(0.0f32, |most, sample| most.max(sample.abs()))
    };
    let near =
        |value: f32, wanted: f32| assert!((value - wanted).abs() < 0.01, "{value} for {wanted}");
    near(peak(&[0.5, -0.5], Channel::Auto), 0.5);
    near(peak(&[0.5, -0.5], Channel::Mix), 0.0);
    near(peak(&[0.0, 0.0, 0.6, 0.0, 0.0, 0.0], Channel::Auto), 0.6);
    near(peak(&[0.0, 0.0, 0.6, 0.0, 0.0, 0.0], Channel::Mix), 0.1);
    near(peak(&[0.6, 0.4], Channel::Auto), 0.5);
    near(peak(&[0.6, 0.4], Channel::Only(2)), 0.4);
    let fault = audio_from_bytes(&bytes(&[0.6, 0.4]), Channel::Only(3)).unwrap_err();
    assert!(fault.to_string().contains("2 channels, and no channel 3"), "{fault}");
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The reason why the bytes are no picture.
fn no_picture(bytes: &[u8]) -> String {
    match image_from_bytes(bytes) {
        Err(Error::Image { reason, path: None }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_transparent_lies_on_a_ground_that_contrasts() {
    for (ink, ground) in [([10, 20, 30], 255), ([240, 230, 250], 0)] {
        let picture = RgbaImage::from_fn(12, 11, |x, _| match x {
            0 => Rgba([ink[0], ink[1], ink[2], 255]),
            // What is hidden has a colour too, which is not to be seen.
            _ => Rgba([ink[0], ink[1], ink[2], 0]),
        });
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let image = image_from_bytes(&encoded(&picture.clone().into(), format)).unwrap();
            assert_eq!((image.width, image.height), (12, 11));
            assert_eq!(image.rgb[..6], [ink[0], ink[1], ink[2], ground, ground, ground]);
        }
    }
    let half = RgbaImage::from_pixel(4, 4, Rgba([0, 0, 0, 51]));
    let image = image_from_bytes(&encoded(&half.into(), ImageFormat::Png)).unwrap();
    assert_eq!(image.rgb[..3], [204; 3]);
}

/// EXIF with nothing but an orientation.
fn exif(orientation: Orientation) -> Vec<u8> {
    let mut bytes = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    bytes.extend([orientation.to_exif(), 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[test]
fn pictures_come_upright() {
    let upright = DynamicImage::from(image::RgbImage::from_fn(48, 32, |x, y| {
        image::Rgb([if x < 24 { 20 } else { 230 }, if y < 16 { 20 } else { 230 }, 128])
    }));
    // What a camera that is held otherwise stores, and says how to turn back.
    for (stored, orientation) in [
        (upright.clone(), Orientation::NoTransforms),
        (upright.rotate270(), Orientation::Rotate90),
        (upright.rotate180(), Orientation::Rotate180),
        (upright.rotate90(), Orientation::Rotate270),
        (upright.fliph(), Orientation::FlipHorizontal),
        (upright.flipv(), Orientation::FlipVertical),
        (upright.fliph().rotate270(), Orientation::Rotate90FlipH),
        (upright.fliph().rotate90(), Orientation::Rotate270FlipH),
    ] {
        let (width, height) = (stored.width(), stored.height());
        let kind = stored.color().into();
        let (mut jpeg, mut png, mut webp) = (Vec::new(), Vec::new(), Vec::new());
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(stored.as_bytes(), width, height, kind).unwrap();
        let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(stored.as_bytes(), width, height, kind).unwrap();
        let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        encoder.write_image(stored.as_bytes(), width, height, kind).unwrap();
        for (bytes, name) in [(jpeg, "JPEG"), (png, "PNG"), (webp, "WebP")] {
            let image = image_from_bytes(&bytes).unwrap();
            assert_eq!((image.width, image.height), (48, 32), "{name} {orientation:?}");
            let wanted = upright.as_bytes();
            let differ = image.rgb.iter().zip(wanted).filter(|(a, b)| a.abs_diff(**b) > 40).count();
            assert!(differ < wanted.len() / 20, "{name} {orientation:?}: {differ} differ");
        }
    }
}

#[test]
fn every_kind_of_picture_is_read() {
    let picture =
        DynamicImage::from(image::RgbImage::from_pixel(20, 14, image::Rgb([200, 100, 50])));
    for format in
        [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Tiff, ImageFormat::Bmp]
    {
        let image = image_from_bytes(&encoded(&picture, format)).unwrap();
        assert_eq!((image.width, image.height), (20, 14), "{format:?}");
        assert_eq!(image.rgb[..3], [200, 100, 50], "{format:?}");
    }
    for deep in [DynamicImage::from(picture.to_rgb16()), picture.to_rgba16().into()] {
        for format in [ImageFormat::Png, ImageFormat::Tiff] {
            assert_eq!(image_from_bytes(&encoded(&deep, format)).unwrap().rgb[..3], [200, 100, 50]);
        }
    }
    let grey = DynamicImage::from(picture.to_luma16());
    let rgb = image_from_bytes(&encoded(&grey, ImageFormat::Png)).unwrap().rgb;
    assert!(rgb[..3].iter().all(|value| value.abs_diff(116) < 3), "{:?}", &rgb[..3]);
}

/// Every place within the scan, whatever the kind of JPEG: what is missing would be grey.
#[test]
fn a_cut_jpeg_is_an_error() {
    let picture =
        image::RgbImage::from_fn(160, 120, |x, y| image::Rgb([(x * y) as u8, x as u8, y as u8]));
    let whole = encoded(&picture.into(), ImageFormat::Jpeg);
    assert!(image_from_bytes(&whole).is_ok());
    for percent in [5, 25, 50, 75, 95, 99] {
        let reason = no_picture(&whole[..whole.len() * percent / 100]);
        assert!(reason.contains("cut short") || percent == 5, "{percent}: {reason}");
    }
    // The rest of a file that was never downloaded.
    let mut hole = whole[..whole.len() / 2].to_vec();
    hole.resize(whole.len(), 0);
    assert!(no_picture(&hole).contains("cut short"));
    // What some programs put behind a picture is not part of it.
    assert!(image_from_bytes(&[&whole[..], b"trailer"].concat()).is_ok());
}

#[test]
fn a_large_jpeg_is_decoded_at_half_its_size() {
    let picture = DynamicImage::new_luma8(6000, 4001);
    let image = image_from_bytes(&encoded(&picture, ImageFormat::Jpeg)).unwrap();
    assert_eq!((image.width, image.height), (3000, 2001));
    assert!(image.rgb.iter().all(|value| *value == 0));
}

#[test]
fn unusable_pictures_are_typed() {
    let grey = |width, height| encoded(&DynamicImage::new_luma8(width, height), ImageFormat::Png);
    for (bytes, text) in [
        (vec![], "is empty"),
        (b"this is plain text, not a picture".to_vec(), "no picture of a known format: JPEG, PNG"),
        (grey(64, 64)[..40].to_vec(), "not a readable picture"),
        (grey(10_000, 5_100), "10000x5100 is 51.0 megapixels"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec(), "HEIC, which is not read: convert it"),
        (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a".to_vec(), "JPEG XL, which is not read"),
        (b"%PDF-1.7".to_vec(), "pdftoppm"),
        (b"RIFF\0\0\0\0WAVEfmt ".to_vec(), "is WAV sound or video"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
    ] {
        let reason = no_picture(&bytes);
        assert!(reason.contains(text), "{reason}");
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
