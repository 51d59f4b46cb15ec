//! What a file is, told by its first bytes: one table for sound and pictures, whatever a name or a topic says.

/// Bytes of a file that are enough to tell its format.
pub(super) const HEAD: usize = 64;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sound,
    Picture,
    Other,
}

/// The formats that are told apart, read or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Wav,
    Aiff,
    Flac,
    Mpeg,
    Aac,
    Ogg,
    Mp4,
    Matroska,
    Png,
    Jpeg,
    Bmp,
    Gif,
    WebP,
    Tiff,
    /// Known by name only.
    Unread(Kind, &'static str),
}

use Format::{
    Aac, Aiff, Bmp, Flac, Gif, Jpeg, Matroska, Mp4, Mpeg, Ogg, Png, Tiff, Unread, Wav, WebP,
};
use Kind::{Other, Picture, Sound};

/// What to do about the stand-in for a large file.
pub(super) const LFS: &str = "is a git-lfs pointer in place of the file: run `git lfs pull`";

const AVIF: Format = Unread(Picture, "AVIF");
const HEIC: Format = Unread(Picture, "HEIC");

/// Bytes at a place.
type Mark = (usize, &'static [u8]);

/// The first row of which all marks are there.
const TABLE: &[(Format, &[Mark])] = &[
    (Wav, &[(0, b"RIFF"), (8, b"WAVE")]),
    (Wav, &[(0, b"RF64"), (8, b"WAVE")]),
    (Wav, &[(0, b"BW64"), (8, b"WAVE")]),
    (Unread(Sound, "big-endian WAV (RIFX)"), &[(0, b"RIFX")]),
    (Unread(Sound, "Wave64"), &[(0, b"riff\x2e\x91\xcf\x11")]),
    (Aiff, &[(0, b"FORM"), (8, b"AIFF")]),
    (Aiff, &[(0, b"FORM"), (8, b"AIFC")]),
    (Flac, &[(0, b"fLaC")]),
    (Mpeg, &[(0, b"ID3")]),
    (Unread(Sound, "Ogg Speex"), &[(0, b"OggS"), (28, b"Speex   ")]),
    (Unread(Other, "Ogg Theora video"), &[(0, b"OggS"), (28, b"\x80theora")]),
    (Ogg, &[(0, b"OggS")]),
    (Matroska, &[(0, b"\x1a\x45\xdf\xa3")]),
    (Unread(Sound, "Core Audio (CAF)"), &[(0, b"caff")]),
    (Unread(Sound, "AMR"), &[(0, b"#!AMR")]),
    (Unread(Sound, "Sun/NeXT (.au)"), &[(0, b".snd")]),
    (Unread(Sound, "WMA"), &[(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")]),
    (Unread(Sound, "WavPack"), &[(0, b"wvpk")]),
    (Unread(Sound, "Monkey's Audio"), &[(0, b"MAC ")]),
    (Unread(Sound, "MIDI"), &[(0, b"MThd")]),
    (Png, &[(0, b"\x89PNG\r\n\x1a\n")]),
    (Jpeg, &[(0, b"\xff\xd8\xff")]),
    (WebP, &[(0, b"RIFF"), (8, b"WEBP")]),
    (Unread(Other, "AVI video"), &[(0, b"RIFF"), (8, b"AVI ")]),
    (Gif, &[(0, b"GIF87a")]),
    (Gif, &[(0, b"GIF89a")]),
    (Tiff, &[(0, b"II\x2a\0")]),
    (Tiff, &[(0, b"MM\0\x2a")]),
    (Tiff, &[(0, b"II\x2b\0")]),
    (Tiff, &[(0, b"MM\0\x2b")]),
    (Bmp, &[(0, b"BM"), (6, b"\0\0\0\0")]),
    (Unread(Picture, "JPEG XL"), &[(0, b"\xff\x0a")]),
    (Unread(Picture, "JPEG XL"), &[(0, b"\0\0\0\x0cJXL ")]),
    (Unread(Picture, "JPEG 2000"), &[(0, b"\0\0\0\x0cjP  ")]),
    (Unread(Picture, "JPEG 2000"), &[(0, b"\xff\x4f\xff\x51")]),
    (Unread(Picture, "Photoshop"), &[(0, b"8BPS")]),
    (Unread(Picture, "icon (ICO)"), &[(0, b"\0\0\x01\0")]),
    (Unread(Picture, "SVG"), &[(0, b"<svg")]),
    (Unread(Other, "PDF document"), &[(0, b"%PDF")]),
    (Unread(Other, "git-lfs pointer"), &[(0, b"version https://git-lfs")]),
    // By the major brand of an ISO base media file.
    (AVIF, &[(4, b"ftypavif")]),
    (AVIF, &[(4, b"ftypavis")]),
    (HEIC, &[(4, b"ftyphei")]),
    (HEIC, &[(4, b"ftyphev")]),
    (Unread(Picture, "Canon RAW"), &[(4, b"ftypcrx ")]),
];

impl Format {
    /// What the first [`HEAD`] bytes of a file say it is.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let has = |(at, mark): &Mark| head.get(*at..at + mark.len()) == Some(*mark);
        if let Some((format, _)) = TABLE.iter().find(|(_, marks)| marks.iter().all(has)) {
            return Some(*format);
        }
        if head.get(4..8) == Some(b"ftyp") {
            return Some(iso_media(head));
        }
        frame_header(head)
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Wav | Aiff | Flac | Mpeg | Aac | Ogg | Mp4 | Matroska => Sound,
            Png | Jpeg | Bmp | Gif | WebP | Tiff => Picture,
            Unread(kind, _) => kind,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Wav => "WAV",
            Aiff => "AIFF",
            Flac => "FLAC",
            Mpeg => "MP3",
            Aac => "AAC",
            Ogg => "Ogg",
            Mp4 => "MP4",
            Matroska => "Matroska or WebM",
            Png => "PNG",
            Jpeg => "JPEG",
            Bmp => "BMP",
            Gif => "GIF",
            WebP => "WebP",
            Tiff => "TIFF",
            Unread(_, name) => name,
        }
    }
}

/// Pictures share a container with films; with a neutral major brand, the compatible ones tell.
fn iso_media(head: &[u8]) -> Format {
    let length = head.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)) as usize;
    let brands = head.get(8..length.min(head.len())).unwrap_or_default();
    let has = |brand: &[u8; 4]| brands.as_chunks::<4>().0.contains(brand);
    if has(b"avif") {
        AVIF
    } else if [b"heic", b"heix", b"hevc", b"mif1", b"msf1"].into_iter().any(has) {
        HEIC
    } else {
        Mp4
    }
}

/// MPEG audio and AAC begin with a frame: eleven bits of 1, then a layer, which AAC leaves at 0.
fn frame_header(head: &[u8]) -> Option<Format> {
    let [0xff, second, third, ..] = head else { return None };
    let (layer, bit_rate, rate) = (second >> 1 & 3, third >> 4, third >> 2 & 3);
    match (second >> 4, layer) {
        (0xf, 0) => Some(Aac),
        (0xe | 0xf, 1..=3) if bit_rate != 0xf && rate != 3 => Some(Mpeg),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (head, format) in [
            (&b"RIFF\xff\xff\xff\xffWAVEfmt "[..], Some(Wav)),
            (b"RF64\xff\xff\xff\xffWAVEds64", Some(Wav)),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some(WebP)),
            (b"\xff\xf3\x38\xc4", Some(Mpeg)),
            (b"\xff\xfb\x90\x64", Some(Mpeg)),
            (b"\xff\xf1\x50\x80", Some(Aac)),
            (b"\xff\xd8\xff\xe0", Some(Jpeg)),
            (b"\0\0\0\x1cftypM4A \0\0\x02\0M4A isomiso2", Some(Mp4)),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", Some(AVIF)),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Some(HEIC)),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some(HEIC)),
            (b"\xff\xff\xff\xff", None),
            (b"plain text", None),
            (b"", None),
        ] {
            assert_eq!(Format::of(head), format, "{head:?}");
        }
    }
}
