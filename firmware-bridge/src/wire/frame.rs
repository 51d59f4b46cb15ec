//! Messages to frames, and a stream of bytes back to messages.

use super::{Message, PROTOCOL_VERSION, crc};
use core::fmt;
use heapless::Vec;

/// First byte of every body.
const MAGIC: u8 = b'O';
const HEADER: usize = 3;

/// Most bytes of a body. The largest message fits; a test holds that true.
pub const MAX_BODY: usize = 128;
/// Most bytes of a frame, its final zero included.
pub const MAX_FRAME: usize = MAX_ENCODED + 1;
const MAX_ENCODED: usize = cobs::max_encoding_length(MAX_BODY);

/// A message with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Counts the sender's frames, wrapping. An [`Ack`](super::Ack) refers to it.
    pub sequence: u8,
    /// What it carries.
    pub message: Message,
}

/// Turns a message into a frame, its final zero included.
///
/// # Errors
/// [`EncodeError`] if the message is larger than a frame, which no message of the table is.
pub fn encode(sequence: u8, message: &Message) -> Result<Vec<u8, MAX_FRAME>, EncodeError> {
    let mut body: Vec<u8, MAX_BODY> = Vec::new();
    body.extend_from_slice(&[MAGIC, PROTOCOL_VERSION, sequence]).map_err(|_| EncodeError)?;
    let mut payload = [0; MAX_BODY];
    let payload = postcard::to_slice(message, &mut payload).map_err(|_| EncodeError)?;
    body.extend_from_slice(payload).map_err(|_| EncodeError)?;
    let checksum = crc::of(&body);
    body.extend_from_slice(&checksum).map_err(|_| EncodeError)?;

    let mut encoded = [0; MAX_ENCODED];
    let len = cobs::try_encode(&body, &mut encoded).map_err(|_| EncodeError)?;
    let mut frame = Vec::new();
    frame.extend_from_slice(encoded.get(..len).ok_or(EncodeError)?).map_err(|_| EncodeError)?;
    frame.push(0).map_err(|_| EncodeError)?;
    Ok(frame)
}

/// Reads one frame, given without its final zero.
///
/// # Errors
/// [`DecodeError`] says which check failed, in the order of the checks.
pub fn decode(encoded: &[u8]) -> Result<Frame, DecodeError> {
    let mut body = [0; MAX_BODY];
    let report = cobs::decode(encoded, &mut body).map_err(|error| match error {
        cobs::DecodeError::TargetBufTooSmall => DecodeError::TooLong,
        _ => DecodeError::Stuffing,
    })?;
    let body = body.get(..report.frame_size()).ok_or(DecodeError::Stuffing)?;
    let (checked, checksum) =
        body.split_last_chunk::<{ crc::LEN }>().ok_or(DecodeError::TooShort)?;
    let (header, payload) = checked.split_first_chunk::<HEADER>().ok_or(DecodeError::TooShort)?;
    if crc::of(checked) != *checksum {
        return Err(DecodeError::Checksum);
    }
    let [magic, version, sequence] = *header;
    if magic != MAGIC {
        return Err(DecodeError::Magic);
    }
    if version != PROTOCOL_VERSION {
        return Err(DecodeError::Version { theirs: version });
    }
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(Frame { sequence, message }),
        _ => Err(DecodeError::Message),
    }
}

/// Cuts a stream of bytes into frames and reads them.
///
/// After an overlong frame it discards everything up to the next zero, so the tail of one frame is never read as
/// another.
#[derive(Debug, Default)]
pub struct Decoder {
    encoded: Vec<u8, MAX_ENCODED>,
    overlong: bool,
}

impl Decoder {
    /// A decoder that expects the first byte of a frame.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), overlong: false }
    }

    /// Takes the next byte; gives what a frame held, or why it was refused, at the zero that ends it.
    pub fn push(&mut self, byte: u8) -> Option<Result<Frame, DecodeError>> {
        if byte != 0 {
            self.overlong |= self.encoded.push(byte).is_err();
            return None;
        }
        let result = match (self.overlong, self.encoded.as_slice()) {
            (true, _) => Some(Err(DecodeError::TooLong)),
            (false, []) => None,
            (false, encoded) => Some(decode(encoded)),
        };
        *self = Self::new();
        result
    }
}

/// The message is larger than a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeError;

/// Why a frame was refused. Every one of them leaves the decoder ready for the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than any frame has: a zero was lost, or it is another protocol.
    TooLong,
    /// Not COBS: bytes were lost.
    Stuffing,
    /// Fewer bytes than a header and a checksum.
    TooShort,
    /// The checksum is wrong: bytes were damaged.
    Checksum,
    /// A sound frame of some other protocol.
    Magic,
    /// The other end speaks another version of this protocol.
    Version {
        /// The version it speaks.
        theirs: u8,
    },
    /// A sound frame whose message is not in the table, although the version agrees.
    Message,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is larger than a frame")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the frame is too long"),
            Self::Stuffing => f.write_str("the frame is not COBS"),
            Self::TooShort => f.write_str("the frame is too short"),
            Self::Checksum => f.write_str("the frame is damaged"),
            Self::Magic => f.write_str("the frame belongs to another protocol"),
            Self::Version { theirs } => {
                write!(f, "the other end speaks version {theirs}, this one {PROTOCOL_VERSION}")
            }
            Self::Message => f.write_str("the message is unknown"),
        }
    }
}

impl core::error::Error for EncodeError {}
impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
