//! Raw camera buffers → [`Image`]. Pure: a damaged picture is a [`FrameError`], never a wrong
//! image.

use outpost_agent_core::config::PixelFormat;
use outpost_runtime::Image;
use outpost_runtime::media::image_from_bytes;

/// Layout of a raw picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelLayout {
    /// Its format.
    pub format: PixelFormat,
    /// Pixels per row; ignored for JPEG.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Stride in bytes; 0 if rows are contiguous.
    pub stride: u32,
}

/// A damaged picture. The next one may be intact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// An empty buffer.
    #[error("the camera sent a picture of 0 bytes")]
    Empty,
    /// Too few bytes for the format.
    #[error(
        "the camera sent {have} bytes where {need} make a picture: a bad cable or too little USB bandwidth"
    )]
    Short {
        /// Bytes sent.
        have: usize,
        /// Bytes of a whole picture.
        need: usize,
    },
    /// Rows that overlap.
    #[error(
        "rows of {need} bytes cannot lie {stride} bytes apart: the driver's bytesperline is wrong; try another camera.format"
    )]
    Stride {
        /// Bytes from row to row.
        stride: usize,
        /// Bytes of a row.
        need: usize,
    },
    /// No pixels, or too many.
    #[error(
        "a picture of {width}x{height} cannot be used: set camera.size to one that the camera offers"
    )]
    Size {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// The driver marked it as damaged.
    #[error("the driver marked the picture as damaged")]
    Marked,
    /// A JPEG without its end.
    #[error("the JPEG of {0} bytes is cut short: a bad cable or too little USB bandwidth")]
    CutShort(usize),
    /// No JPEG at all.
    #[error("not a JPEG that can be read: {0}")]
    Jpeg(String),
}

/// Maximum number of pixels.
const MAX_PIXELS: u64 = 50_000_000;

/// Decodes a raw picture.
///
/// # Errors
/// [`FrameError`] saying what is wrong with it.
pub fn to_image(bytes: &[u8], layout: PixelLayout) -> Result<Image, FrameError> {
    if bytes.is_empty() {
        return Err(FrameError::Empty);
    }
    let PixelLayout { format, width, height, .. } = layout;
    if format == PixelFormat::Mjpg {
        return jpeg(bytes);
    }
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(FrameError::Size { width, height });
    }
    let w = width as usize;
    let h = height as usize;
    let mut rgb = Vec::with_capacity(w * h * 3);
    match format {
        PixelFormat::Yuyv => {
            for row in rows(bytes, w.div_ceil(2) * 4, h, layout.stride)? {
                yuyv_row(row, w, &mut rgb);
            }
        }
        PixelFormat::Nv12 => nv12(bytes, layout, &mut rgb)?,
        PixelFormat::Rgb3 => {
            rows(bytes, w * 3, h, layout.stride)?.for_each(|row| rgb.extend_from_slice(row));
        }
        PixelFormat::Grey => {
            for row in rows(bytes, w, h, layout.stride)? {
                rgb.extend(row.iter().flat_map(|luma| [*luma; 3]));
            }
        }
        PixelFormat::Mjpg => {}
    }
    Ok(Image { width, height, rgb: rgb.into() })
}

/// `count` rows of `length` bytes. The last one may lack padding.
fn rows(
    bytes: &[u8],
    length: usize,
    count: usize,
    stride: u32,
) -> Result<impl Iterator<Item = &[u8]>, FrameError> {
    let stride = if stride == 0 { length } else { stride as usize };
    if stride < length {
        return Err(FrameError::Stride { stride, need: length });
    }
    let need = stride * (count - 1) + length;
    if bytes.len() < need {
        return Err(FrameError::Short { have: bytes.len(), need });
    }
    Ok(bytes.chunks(stride).take(count).map(move |row| &row[..length]))
}

fn yuyv_row(row: &[u8], width: usize, rgb: &mut Vec<u8>) {
    let pairs = row.chunks_exact(4);
    let end = rgb.len() + width * 3;
    for pair in pairs {
        let [y0, u, y1, v] = [pair[0], pair[1], pair[2], pair[3]];
        let chroma = Chroma::new(u, v);
        rgb.extend(chroma.rgb(y0));
        rgb.extend(chroma.rgb(y1));
    }
    rgb.truncate(end);
}

fn nv12(bytes: &[u8], layout: PixelLayout, rgb: &mut Vec<u8>) -> Result<(), FrameError> {
    let w = layout.width as usize;
    let h = layout.height as usize;
    let stride = if layout.stride == 0 { w } else { layout.stride as usize };
    let chroma_length = w.div_ceil(2) * 2;
    let chroma_rows = h.div_ceil(2);
    let luma: Vec<&[u8]> = rows(bytes, w, h, layout.stride)?.collect();
    let start = stride * h;
    let need = start + stride.max(chroma_length) * (chroma_rows - 1) + chroma_length;
    if bytes.len() < need {
        return Err(FrameError::Short { have: bytes.len(), need });
    }
    let chroma_stride = stride.max(chroma_length) as u32;
    let chroma = rows(&bytes[start..], chroma_length, chroma_rows, chroma_stride)?;
    for (lumas, chroma) in luma.chunks(2).zip(chroma) {
        for row in lumas {
            for (pair, uv) in row.chunks(2).zip(chroma.chunks_exact(2)) {
                let chroma = Chroma::new(uv[0], uv[1]);
                for luma in pair {
                    rgb.extend(chroma.rgb(*luma));
                }
            }
        }
    }
    Ok(())
}

/// Contribution of the chroma samples to red, green and blue: ITU-R BT.601, studio range, 8
/// fractional bits.
struct Chroma {
    red: i32,
    green: i32,
    blue: i32,
}

impl Chroma {
    fn new(u: u8, v: u8) -> Self {
        let d = i32::from(u) - 128;
        let e = i32::from(v) - 128;
        Self { red: 409 * e + 128, green: 128 - 100 * d - 208 * e, blue: 516 * d + 128 }
    }

    fn rgb(&self, luma: u8) -> [u8; 3] {
        let c = 298 * (i32::from(luma) - 16);
        [self.red, self.green, self.blue].map(|add| ((c + add) >> 8).clamp(0, 255) as u8)
    }
}

/// The marker that selects the standard Huffman tables of Motion JPEG.
const AVI1: [u8; 16] = *b"\xff\xe0\x00\x0eAVI1\0\0\0\0\0\0\0\0";

fn jpeg(bytes: &[u8]) -> Result<Image, FrameError> {
    if !bytes.starts_with(b"\xff\xd8") {
        return Err(FrameError::Jpeg("it does not begin like one".to_owned()));
    }
    // Decoders pad a truncated picture with grey, which would be read as a scene.
    if !bytes.windows(2).rev().any(|pair| pair == b"\xff\xd9") {
        return Err(FrameError::CutShort(bytes.len()));
    }
    let whole = if has_tables(bytes) {
        image_from_bytes(bytes)
    } else {
        image_from_bytes(&[&bytes[..2], &AVI1, &bytes[2..]].concat())
    };
    whole.map_err(|error| FrameError::Jpeg(error.to_string()))
}

/// Whether Huffman tables precede the first scan.
fn has_tables(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some([0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xc4 => return true,
            0xda => return false,
            _ => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
        }
    }
    // Malformed: leave it to the decoder.
    true
}
