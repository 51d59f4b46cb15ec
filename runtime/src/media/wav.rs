//! WAV (RIFF, RF64) and AIFF: chunks in any order, and sizes as programs that write to a pipe leave them.

use std::io::{Read, Seek, SeekFrom};

use super::pcm::{Encoding, Pcm};
use super::sound::Spec;

/// More chunks are taken for damage.
const MAX_CHUNKS: usize = 10_000;
/// A larger `fmt ` chunk is taken for damage, bytes.
const MAX_FORMAT: u64 = 4096;
/// Sizes from here on are what programs write that cannot know them: they write to a pipe, and never come back to the header.
const UNKNOWN: u64 = 0x7fff_0000;

/// How to go on with what is not read here.
pub(super) const CONVERT: &str = "convert it, as `ffmpeg -i IN -ar 16000 -ac 1 OUT.wav` does";

/// Where the samples are, and how they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Samples {
    pub(super) spec: Spec,
    pub(super) code: Code,
    /// The first byte of the samples, and the bytes that they take.
    pub(super) start: u64,
    pub(super) length: u64,
}

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Pcm(Pcm),
    /// ADPCM of Microsoft or IMA: blocks of so many bytes, each decoded by itself.
    Adpcm {
        microsoft: bool,
        block: usize,
    },
    /// An MPEG stream in a WAV file.
    Mpeg,
}

/// What was found of a file so far.
#[derive(Debug, Default)]
struct Found {
    format: Option<(Spec, Code)>,
    data: Option<(u64, u64)>,
    /// The true size of the samples, where that in their chunk is too small for it.
    large: Option<u64>,
}

/// A chunk's name, and where its content begins and how long it says to be.
struct Chunk {
    id: [u8; 4],
    start: u64,
    size: u64,
}

/// Looks for the samples of a WAV file.
///
/// # Errors
/// What is wrong with it, or what about it is not read.
pub(super) fn riff(file: &mut (impl Read + Seek)) -> Result<Samples, String> {
    let mut found = Found::default();
    chunks(file, u32::from_le_bytes, |file, chunk, end| {
        match &chunk.id {
            b"ds64" if chunk.size >= 16 => {
                let sizes: [u8; 16] = take(file)?;
                let [_, data] = [0, 8].map(|at| u64::from_le_bytes(piece(&sizes, at)));
                found.large = Some(data).filter(|size| *size > 0);
            }
            b"fmt " => {
                let mut bytes = Vec::new();
                let size = chunk.size.min(MAX_FORMAT);
                file.take(size).read_to_end(&mut bytes).map_err(unreadable)?;
                found.format = Some(format(&bytes)?);
            }
            b"data" if found.data.is_none() => {
                let length = data_length(file, chunk, end, found.large)?;
                found.data = Some((chunk.start, length));
                return Ok(length);
            }
            _ => {}
        }
        Ok(chunk.size)
    })?;
    let (spec, code) =
        found.format.ok_or("has no `fmt ` chunk, which says how its samples are written")?;
    let (start, length) = found.data.ok_or("has no `data` chunk, which holds the samples")?;
    Ok(Samples { spec, code, start, length })
}

/// Looks for the samples of an AIFF or AIFF-C file.
///
/// # Errors
/// What is wrong with it, or what about it is not read.
pub(super) fn aiff(file: &mut (impl Read + Seek)) -> Result<Samples, String> {
    let mut found = Found::default();
    chunks(file, u32::from_be_bytes, |file, chunk, end| {
        match &chunk.id {
            b"COMM" => {
                let mut bytes = Vec::new();
                let size = chunk.size.min(MAX_FORMAT);
                file.take(size).read_to_end(&mut bytes).map_err(unreadable)?;
                found.format = Some(common(&bytes)?);
            }
            b"SSND" if found.data.is_none() => {
                let head: [u8; 8] = take(file)?;
                let offset = u64::from(u32::from_be_bytes(piece(&head, 0))) + 8;
                let length = data_length(file, chunk, end, None)?;
                let samples =
                    length.checked_sub(offset).ok_or("its samples begin behind their end")?;
                found.data = Some((chunk.start + offset, samples));
                return Ok(length);
            }
            _ => {}
        }
        Ok(chunk.size)
    })?;
    let (spec, code) =
        found.format.ok_or("has no `COMM` chunk, which says how its samples are written")?;
    let (start, length) = found.data.ok_or("has no `SSND` chunk, which holds the samples")?;
    Ok(Samples { spec, code, start, length })
}

/// Goes through the chunks. `visit` gives the bytes that a chunk really takes; it may leave the file anywhere.
fn chunks<F: Read + Seek>(
    file: &mut F,
    size: fn([u8; 4]) -> u32,
    mut visit: impl FnMut(&mut F, &Chunk, u64) -> Result<u64, String>,
) -> Result<(), String> {
    let end = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let mut at = 12;
    for _ in 0..MAX_CHUNKS {
        if at + 8 > end {
            return Ok(());
        }
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let head: [u8; 8] = take(file)?;
        let size = u64::from(size(piece(&head, 4)));
        let chunk = Chunk { id: piece(&head, 0), start: at + 8, size };
        let taken = visit(file, &chunk, end)?;
        at = chunk.start.saturating_add(taken);
        if taken % 2 == 1 && at < end {
            at += u64::from(is_padded(file, at)?);
        }
    }
    Err(format!("has more than {MAX_CHUNKS} chunks: it is damaged"))
}

/// Whether a chunk of odd length is followed by a byte that makes it even, as the standard has it and some programs forget.
fn is_padded(file: &mut (impl Read + Seek), at: u64) -> Result<bool, String> {
    file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
    let mut next = Vec::new();
    file.take(5).read_to_end(&mut next).map_err(unreadable)?;
    Ok(!next.get(..4).is_some_and(is_id))
}

fn is_id(id: &[u8]) -> bool {
    id[0].is_ascii_alphabetic()
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ')
}

/// The bytes that the samples take, whatever their chunk says.
fn data_length(
    file: &mut (impl Read + Seek),
    chunk: &Chunk,
    end: u64,
    large: Option<u64>,
) -> Result<u64, String> {
    let there = end - chunk.start;
    let size =
        if chunk.size == u64::from(u32::MAX) { large.unwrap_or(chunk.size) } else { chunk.size };
    if size == 0 {
        return Ok(if are_chunks(file, chunk.start, end)? { 0 } else { there });
    }
    if size <= there {
        return Ok(size);
    }
    if size >= UNKNOWN && large.is_none() {
        return Ok(there);
    }
    // The caller has a bound on time, and a better word for what is beyond it.
    Ok(size)
}

/// Whether a file goes on with whole chunks until its end: then there are no samples, and not samples of unknown number.
fn are_chunks(file: &mut (impl Read + Seek), mut at: u64, end: u64) -> Result<bool, String> {
    for _ in 0..MAX_CHUNKS {
        if at + 1 >= end {
            return Ok(true);
        }
        if at + 8 > end {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let head: [u8; 8] = take(file)?;
        if !is_id(&head[..4]) {
            return Ok(false);
        }
        let size = u64::from(u32::from_le_bytes(piece(&head, 4)));
        at += 8 + size + size % 2;
    }
    Ok(false)
}

/// The content of `fmt `.
fn format(bytes: &[u8]) -> Result<(Spec, Code), String> {
    if bytes.len() < 16 {
        return Err("has a `fmt ` chunk that is cut short".into());
    }
    let word = |at| u16::from_le_bytes(piece(bytes, at));
    let (mut tag, channels, bits) = (word(0), word(2), word(14));
    let rate = u32::from_le_bytes(piece(bytes, 4));
    let block = usize::from(word(12));
    let spec = Spec::new(rate, channels)?;
    // WAVE_FORMAT_EXTENSIBLE: the true tag begins a longer name.
    if tag == 0xfffe && bytes.len() >= 26 {
        tag = word(24);
    }
    // Samples of 24 bits may lie in 32, at their upper end.
    let width = match block / usize::from(channels) {
        0 => usize::from(bits).div_ceil(8),
        width if width * 8 < usize::from(bits) => usize::from(bits).div_ceil(8),
        width => width,
    };
    let encoding = match (tag, width) {
        (1, 1) => Encoding::Unsigned8,
        (1, 2) => Encoding::Signed(2),
        (1, 3) => Encoding::Signed(3),
        (1, 4) => Encoding::Signed(4),
        (3, 4) => Encoding::Float32,
        (3, 8) => Encoding::Float64,
        (6, 1) => Encoding::ALaw,
        (7, 1) => Encoding::MuLaw,
        (2 | 0x11, _) if channels <= 2 => {
            let least = 7 * usize::from(channels);
            if bits != 4 || block <= least {
                return Err(format!(
                    "holds ADPCM of {bits} bits in blocks of {block} bytes: {CONVERT}"
                ));
            }
            return Ok((spec, Code::Adpcm { microsoft: tag == 2, block }));
        }
        (0x50 | 0x55, _) => return Ok((spec, Code::Mpeg)),
        (tag, _) => {
            let name = codec(tag);
            return Err(format!(
                "holds {name} of {bits} bits in {channels} channels, which is not read: {CONVERT}"
            ));
        }
    };
    Ok((spec, Code::Pcm(Pcm { encoding, big_endian: false })))
}

/// What the tags of WAV stand for that are met.
fn codec(tag: u16) -> String {
    let name = match tag {
        1 => "integers",
        2 => "Microsoft ADPCM",
        3 => "floating point",
        0x11 => "IMA ADPCM",
        0x22 => "TrueSpeech",
        0x31 => "GSM 6.10",
        0x40 | 0x45 | 0x64 | 0x14 => "G.726 ADPCM",
        0x42 => "G.723.1",
        0x83 => "G.729",
        0xff | 0x1600 | 0x1601 | 0x1602 | 0x1610 => "AAC",
        0x160..=0x163 => "WMA",
        0x2000 => "AC-3",
        0x2001 => "DTS",
        0x674f..=0x6771 => "Ogg Vorbis",
        0xf1ac => "FLAC",
        _ => return format!("the unknown codec {tag:#06x}"),
    };
    name.to_owned()
}

/// The content of `COMM`.
fn common(bytes: &[u8]) -> Result<(Spec, Code), String> {
    if bytes.len() < 18 {
        return Err("has a `COMM` chunk that is cut short".into());
    }
    let word = |at| u16::from_be_bytes(piece(bytes, at));
    let (channels, bits) = (word(0), word(6));
    let spec = Spec::new(extended(piece(bytes, 8)), channels)?;
    let kind: [u8; 4] = if bytes.len() >= 22 { piece(bytes, 18) } else { *b"NONE" };
    let width = bits.div_ceil(8) as u8;
    let (encoding, big_endian) = match (&kind, width) {
        (b"NONE" | b"twos", 1) => (Encoding::Signed(1), true),
        (b"NONE" | b"twos" | b"in24" | b"in32", 2..=4) => (Encoding::Signed(width), true),
        (b"sowt", 1..=4) => (Encoding::Signed(width), false),
        (b"raw ", 1) => (Encoding::Unsigned8, true),
        (b"fl32" | b"FL32", _) => (Encoding::Float32, true),
        (b"fl64" | b"FL64", _) => (Encoding::Float64, true),
        (b"alaw" | b"ALAW", _) => (Encoding::ALaw, true),
        (b"ulaw" | b"ULAW", _) => (Encoding::MuLaw, true),
        _ => {
            let kind = String::from_utf8_lossy(&kind);
            return Err(format!("holds `{kind}` of {bits} bits, which is not read: {CONVERT}"));
        }
    };
    Ok((spec, Code::Pcm(Pcm { encoding, big_endian })))
}

/// The whole part of an 80-bit float; what is no sample rate is 0.
fn extended(bytes: [u8; 10]) -> u32 {
    let exponent = i32::from(u16::from_be_bytes(piece(&bytes, 0))) - 16_383;
    let mantissa = u64::from_be_bytes(piece(&bytes, 2));
    match exponent {
        0..=31 => (mantissa >> (63 - exponent)) as u32,
        _ => 0,
    }
}

fn take<const N: usize>(file: &mut impl Read) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Some bytes of a piece whose length was checked; zeros where it is shorter.
fn piece<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unreadable(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "is cut short".into(),
        _ => error.to_string(),
    }
}
