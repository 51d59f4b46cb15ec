//! The link between Outpost and a microcontroller.
//!
//! # Layout
//! - [`wire`]: the protocol. Firmware links this part: `no_std`, no allocator, no unsafe code.
//!
//! # The path of a message
//! [`wire::Message`] → [`wire::encode`] → bytes on a serial line → [`wire::Decoder`] → [`wire::Frame`].
//!
//! # What is absent
//! The crate does no I/O and reads no clock.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod wire;
