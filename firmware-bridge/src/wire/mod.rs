//! The wire protocol, version 1.
//!
//! # A frame on the line
//! ```text
//! line = { COBS(body) 0x00 }
//! body = magic:u8  version:u8  sequence:u8  message:postcard  crc:u32 little-endian
//! ```
//! - COBS removes every zero from the body, so a zero always ends a frame. A reader that starts in the middle, or lost
//!   a byte, is in step again after the next zero. Empty frames are legal and mean nothing: a sender may put a zero
//!   first to flush what noise left on the line.
//! - The CRC is CRC-32/ISO-HDLC over all bytes of the body before it.
//! - The message is one [`Message`] in postcard's format: the variant's number, then its fields in order.
//! - A body has at most [`MAX_BODY`] bytes and a frame, with its final zero, at most [`MAX_FRAME`].
//!
//! # Order of checks
//! Length and COBS, then the CRC, then magic and version, then the message, which must use every byte left. No field
//! is looked at before the CRC has vouched for it, so an error about the version can be believed.
//!
//! # Versions
//! [`PROTOCOL_VERSION`] counts incompatible changes and travels in every frame. [`SCHEMA_HASH`] follows from the
//! message table itself and travels in [`Hello`], so that two builds of one version that differ all the same are found
//! out. The version of the firmware is a third number, and means nothing to the protocol.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod crc;
mod frame;
mod message;
mod schema;

pub use frame::{DecodeError, Decoder, EncodeError, Frame, MAX_BODY, MAX_FRAME, decode, encode};
pub use message::{
    Ack, Action, AgentState, Capabilities, Capability, Command, Function, Heartbeat, Hello,
    InputEvent, InputKind, LogLevel, LogLine, LogText, Message, Name, Outcome, Quantity, Reading,
    Version,
};
pub use schema::{PROTOCOL_VERSION, SCHEMA_HASH};
