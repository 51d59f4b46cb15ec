//! The link between Outpost and a microcontroller.
//!
//! # Layout
//! - [`wire`]: the protocol and the link as a pure state machine. No allocator, no clock, no I/O, no unsafe code.
//! - [`device`]: a firmware's main loop over any UART and pins; firmware links these two.
//! - [`host`], [`simulator`] (feature `std`): the host's end of the line on a serial port, and a board without hardware.
//!
//! # The path of a message
//! [`wire::Message`] → [`wire::Link`] → bytes on a serial line → [`wire::Link`] → [`wire::Event`].

#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod device;
#[cfg(feature = "std")]
pub mod host;
#[cfg(feature = "std")]
pub mod simulator;
pub mod wire;
