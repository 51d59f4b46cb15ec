//! What the decoders of JPEG do not tell: where a picture ends, and whether it is whole.

use jpeg_decoder::{Decoder, PixelFormat};

/// The end of the JPEG that begins at `start`, or where it stops being one. Its segments are passed over by their lengths:
/// a thumbnail in one of them is a JPEG with an end of its own.
pub(crate) fn end(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let byte = |at: usize| bytes.get(at).copied().ok_or(bytes.len());
    let mut at = start + 2;
    loop {
        if byte(at)? != 0xFF {
            return Err(at);
        }
        let marker = byte(at + 1)?;
        match marker {
            // Any number of these may stand before a marker.
            0xFF => at += 1,
            0xD9 => return Ok(at + 2),
            0x00 | 0xD8 => return Err(at),
            0x01 | 0xD0..=0xD7 => at += 2,
            _ => {
                let length = u16::from_be_bytes([byte(at + 2)?, byte(at + 3)?]);
                at += 2 + usize::from(length.max(2));
            }
        }
        if marker == 0xDA {
            // The data of a scan: within it, `FF` is followed by 0 or by the number of a restart.
            let is_data = |next: u8| matches!(next, 0x00 | 0xD0..=0xD7);
            while byte(at)? != 0xFF || is_data(byte(at + 1)?) {
                at += 1;
            }
        }
    }
}

/// Whether a JPEG has its end. What is missing a decoder fills up with grey, which would be read as a scene.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    match end(bytes, 0) {
        Ok(_) => true,
        // Between segments some programs leave bytes that are none; decoders pass over them.
        Err(at) => {
            bytes.get(at..).is_some_and(|rest| rest.windows(2).any(|pair| pair == [0xFF, 0xD9]))
        }
    }
}

/// A picture that was decoded at a part of its size.
pub(super) struct Scaled {
    pub(super) width: u32,
    pub(super) height: u32,
    /// As `image` has it: one byte a pixel, or three.
    pub(super) is_grey: bool,
    pub(super) pixels: Vec<u8>,
}

/// Decodes a large JPEG at half its size: in the frequencies, without the memory that all of it would take. None for colours
/// that this decoder does not convert.
///
/// # Errors
/// What the decoder says.
pub(super) fn half(bytes: &[u8]) -> Result<Option<Scaled>, jpeg_decoder::Error> {
    let mut decoder = Decoder::new(bytes);
    decoder.read_info()?;
    let Some(info) = decoder.info() else { return Ok(None) };
    let is_grey = match info.pixel_format {
        PixelFormat::L8 => true,
        PixelFormat::RGB24 => false,
        PixelFormat::L16 | PixelFormat::CMYK32 => return Ok(None),
    };
    let (width, height) = decoder.scale(info.width.div_ceil(2), info.height.div_ceil(2))?;
    let pixels = decoder.decode()?;
    Ok(Some(Scaled { width: width.into(), height: height.into(), is_grey, pixels }))
}
