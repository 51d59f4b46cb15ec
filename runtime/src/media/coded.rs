//! Compressed sound: containers and codecs of symphonia, and Opus, whose packets opus-pure decodes.

use opus_pure::OpusDecoder;
use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS, CODEC_ID_OPUS,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};
use symphonia::default::{get_codecs, get_probe};

use super::sound::{Sink, Spec};
use super::wav::CONVERT;

/// Rate that Opus is decoded at, whatever was recorded.
const OPUS_RATE: u32 = 48_000;
/// Samples of a channel in the longest Opus packet, 120 ms.
const OPUS_PACKET: usize = 5760;
/// Packets without any sound before it is taken for damage.
const MAX_EMPTY: usize = 10_000;

/// Decodes a compressed file.
///
/// # Errors
/// What is wrong with it, or what about it is not read.
pub(super) fn decode(source: Box<dyn MediaSource + '_>, sink: &mut Sink<'_>) -> Result<(), String> {
    let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
    let (format, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let mut reader =
        get_probe().probe(&Hint::new(), stream, format, metadata).map_err(|fault| told(&fault))?;
    let track = reader.default_track(TrackType::Audio).ok_or("has no sound track")?.clone();
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters =
        parameters.ok_or_else(|| format!("has a sound track of an unknown codec: {CONVERT}"))?;
    let mut decoder = Decoder::new(&track, parameters)?;
    let counts = packets(&mut *reader, track.id, &mut decoder, sink)?;
    if counts.damaged * 20 > counts.packets {
        return Err(format!(
            "is damaged: {} of {} packets cannot be decoded",
            counts.damaged, counts.packets
        ));
    }
    if counts.damaged > 0 {
        tracing::warn!(
            packets = counts.packets,
            damaged = counts.damaged,
            "left out damaged packets of a sound"
        );
    }
    let (found, rate) = sink.frames();
    let slack = u64::from(rate / 4);
    match track.num_frames {
        Some(all) if found + slack < all && rate > 0 => {
            let seconds = |frames: u64| frames as f64 / f64::from(rate);
            Err(format!("is cut short: {:.1} s of {:.1} s are there", seconds(found), seconds(all)))
        }
        _ => Ok(()),
    }
}

/// How many packets there were, and how many of them could not be decoded.
#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    damaged: u64,
}

fn packets(
    reader: &mut dyn FormatReader,
    track: u32,
    decoder: &mut Decoder,
    sink: &mut Sink<'_>,
) -> Result<Counts, String> {
    let (mut counts, mut empty) = (Counts::default(), 0);
    // A browser that records does not know how long it will: its files just stop.
    let may_stop = reader.format_info().short_name == "matroska";
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(counts),
            Err(Fault::IoError(error)) if may_stop && is_end(&error) => return Ok(counts),
            Err(fault) => return Err(told(&fault)),
        };
        if packet.track_id != track {
            continue;
        }
        counts.packets += 1;
        let before = sink.frames().0;
        match decoder.decode(&packet, sink) {
            Ok(()) => {}
            Err(Refusal::Damaged) => counts.damaged += 1,
            Err(Refusal::Useless(reason)) => return Err(reason),
        }
        empty = if sink.frames().0 == before { empty + 1 } else { 0 };
        if empty > MAX_EMPTY {
            return Err(format!("has more than {MAX_EMPTY} packets without sound: it is damaged"));
        }
    }
}

/// Why a packet gives no sound.
enum Refusal {
    /// This one is damaged, the next may be whole.
    Damaged,
    /// None of the file can be used.
    Useless(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Useless(reason)
    }
}

enum Decoder {
    Of(Box<dyn AudioDecoder>, Vec<f32>),
    Opus { decoder: Box<OpusDecoder>, spec: Spec, skip: usize, samples: Vec<f32> },
}

impl Decoder {
    fn new(track: &Track, parameters: &AudioCodecParameters) -> Result<Self, String> {
        if parameters.codec == CODEC_ID_OPUS {
            let count = parameters.channels.as_ref().map_or(1, Channels::count);
            if !(1..=2).contains(&count) {
                return Err(format!(
                    "holds Opus of {count} channels, at most 2 are read: {CONVERT}"
                ));
            }
            let decoder =
                OpusDecoder::new(OPUS_RATE as i32, count).map_err(|fault| fault.to_string())?;
            return Ok(Self::Opus {
                decoder: Box::new(decoder),
                spec: Spec::new(OPUS_RATE, count as u16)?,
                skip: track.delay.unwrap_or(0) as usize,
                samples: vec![0.0; OPUS_PACKET * count],
            });
        }
        let decoder = get_codecs()
            .make_audio_decoder(parameters, &AudioDecoderOptions::default())
            .map_err(|_| format!("holds sound of a codec that is not read: {CONVERT}"))?;
        Ok(Self::Of(decoder, Vec::new()))
    }

    fn decode(&mut self, packet: &Packet, sink: &mut Sink<'_>) -> Result<(), Refusal> {
        match self {
            Self::Of(decoder, samples) => {
                let decoded = match decoder.decode(packet) {
                    Ok(decoded) => decoded,
                    Err(Fault::DecodeError(_)) => return Err(Refusal::Damaged),
                    Err(fault) => return Err(Refusal::Useless(told(&fault))),
                };
                let spec = decoded.spec();
                let channels = u16::try_from(spec.channels().count()).unwrap_or(u16::MAX);
                let spec = Spec::new(spec.rate(), channels)?;
                decoded.copy_to_vec_interleaved(samples);
                Ok(sink.take(spec, samples)?)
            }
            Self::Opus { decoder, spec, skip, samples } => {
                let Ok(frames) = decoder.decode(&packet.data, OPUS_PACKET, samples) else {
                    return Err(Refusal::Damaged);
                };
                // What the encoder needed to get going, and what fills up the last packet.
                let skipped = (*skip).min(frames);
                *skip -= skipped;
                let padding = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                let end = frames.saturating_sub(padding).max(skipped);
                let width = usize::from(spec.channels);
                let samples = samples.get(skipped * width..end * width).unwrap_or_default();
                Ok(sink.take(*spec, samples)?)
            }
        }
    }
}

/// Decoder of the blocks of a WAV file in ADPCM.
pub(super) struct Adpcm {
    decoder: Box<dyn AudioDecoder>,
    spec: Spec,
    /// Frames that a block of this size gives.
    frames: u64,
    samples: Vec<f32>,
}

impl Adpcm {
    /// For blocks of so many bytes.
    ///
    /// # Errors
    /// When they cannot hold what they are to hold.
    pub(super) fn new(spec: Spec, microsoft: bool, block: usize) -> Result<Self, String> {
        let channels = usize::from(spec.channels);
        // A header of each channel holds one or two samples; then there are two in a byte.
        let frames =
            if microsoft { (block / channels - 7) * 2 + 2 } else { (block / channels - 4) * 2 + 1 }
                as u64;
        let mut parameters = AudioCodecParameters::new();
        let positions = if channels == 1 {
            Position::FRONT_CENTER
        } else {
            Position::FRONT_LEFT | Position::FRONT_RIGHT
        };
        parameters
            .for_codec(if microsoft { CODEC_ID_ADPCM_MS } else { CODEC_ID_ADPCM_IMA_WAV })
            .with_sample_rate(spec.rate)
            .with_channels(Channels::Positioned(positions))
            .with_max_frames_per_packet(frames)
            .with_frames_per_block(frames);
        let decoder = get_codecs()
            .make_audio_decoder(&parameters, &AudioDecoderOptions::default())
            .map_err(|fault| told(&fault))?;
        Ok(Self { decoder, spec, frames, samples: Vec::new() })
    }

    /// Decodes a whole block.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn decode(&mut self, block: &[u8], sink: &mut Sink<'_>) -> Result<(), String> {
        let packet = Packet::new(0, Timestamp::new(0), Duration::from(self.frames), block);
        let decoded = self.decoder.decode(&packet).map_err(|fault| told(&fault))?;
        decoded.copy_to_vec_interleaved(&mut self.samples);
        sink.take(self.spec, &self.samples)
    }
}

fn told(fault: &Fault) -> String {
    match fault {
        Fault::IoError(error) if is_end(error) => "is cut short".into(),
        Fault::ResetRequired => {
            format!("holds several recordings one behind the other: {CONVERT}")
        }
        Fault::Unsupported(what) if what.contains("missing") => {
            format!("is damaged or cut short: {what}")
        }
        Fault::Unsupported(what) => format!("is not read: {what}: {CONVERT}"),
        Fault::DecodeError(what) => format!("is damaged: {what}"),
        other => other.to_string(),
    }
}

fn is_end(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
}
