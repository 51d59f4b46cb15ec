//! The frames of a video clip, as pictures: a folder of them, a Y4M file, or MJPEG (JPEGs one behind the other).
//!
//! A clip is shown to the model as some frames at even distances; none but these are decoded.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::media::{PICTURES, image_from_bytes, jpeg, read_image};
use crate::request::Image;

/// Longest side of a Y4M frame.
const SIDE: usize = 8192;

/// Reads at most `count` frames of a clip at even distances, the first one always among them.
///
/// # Errors
/// [`Error::Io`] when the clip cannot be read, [`Error::Image`] naming it when it holds no frame or a damaged one.
pub fn read_frames(path: &Path, count: usize) -> Result<Vec<Image>> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let frames = match extension.as_str() {
        _ if path.is_dir() => folder(path, count),
        "y4m" => y4m(path, count),
        "mjpeg" | "mjpg" => mjpeg(path, count),
        _ => Err(fault(path, "is no clip: only folders of pictures, .y4m and .mjpeg are known")),
    }?;
    if frames.is_empty() {
        return Err(fault(path, "holds no frame"));
    }
    Ok(frames)
}

fn fault(path: &Path, reason: impl Into<String>) -> Error {
    Error::Image { path: Some(path.to_owned()), reason: reason.into() }
}

/// Places of `count` among `all`, at even distances.
fn spread(all: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (0..count).map(move |index| index * all / count)
}

fn folder(dir: &Path, count: usize) -> Result<Vec<Image>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let is_picture = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        PICTURES.contains(&extension.as_str())
    };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_picture).collect();
    files.sort_unstable();
    spread(files.len(), count).map(|index| read_image(&files[index])).collect()
}

/// JPEGs one behind the other.
fn mjpeg(path: &Path, count: usize) -> Result<Vec<Image>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let mut pictures = Vec::new();
    let mut at = 0;
    while let Some(skipped) = bytes[at..].windows(2).position(|pair| pair == [0xFF, 0xD8]) {
        let start = at + skipped;
        at = match jpeg::end(&bytes, start) {
            Ok(end) => {
                pictures.push(start..end);
                end
            }
            Err(broken) => broken,
        };
    }
    let decode = |index: usize| {
        image_from_bytes(&bytes[pictures[index].clone()])
            .map_err(|error| fault(path, format!("frame {index}: {error}")))
    };
    spread(pictures.len(), count).map(decode).collect()
}

/// How the colour of a Y4M file lies: width and height of its colour planes, halved or not; none in grey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chroma {
    halved: (bool, bool),
    grey: bool,
}

struct Y4m {
    width: usize,
    height: usize,
    chroma: Chroma,
    /// Where the first frame begins.
    start: u64,
}

fn y4m(path: &Path, count: usize) -> Result<Vec<Image>> {
    let io = |error| Error::io(path)(error);
    let file = std::fs::File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    reader.by_ref().take(1024).read_until(b'\n', &mut line).map_err(io)?;
    let head = Y4m::parse(&line).map_err(|reason| fault(path, reason))?;
    // Every frame has a line of its own, which is `FRAME` in all but exotic files: frames are then equally long.
    let marker = b"FRAME\n";
    let frame = marker.len() + head.bytes();
    let all = ((length - head.start) / frame as u64) as usize;
    let mut frames = Vec::new();
    for index in spread(all, count) {
        let mut bytes = vec![0; frame];
        reader.seek(SeekFrom::Start(head.start + (index * frame) as u64)).map_err(io)?;
        reader.read_exact(&mut bytes).map_err(io)?;
        let planes = bytes
            .strip_prefix(marker)
            .ok_or_else(|| fault(path, format!("frame {index} does not begin with `FRAME`")))?;
        frames.push(head.image(planes));
    }
    Ok(frames)
}

impl Y4m {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(line);
        let mut fields = text.strip_suffix('\n').unwrap_or_default().split(' ');
        if fields.next() != Some("YUV4MPEG2") {
            return Err("is not a Y4M file: it does not begin with YUV4MPEG2".into());
        }
        let (mut width, mut height, mut colour) = (0, 0, "420");
        for field in fields {
            match field.split_at_checked(1) {
                Some(("W", value)) => width = value.parse().unwrap_or(0),
                Some(("H", value)) => height = value.parse().unwrap_or(0),
                Some(("C", value)) => colour = value,
                _ => {}
            }
        }
        if !(1..=SIDE).contains(&width) || !(1..=SIDE).contains(&height) {
            return Err(format!("is {width} x {height} pixels: 1 to {SIDE} a side can be read"));
        }
        let chroma = match colour {
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => {
                Chroma { halved: (true, true), grey: false }
            }
            "422" => Chroma { halved: (true, false), grey: false },
            "444" => Chroma { halved: (false, false), grey: false },
            "mono" => Chroma { halved: (false, false), grey: true },
            other => {
                return Err(format!(
                    "has colour space `{other}`: 420, 422, 444 and mono can be read"
                ));
            }
        };
        Ok(Self { width, height, chroma, start: line.len() as u64 })
    }

    /// Width and height of a colour plane.
    fn colour(&self) -> (usize, usize) {
        let half = |halved, size: usize| if halved { size.div_ceil(2) } else { size };
        let Chroma { halved, grey } = self.chroma;
        if grey { (0, 0) } else { (half(halved.0, self.width), half(halved.1, self.height)) }
    }

    /// Bytes of a frame.
    fn bytes(&self) -> usize {
        let (width, height) = self.colour();
        self.width * self.height + 2 * width * height
    }

    /// BT.601 in studio range, as Y4M has it where it says nothing else.
    fn image(&self, planes: &[u8]) -> Image {
        let (luma, colour) = planes.split_at(self.width * self.height);
        let (blue, red) = colour.split_at(colour.len() / 2);
        let (across, _) = self.colour();
        let Chroma { halved, grey } = self.chroma;
        let mut rgb = Vec::with_capacity(3 * luma.len());
        for (at, luma) in luma.iter().enumerate() {
            let (row, column) = (at / self.width, at % self.width);
            let place = (row >> u8::from(halved.1)) * across + (column >> u8::from(halved.0));
            let difference =
                |plane: &[u8]| if grey { 0.0 } else { f32::from(plane[place]) - 128.0 };
            let (y, b, r) = (1.164 * (f32::from(*luma) - 16.0), difference(blue), difference(red));
            // A cast from float to u8 saturates.
            rgb.extend(
                [y + 1.596 * r, y - 0.392 * b - 0.813 * r, y + 2.017 * b]
                    .map(|value| value.round() as u8),
            );
        }
        Image { width: self.width as u32, height: self.height as u32, rgb: rgb.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn jpeg(shade: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(16, 16, image::Rgb([shade; 3]))
            .write_to(&mut bytes, image::ImageFormat::Jpeg)
            .unwrap();
        bytes.into_inner()
    }

    #[test]
    fn frames_are_taken_at_even_distances() {
        assert_eq!(spread(10, 3).collect::<Vec<_>>(), [0, 3, 6]);
        assert_eq!(spread(2, 8).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(spread(0, 8).count(), 0);
    }

    #[test]
    fn a_y4m_clip_is_read_in_its_colours() {
        // Two frames of 2 x 2: white, then BT.601's red.
        let frames = [[235, 235, 235, 235, 128, 128], [81, 81, 81, 81, 90, 240]];
        let mut bytes = b"YUV4MPEG2 W2 H2 F25:1 C420jpeg\n".to_vec();
        for frame in frames {
            bytes.extend(b"FRAME\n");
            bytes.extend(frame);
        }
        let (_dir, path) = clip("a.y4m", &bytes);
        let read = read_frames(&path, 8).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].rgb[..3], [255, 255, 255]);
        let [red, green, blue] = [read[1].rgb[0], read[1].rgb[1], read[1].rgb[2]];
        assert!(red > 250 && green < 4 && blue < 4, "{red} {green} {blue}");
    }

    #[test]
    fn an_mjpeg_clip_is_cut_into_its_pictures() {
        let bytes = [jpeg(0), jpeg(128), jpeg(255)].concat();
        let (_dir, path) = clip("a.mjpeg", &bytes);
        let shades: Vec<u8> = read_frames(&path, 3).unwrap().iter().map(|f| f.rgb[0]).collect();
        assert_eq!(shades, [0, 128, 255]);
        // A clip that is cut short has the frames that are whole.
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(read_frames(&path, 9).unwrap().len(), 2);
    }

    #[test]
    fn a_thumbnail_within_a_picture_is_no_frame() {
        let thumbnail = jpeg(10);
        let mut first = jpeg(200);
        let segment = [b"\xFF\xE1", &(thumbnail.len() as u16 + 2).to_be_bytes()[..], &thumbnail];
        first.splice(2..2, segment.concat());
        let bytes = [&first[..], b"junk", &jpeg(255)].concat();
        let (_dir, path) = clip("a.mjpeg", &bytes);
        let shades: Vec<u8> = read_frames(&path, 9).unwrap().iter().map(|f| f.rgb[0]).collect();
        assert_eq!(shades, [200, 255]);
        // Cut short behind its thumbnail, a picture is no frame, and the thumbnail is none either.
        std::fs::write(&path, &first[..first.len() - 3]).unwrap();
        assert!(read_frames(&path, 9).unwrap_err().to_string().contains("holds no frame"));
    }

    #[test]
    fn what_is_no_clip_is_named() {
        for (name, bytes, reason) in [
            ("a.y4m", &b"RIFF"[..], "YUV4MPEG2"),
            ("a.y4m", b"YUV4MPEG2 W0 H2\n", "0 x 2"),
            ("a.y4m", b"YUV4MPEG2 W2 H2 C410\n", "410"),
            ("a.y4m", b"YUV4MPEG2 W2 H2\nFRAME\nx", "holds no frame"),
            ("a.mjpeg", b"\xFF\xD8", "holds no frame"),
            ("a.mp4", b"", "is no clip"),
        ] {
            let (_dir, path) = clip(name, bytes);
            let fault = read_frames(&path, 4).unwrap_err().to_string();
            assert!(fault.contains(reason) && fault.contains(name), "{fault}");
        }
    }
}
