//! Picture files → [`Image`]: told by their first bytes, turned upright, laid on a ground where they are transparent.

use std::io::BufReader;
use std::path::Path;

use image::metadata::Orientation;
use image::{
    DynamicImage, GrayImage, ImageDecoder as _, ImageFormat, ImageReader, Limits, RgbImage,
};

use super::format::{Format, Kind, LFS};
use super::input::Input;
use super::jpeg;
use crate::error::{Error, Result};
use crate::request::Image;
use crate::vision;

/// Most bytes per pixel that a decoder may ask for: 16-bit RGBA, and as much to work in.
const BYTES_PER_PIXEL: u64 = 16;
/// A larger JPEG is decoded at half its size, pixels: the model sees about 7 million at most.
const LARGE: u64 = 16_000_000;
/// A larger JPEG file is refused, bytes.
const MAX_JPEG: u64 = 256 << 20;

impl Input<'_> {
    /// Reads the picture; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Image`] for what is no picture, damaged, or cannot be taken.
    pub(super) fn image(&self, path: Option<&Path>) -> Result<Image> {
        let fault = |reason: String| Error::Image { path: path.map(Path::to_owned), reason };
        let format = known(&self.head()?).map_err(fault)?;
        let rgb = match format {
            ImageFormat::Jpeg => {
                let bytes = self.read(MAX_JPEG + 1)?;
                if bytes.len() as u64 > MAX_JPEG {
                    return Err(fault(format!(
                        "has more than {} MB: scale it down",
                        MAX_JPEG >> 20
                    )));
                }
                decoded(
                    ImageReader::with_format(std::io::Cursor::new(&bytes), format),
                    Some(&bytes),
                )
            }
            format => {
                decoded(ImageReader::with_format(BufReader::new(self.source()?), format), None)
            }
        };
        let rgb = rgb.map_err(fault)?;
        Ok(Image { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw().into() })
    }
}

impl Input<'_> {
    /// How many pixels the picture has, from its header alone.
    ///
    /// # Errors
    /// [`Error::Image`] when there is no header of a picture.
    pub(super) fn pixels(&self) -> Result<u64> {
        let fault = |reason: String| Error::Image { path: None, reason };
        let format = known(&self.head()?).map_err(fault)?;
        let reader = ImageReader::with_format(BufReader::new(self.source()?), format);
        let (width, height) = reader
            .into_dimensions()
            .map_err(|error| fault(format!("is not a readable picture: {error}")))?;
        Ok(u64::from(width) * u64::from(height))
    }
}

/// Decodes a picture, of which `jpeg` is the whole where it is one.
fn decoded(
    mut reader: ImageReader<impl std::io::BufRead + std::io::Seek>,
    jpeg: Option<&[u8]>,
) -> Result<RgbImage, String> {
    let unreadable = |error: image::ImageError| format!("is not a readable picture: {error}");
    let mut limits = Limits::default();
    limits.max_alloc = Some(vision::MAX_PIXELS * BYTES_PER_PIXEL);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    vision::check_size(width, height)?;
    if jpeg.is_some_and(|bytes| !jpeg::is_whole(bytes)) {
        return Err("is cut short: its end is missing; copy or take it once more".into());
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let small = match jpeg.filter(|_| u64::from(width) * u64::from(height) > LARGE) {
        Some(bytes) => {
            jpeg::half(bytes).map_err(|error| format!("is not a readable picture: {error}"))?
        }
        None => None,
    };
    let mut picture = match small.and_then(|small| {
        if small.is_grey {
            GrayImage::from_raw(small.width, small.height, small.pixels).map(DynamicImage::from)
        } else {
            RgbImage::from_raw(small.width, small.height, small.pixels).map(DynamicImage::from)
        }
    }) {
        Some(picture) => picture,
        None => DynamicImage::from_decoder(decoder).map_err(unreadable)?,
    };
    picture.apply_orientation(orientation);
    Ok(if picture.color().has_alpha() { on_ground(picture) } else { picture.into_rgb8() })
}

/// A picture without its transparency: on white where what can be seen of it is dark, else on black.
fn on_ground(picture: DynamicImage) -> RgbImage {
    let picture = picture.into_rgba8();
    let (mut light, mut weight) = (0, 0);
    for pixel in picture.pixels() {
        let [red, green, blue, alpha] = pixel.0.map(u64::from);
        light += alpha * (299 * red + 587 * green + 114 * blue) / 1000;
        weight += alpha;
    }
    let ground: u32 = if light * 2 < weight * 255 { 255 } else { 0 };
    let (width, height) = picture.dimensions();
    let mut pixels = picture.into_raw();
    // In place: three bytes are written where four were read.
    for index in 0..pixels.len() / 4 {
        let alpha = u32::from(pixels[4 * index + 3]);
        for channel in 0..3 {
            let value = u32::from(pixels[4 * index + channel]);
            pixels[3 * index + channel] =
                ((value * alpha + ground * (255 - alpha) + 127) / 255) as u8;
        }
    }
    pixels.truncate(pixels.len() / 4 * 3);
    RgbImage::from_raw(width, height, pixels).unwrap_or_default()
}

/// The format of a picture.
fn known(head: &[u8]) -> Result<ImageFormat, String> {
    const READ: &str = "JPEG, PNG, WebP, GIF, TIFF and BMP are read";
    if head.is_empty() {
        return Err("is empty".into());
    }
    let Some(format) = Format::of(head) else {
        return Err(format!("is no picture of a known format: {READ}"));
    };
    match (format, format.kind()) {
        (Format::Jpeg, _) => Ok(ImageFormat::Jpeg),
        (Format::Png, _) => Ok(ImageFormat::Png),
        (Format::WebP, _) => Ok(ImageFormat::WebP),
        (Format::Gif, _) => Ok(ImageFormat::Gif),
        (Format::Tiff, _) => Ok(ImageFormat::Tiff),
        (Format::Bmp, _) => Ok(ImageFormat::Bmp),
        (Format::Unread(_, "git-lfs pointer"), _) => Err(LFS.into()),
        (Format::Unread(_, "HEIC"), _) => Err(
            "is HEIC, which is not read: convert it, as `heif-convert IN.heic OUT.jpg` does, or have the phone save \
             JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible)"
                .into(),
        ),
        (Format::Unread(_, "PDF document"), _) => {
            Err("is a PDF document: make pictures of its pages, as `pdftoppm -png IN.pdf OUT` does".into())
        }
        (format, Kind::Picture) => Err(format!(
            "is {}, which is not read: convert it, as `magick IN OUT.png` does",
            format.name()
        )),
        (format, Kind::Sound) => Err(format!("is {} sound or video, and no picture", format.name())),
        (format, Kind::Other) => Err(format!("is no picture, but a {}: {READ}", format.name())),
    }
}
