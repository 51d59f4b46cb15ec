//! Frames to bytes, and a stream of bytes back to frames.

use super::{Check, Hello, Key, Message, PROTOCOL_VERSION};
use core::fmt;
use heapless::Vec;
use serde::Serialize;

const HEADER: usize = 4;

/// Most bytes of a body. The largest hello fits; a test holds that true.
pub const MAX_BODY: usize = 352;
/// Most bytes of a frame, its final zero included.
pub const MAX_FRAME: usize = MAX_ENCODED + 1;
const MAX_ENCODED: usize = cobs::max_encoding_length(MAX_BODY);

/// The bytes of a frame, ready for the line.
pub type Bytes = Vec<u8, MAX_FRAME>;

/// The first byte of a body: `010c vvvv`, c for the checksum, v for the version.
const MARK: u8 = 0x40;
const MARK_MASK: u8 = 0xe0;
const MARK_CRC_16: u8 = 0x10;
const MARK_VERSION: u8 = 0x0f;

/// The second byte: `0000 0bkk`, k for the kind of frame, b for busy.
const HELLO: u8 = 0;
const DATA: u8 = 1;
const ACK: u8 = 2;
const BUSY: u8 = 4;

/// What travels in one piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::large_enum_variant, reason = "without an allocator there is no box")]
pub enum Frame {
    /// Opens a session.
    Hello(Hello),
    /// A message in its place.
    Data {
        /// Counts the sender's messages, from 0 in each session, wrapping.
        sequence: u8,
        /// What was received.
        receipt: Receipt,
        /// The message, or the number of one that this end does not know or cannot read.
        message: Result<Message, Unknown>,
    },
    /// Nothing to say but what was received, and that the sender is alive.
    Ack(Receipt),
}

/// What the sender of a frame has received itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The number of the next message that it expects: all before it have arrived.
    pub next: u8,
    /// Whether it can take no message for now, and drops them.
    pub busy: bool,
}

/// A message that this end does not know or cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// Its number in the table.
    pub kind: u8,
}

/// A body under construction.
struct Body(Vec<u8, MAX_BODY>);

impl Body {
    fn new(check: Check, kind: u8, sequence: u8, receipt: Receipt) -> Result<Self, EncodeError> {
        let mark = MARK | PROTOCOL_VERSION | if check == Check::Crc16 { MARK_CRC_16 } else { 0 };
        let control = kind | if receipt.busy { BUSY } else { 0 };
        Vec::from_slice(&[mark, control, sequence, receipt.next]).map(Self).map_err(|_| EncodeError)
    }

    fn write(mut self, value: &impl Serialize) -> Result<Self, EncodeError> {
        let mut payload = [0; MAX_BODY];
        let payload = postcard::to_slice(value, &mut payload).map_err(|_| EncodeError)?;
        self.0.extend_from_slice(payload).map_err(|_| EncodeError)?;
        Ok(self)
    }

    fn finish(mut self, check: Check, key: Key) -> Result<Bytes, EncodeError> {
        let checksum = check.of(key, &self.0);
        let checksum = checksum.get(..check.len()).ok_or(EncodeError)?;
        self.0.extend_from_slice(checksum).map_err(|_| EncodeError)?;
        let mut frame = Bytes::new();
        frame.resize(MAX_FRAME, 0).map_err(|_| EncodeError)?;
        let len = cobs::try_encode(&self.0, &mut frame).map_err(|_| EncodeError)?;
        frame.truncate(len);
        frame.push(0).map_err(|_| EncodeError)?;
        Ok(frame)
    }
}

const NOTHING: Receipt = Receipt { next: 0, busy: false };

/// The bytes of a hello.
///
/// # Errors
/// [`EncodeError`] if it is larger than a frame, which no hello is.
pub fn encode_hello(hello: &Hello, check: Check) -> Result<Bytes, EncodeError> {
    Body::new(check, HELLO, 0, NOTHING)?.write(hello)?.finish(check, Key::OPEN)
}

/// The bytes of a message.
///
/// # Errors
/// [`EncodeError`] if it is larger than a frame, which no message of the table is.
pub fn encode_data(
    sequence: u8,
    receipt: Receipt,
    message: &Message,
    (check, key): (Check, Key),
) -> Result<Bytes, EncodeError> {
    Body::new(check, DATA, sequence, receipt)?.write(message)?.finish(check, key)
}

/// The bytes of an acknowledgement without a message.
///
/// # Errors
/// Never in practice: it is the smallest frame.
pub fn encode_ack(receipt: Receipt, (check, key): (Check, Key)) -> Result<Bytes, EncodeError> {
    Body::new(check, ACK, 0, receipt)?.finish(check, key)
}

/// Reads one frame, given without its final zero. `key` is that of the session's frames to this end.
///
/// # Errors
/// [`DecodeError`] says which check failed, in the order of the checks.
pub fn decode(encoded: &[u8], (check, key): (Check, Key)) -> Result<Frame, DecodeError> {
    let mut body = [0; MAX_BODY];
    let report = cobs::decode(encoded, &mut body).map_err(|error| match error {
        cobs::DecodeError::TargetBufTooSmall => DecodeError::TooLong,
        _ => DecodeError::Stuffing,
    })?;
    let body = body.get(..report.frame_size()).ok_or(DecodeError::Stuffing)?;
    let &[mark, control, ..] = body else { return Err(DecodeError::TooShort) };
    let theirs = if mark & MARK_CRC_16 == 0 { Check::Crc32 } else { Check::Crc16 };
    let version = mark & MARK_VERSION;
    let kind = control & !BUSY;
    // What is not of this version and kind of line can be no frame of the session, only a hello.
    let foreign = theirs != check || version != PROTOCOL_VERSION;
    let key = if foreign || kind == HELLO { Key::OPEN } else { key };
    let end = body.len().checked_sub(theirs.len()).ok_or(DecodeError::TooShort)?;
    let (checked, checksum) = body.split_at_checked(end).ok_or(DecodeError::TooShort)?;
    let (header, payload) = checked.split_first_chunk::<HEADER>().ok_or(DecodeError::TooShort)?;
    if !theirs.of(key, checked).starts_with(checksum) {
        return Err(DecodeError::Checksum);
    }
    if mark & MARK_MASK != MARK {
        return Err(DecodeError::Mark);
    }
    if theirs != check {
        return Err(DecodeError::Check { theirs });
    }
    if version != PROTOCOL_VERSION {
        return Err(DecodeError::Version { theirs: version });
    }
    let &[_, _, sequence, next] = header;
    let receipt = Receipt { next, busy: control & BUSY != 0 };
    match (kind, payload) {
        (HELLO, payload) => whole(payload).map(Frame::Hello).ok_or(DecodeError::Hello),
        (DATA, &[kind, ..]) => {
            let message = whole(payload).ok_or(Unknown { kind });
            Ok(Frame::Data { sequence, receipt, message })
        }
        (ACK, []) => Ok(Frame::Ack(receipt)),
        _ => Err(DecodeError::Kind),
    }
}

/// The value in a payload, if it uses every byte of it.
fn whole<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// Cuts a stream of bytes into frames.
///
/// After an overlong frame it discards everything up to the next zero, so the tail of one frame is never read as
/// another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Cutter {
    encoded: Vec<u8, MAX_ENCODED>,
    overlong: bool,
    ended: bool,
}

impl Cutter {
    /// A cutter that expects the first byte of a frame.
    pub const fn new() -> Self {
        Self { encoded: Vec::new(), overlong: false, ended: false }
    }

    /// Takes the next byte; gives a frame for [`decode`] at the zero that ends it.
    pub fn push(&mut self, byte: u8) -> Option<Result<&[u8], DecodeError>> {
        if self.ended {
            *self = Self::new();
        }
        if byte != 0 {
            self.overlong |= self.encoded.push(byte).is_err();
            return None;
        }
        self.ended = true;
        match (self.overlong, self.encoded.as_slice()) {
            (true, _) => Some(Err(DecodeError::TooLong)),
            (false, []) => None,
            (false, encoded) => Some(Ok(encoded)),
        }
    }
}

/// The value is larger than a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeError;

/// Why a frame was refused. Every one of them leaves the line ready for the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than any frame has: a zero was lost, or it is another protocol.
    TooLong,
    /// Not COBS: bytes were lost.
    Stuffing,
    /// Fewer bytes than a header and a checksum.
    TooShort,
    /// The checksum is wrong: bytes were damaged, or the frame is of another session.
    Checksum,
    /// A sound frame of some other protocol.
    Mark,
    /// The other end uses the other checksum.
    Check {
        /// The one it uses.
        theirs: Check,
    },
    /// The other end speaks another version of this protocol.
    Version {
        /// The version it speaks.
        theirs: u8,
    },
    /// A sound frame of no known kind, although the version agrees.
    Kind,
    /// A sound frame whose hello cannot be read, although the version agrees.
    Hello,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value is larger than a frame")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the frame is too long"),
            Self::Stuffing => f.write_str("the frame is not COBS"),
            Self::TooShort => f.write_str("the frame is too short"),
            Self::Checksum => f.write_str("the frame is damaged or of another session"),
            Self::Mark => f.write_str("the frame belongs to another protocol"),
            Self::Check { theirs } => write!(f, "the other end checks frames with {theirs:?}"),
            Self::Version { theirs } => {
                write!(f, "the other end speaks version {theirs}, this one {PROTOCOL_VERSION}")
            }
            Self::Kind => f.write_str("the kind of frame is unknown"),
            Self::Hello => f.write_str("the hello cannot be read"),
        }
    }
}

impl core::error::Error for EncodeError {}
impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
