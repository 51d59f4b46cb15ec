//! Sound files → [`Audio`]: told by their first bytes, decoded block by block, brought to one channel.
//!
//! A file with several channels is gone through twice: which one to hear is known at the end only, and holding all of them
//! would take their multiple of memory.

use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use symphonia::core::io::MediaSource;

use super::channel::{Channel, Finding, Mixing, Survey};
use super::coded::{self, Adpcm};
use super::format::{Format, Kind, LFS};
use super::input::{Input, MAX_PIPED};
use super::wav::{self, CONVERT, Code, Samples, unreadable};
use crate::audio;
use crate::error::{Error, Result};
use crate::request::Audio;

/// More channels are taken for damage.
const MAX_CHANNELS: u16 = 64;
/// Bytes of samples that are read at a time.
const BLOCK: usize = 64 << 10;

/// How sound is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) rate: u32,
    pub(super) channels: u16,
}

impl Spec {
    /// # Errors
    /// For no channel, or more than any recording has.
    pub(super) fn new(rate: u32, channels: u16) -> Result<Self, String> {
        if (1..=MAX_CHANNELS).contains(&channels) {
            return Ok(Self { rate, channels });
        }
        Err(format!("has {channels} channels, but 1 to {MAX_CHANNELS} can be read: it is damaged"))
    }
}

/// What decoded frames are done with.
type Take<'a> = &'a mut dyn FnMut(&[f32]);

/// Where decoders put their frames. It ends what goes on for too long.
pub(super) struct Sink<'a> {
    take: Take<'a>,
    spec: Option<Spec>,
    frames: u64,
}

impl<'a> Sink<'a> {
    fn new(take: Take<'a>) -> Self {
        Self { take, spec: None, frames: 0 }
    }

    /// Takes interleaved samples.
    ///
    /// # Errors
    /// When the layout changes within a file, or the sound is longer than is taken.
    pub(super) fn take(&mut self, spec: Spec, samples: &[f32]) -> Result<(), String> {
        match self.spec {
            // The bound on its length goes by the rate.
            None if !audio::RATES.contains(&spec.rate) => return audio::check_length(0, spec.rate),
            None => self.spec = Some(spec),
            Some(known) if known != spec => {
                return Err(format!("changes its rate or channels midway: {CONVERT}"));
            }
            Some(_) => {}
        }
        let width = usize::from(spec.channels);
        self.frames += (samples.len() / width) as u64;
        let most = u64::from(audio::MAX_SECONDS) * u64::from(spec.rate);
        if self.frames > most {
            return audio::check_length(self.frames, spec.rate);
        }
        samples.chunks_exact(width).for_each(&mut *self.take);
        Ok(())
    }

    /// Frames so far, and their rate.
    pub(super) fn frames(&self) -> (u64, u32) {
        (self.frames, self.spec.map_or(0, |spec| spec.rate))
    }
}

impl Input<'_> {
    /// Reads the sound; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Audio`] for what is no sound, damaged, or cannot be taken.
    pub(super) fn audio(&self, channel: Channel, path: Option<&Path>) -> Result<Audio> {
        let fault = |reason: String| Error::Audio { path: path.map(Path::to_owned), reason };
        let format = known(&self.head()?).map_err(fault)?;
        // Of one channel all is known after the first time.
        let (mut survey, mut mono) = (Survey::default(), Vec::new());
        let spec = self.decode(format, &mut |frame| match frame {
            [sample] => mono.push(*sample),
            frame => survey.add(frame),
        });
        let (frames, spec) = spec?.map_err(fault)?;
        audio::check_length(frames, spec.rate).map_err(fault)?;
        let mixing = choose(channel, spec, &survey, path).map_err(fault)?;
        if spec.channels > 1 {
            mono.reserve_exact(frames as usize);
            self.decode(format, &mut |frame| mono.push(mixing.of(frame)))?.map_err(fault)?;
        }
        Ok(Audio { samples: mono.into(), rate: spec.rate })
    }

    /// Goes through the frames; tells how many there were, and their layout.
    fn decode(&self, format: Format, take: Take<'_>) -> Result<Result<(u64, Spec), String>> {
        let mut sink = Sink::new(take);
        let source = self.source()?;
        // The decoders are not ours, and what they read is from anywhere: what they trip over is a damaged file.
        let decoding = AssertUnwindSafe(|| self.decode_into(format, source, &mut sink));
        let done = catch_unwind(decoding)
            .unwrap_or_else(|_| Err("is damaged in a way that its decoder does not bear".into()));
        Ok(done.and_then(|()| {
            let spec = sink.spec.ok_or("holds no sound")?;
            Ok((sink.frames, spec))
        }))
    }

    fn decode_into(
        &self,
        format: Format,
        source: Box<dyn MediaSource + '_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        if !matches!(format, Format::Wav | Format::Aiff) {
            return coded::decode(source, sink);
        }
        let mut file = BufReader::with_capacity(BLOCK, source);
        let samples =
            if format == Format::Wav { wav::riff(&mut file)? } else { wav::aiff(&mut file)? };
        match samples.code {
            Code::Mpeg => coded::decode(Box::new(self.piece(samples)?), sink),
            _ => uncoded(&mut file, samples, sink),
        }
    }

    /// The samples alone, of a file that wraps a stream.
    fn piece(&self, samples: Samples) -> Result<Cursor<Vec<u8>>, String> {
        let mut source = self.source().map_err(|fault| fault.to_string())?;
        source.seek(SeekFrom::Start(samples.start)).map_err(unreadable)?;
        let mut bytes = Vec::new();
        source.take(samples.length.min(MAX_PIPED)).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(Cursor::new(bytes))
    }
}

/// The format of a sound.
fn known(head: &[u8]) -> Result<Format, String> {
    const READ: &str = "WAV, AIFF, FLAC, MP3, AAC, M4A, Ogg Vorbis, Opus and WebM are read";
    if head.is_empty() {
        return Err("is empty".into());
    }
    let Some(format) = Format::of(head) else {
        return Err(format!("is no sound of a known format: {READ}"));
    };
    match (format, format.kind()) {
        (Format::Unread(_, "git-lfs pointer"), _) => Err(LFS.into()),
        (Format::Unread(_, name), Kind::Sound) => {
            Err(format!("is {name}, which is not read: {CONVERT}"))
        }
        (format, Kind::Sound) => Ok(format),
        (format, Kind::Picture) => Err(format!("is a picture ({}), and no sound", format.name())),
        (format, Kind::Other) => Err(format!("is no sound, but a {}: {READ}", format.name())),
    }
}

/// Which channel is heard; says so where the channels differ.
fn choose(
    channel: Channel,
    spec: Spec,
    survey: &Survey,
    path: Option<&Path>,
) -> Result<Mixing, String> {
    let name = path.map_or_else(String::new, |path| path.display().to_string());
    let finding = survey.finding();
    match (channel, finding) {
        (Channel::Only(number), _) if number > spec.channels => {
            Err(format!("has {} channels, and no channel {number}", spec.channels))
        }
        (Channel::Only(number), _) => Ok(Mixing::One(usize::from(number - 1))),
        (Channel::Mix, Finding::Cancel(_)) => {
            tracing::warn!(
                file = name,
                "the channels cancel each other: little is left of their mean"
            );
            Ok(Mixing::Mean)
        }
        (Channel::Mix, _) | (Channel::Auto, Finding::Alike) => Ok(Mixing::Mean),
        (Channel::Auto, Finding::Differ(index)) => {
            tracing::info!(
                file = name,
                channel = index + 1,
                "the channels differ: the loudest is heard"
            );
            Ok(Mixing::One(index))
        }
        (Channel::Auto, Finding::Cancel(index)) => {
            tracing::warn!(
                file = name,
                channel = index + 1,
                "the channels cancel each other, as where one is wired the wrong way round: one alone is heard"
            );
            Ok(Mixing::One(index))
        }
    }
}

/// Samples that lie open, and blocks of ADPCM.
fn uncoded(
    file: &mut (impl Read + Seek),
    samples: Samples,
    sink: &mut Sink<'_>,
) -> Result<(), String> {
    let Samples { spec, code, start, length } = samples;
    let (unit, mut adpcm) = match code {
        Code::Pcm(pcm) => (pcm.bytes() * usize::from(spec.channels), None),
        Code::Adpcm { microsoft, block } => (block, Some(Adpcm::new(spec, microsoft, block)?)),
        Code::Mpeg => return Err("holds MPEG sound".into()),
    };
    let units = length / unit as u64;
    if adpcm.is_none() {
        // What is longer than is taken says so before it is read, and before anything is missing from it.
        let most = u64::from(audio::MAX_SECONDS) * u64::from(spec.rate);
        if units > most {
            audio::check_length(units, spec.rate)?;
        }
    }
    let there = file.seek(SeekFrom::End(0)).map_err(unreadable)?.saturating_sub(start);
    if length > there {
        return Err(format!(
            "is cut short: its header promises {length} bytes of sound, and {there} are there"
        ));
    }
    file.seek(SeekFrom::Start(start)).map_err(unreadable)?;
    let mut left = units as usize;
    let (mut bytes, mut floats) = (Vec::new(), Vec::new());
    // A layout is known even where there is no sample.
    sink.take(spec, &[])?;
    while left > 0 {
        let count = if adpcm.is_some() { 1 } else { left.min((BLOCK / unit).max(1)) };
        left -= count;
        bytes.resize(count * unit, 0);
        file.read_exact(&mut bytes).map_err(unreadable)?;
        match (&mut adpcm, code) {
            (Some(adpcm), _) => adpcm.decode(&bytes, sink)?,
            (None, Code::Pcm(pcm)) => {
                pcm.unpack(&bytes, &mut floats);
                sink.take(spec, &floats)?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}
