//! Sound and picture files → [`Audio`] and [`Image`], with bounds checked before anything large is read. `docs/inputs.md` lists
//! what is accepted.

mod channel;
mod coded;
mod format;
mod input;
pub(crate) mod jpeg;
mod pcm;
mod picture;
mod sound;
mod wav;

use std::path::Path;

pub use channel::{Channel, ChannelError, Mixer};

use self::input::Input;
use crate::error::{Error, Result};
use crate::request::{Audio, Image};
use crate::vision::MAX_PIXELS;

/// File name extensions of the pictures that can be read.
pub const PICTURES: [&str; 9] = ["png", "jpg", "jpeg", "webp", "gif", "tif", "tiff", "bmp", "dib"];
/// File name extensions of the sounds that can be read.
pub const SOUNDS: [&str; 17] = [
    "wav", "wave", "aif", "aiff", "aifc", "flac", "mp3", "aac", "m4a", "m4b", "mp4", "ogg", "oga",
    "opus", "webm", "mka", "mkv",
];

/// Reads a sound file of any known format, as its first bytes tell.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened, [`Error::Audio`] naming it when it is no
/// sound, is damaged, or cannot be taken.
pub fn read_audio(path: &Path, channel: Channel) -> Result<Audio> {
    Input::open(path)?.audio(channel, Some(path))
}

/// As [`read_audio`], from memory.
///
/// # Errors
/// [`Error::Audio`] when the bytes are no sound, are damaged, or cannot be taken.
pub fn audio_from_bytes(bytes: &[u8], channel: Channel) -> Result<Audio> {
    Input::Bytes(bytes.into()).audio(channel, None)
}

/// Reads a picture file of any known format, as its first bytes tell. It comes upright, as its EXIF data have it, and what is
/// transparent on a ground that contrasts with it; of several pictures in a file the first is taken.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened, [`Error::Image`] naming it when it is no
/// picture, is damaged, or too large.
pub fn read_image(path: &Path) -> Result<Image> {
    Input::open(path)?.image(Some(path))
}

/// As [`read_image`], from memory.
///
/// # Errors
/// [`Error::Image`] when the bytes are no picture, are damaged, or of a picture too large.
pub fn image_from_bytes(bytes: &[u8]) -> Result<Image> {
    Input::Bytes(bytes.into()).image(None)
}

/// Pictures that are held in memory together: as [`image_from_bytes`], and all of them have at most as many pixels as one may have,
/// which is seen before any is decoded.
///
/// # Errors
/// As [`image_from_bytes`], or when they are too large together.
pub fn images_from_bytes(pictures: &[Vec<u8>]) -> Result<Vec<Image>> {
    let mut pixels = 0;
    for picture in pictures {
        pixels += Input::Bytes(picture.into()).pixels()?;
    }
    if pixels > MAX_PIXELS {
        let reason = format!(
            "the {} pictures have {:.1} megapixels together, but at most {} are taken: scale them down",
            pictures.len(),
            pixels as f64 / 1e6,
            MAX_PIXELS / 1_000_000
        );
        return Err(Error::Image { path: None, reason });
    }
    pictures.iter().map(|picture| image_from_bytes(picture)).collect()
}

/// [`read_audio`] with [`Channel::Auto`].
///
/// # Errors
/// As [`read_audio`].
pub fn read_wav(path: &Path) -> Result<Audio> {
    read_audio(path, Channel::Auto)
}

/// [`audio_from_bytes`] with [`Channel::Auto`].
///
/// # Errors
/// As [`audio_from_bytes`].
pub fn wav_from_bytes(bytes: &[u8]) -> Result<Audio> {
    audio_from_bytes(bytes, Channel::Auto)
}

#[cfg(test)]
mod tests;
