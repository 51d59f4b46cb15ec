//! The wire protocol, version 2.
//!
//! # A frame on the line
//! ```text
//! line  = { COBS(body) 0x00 }
//! body  = mark:u8  control:u8  sequence:u8  next:u8  payload  checksum
//! mark  = 010c vvvv   c: 0 for CRC-32, 1 for CRC-16   v: PROTOCOL_VERSION
//! control = 0000 0bkk b: busy   k: 0 hello, 1 data, 2 acknowledgement
//! ```
//! - COBS removes every zero from the body, so a zero always ends a frame. A reader that starts in the middle, or lost
//!   a byte, is in step again after the next zero. Empty frames are legal and mean nothing: a sender may put a zero
//!   first to flush what noise left on the line.
//! - `sequence` numbers the sender's messages from 0 in each session; `next` is the number of the message that the sender
//!   expects from the other end. Both are 0 in a hello.
//! - The payload is a [`Hello`], a [`Message`] or nothing, in postcard's format: the variant's number, then its fields in
//!   order.
//! - The checksum is little-endian, CRC-32/ISO-HDLC or CRC-16/IBM-SDLC, over a key of four bytes (little-endian) and then
//!   all bytes of the body before it. The key is not on the line: it is 0 in a hello, and in the frames of a session the
//!   CRC-32 over sender's boot:u32, sender's epoch:u16, receiver's boot:u32, receiver's epoch:u16, all little-endian.
//! - A body has at most [`MAX_BODY`] bytes and a frame, with its final zero, at most [`MAX_FRAME`].
//!
//! # Order of checks
//! Length and COBS, then the checksum, then mark and kind, then the payload, which must use every byte left. No field
//! is acted upon before its checksum is verified, so an error about the version can be believed. Every version
//! keeps COBS, the mark, the place of the checksum and the key of a hello: any two can tell each other which they are.
//!
//! # Versions
//! [`PROTOCOL_VERSION`] counts incompatible changes and travels in every frame. [`SCHEMA_HASH`] follows from the
//! message table itself and travels in [`Hello`], with [`Hello::kinds`]: two ends of one version whose tables differ keep
//! what both know. The version of the firmware is a third number, and means nothing to the protocol.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![warn(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod crc;
mod frame;
mod kinds;
mod link;
mod message;
mod schema;

pub use crc::{Check, Key};
pub use frame::{
    Bytes, Cutter, DecodeError, EncodeError, Frame, MAX_BODY, MAX_FRAME, Receipt, Unknown, decode,
    encode_ack, encode_data, encode_hello,
};
pub use link::{
    Event, Introduction, Link, MAX_WINDOW, Millis, Refusal, SendError, Stats, Step, Timing, Why,
};
pub use message::{
    Action, AgentState, Answer, Ask, Capabilities, Capability, ChannelName, Clock, ClockAsk,
    Command, Cue, Function, Hello, Identity, InputEvent, InputKind, LogLevel, LogLine, Message,
    Name, Outcome, Quantity, Reading, Reply, Role, Text, Version,
};
pub use schema::{PROTOCOL_VERSION, SCHEMA_HASH};
