//! The CPU's arithmetic for a decoder with packed weights: products of a matrix with one position or with many, attention over
//! a KV cache, and the small operations between them.
//!
//! No torch and no model: [`Matrix`] is bytes in the order in which they are multiplied, [`Kernels`] is an instruction set and
//! the threads that use it.
//!
//! # Which kernel runs
//! | [`Isa`] | few positions (decode) | many positions (prefill) |
//! | --- | --- | --- |
//! | `amx` | AVX-512 VNNI, int8 activations | AMX tiles, bf16 |
//! | `avx512-vnni` | AVX-512 VNNI, int8 activations | the same, 8 positions at a time |
//! | `avx-vnni` | 256-bit VNNI, int8 activations | the same, 4 positions at a time |
//! | `avx2` | `vpmaddubsw`, int8 activations | the same, 4 positions at a time |
//! | `neon` | `sdot`, int8 activations | the same, 4 positions at a time |
//! | `portable` | plain Rust | plain Rust |
//!
//! [`Isa::detect`] picks the first that the CPU has; `OUTPOST_KERNEL` names another one.

#![expect(
    clippy::inline_always,
    clippy::needless_range_loop,
    clippy::cast_ptr_alignment,
    reason = "plain loops become vector code only where they are inlined into a function for CPU features; loops over lanes and positions index several arrays; numbers lie in buffers aligned to 64 bytes"
)]
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the intrinsics of an instruction set are hundreds")
)]

mod activations;
mod attention;
mod format;
mod isa;
mod kv;
mod level;
mod mapping;
mod matrix;
mod pool;
mod product;
mod quantize;
mod vector;

pub use self::attention::{Queries, attend};
pub use self::format::Format;
pub use self::isa::Isa;
pub use self::kv::{KvBlock, KvFormat, KvShape};
pub use self::mapping::{AlignedBytes, Bytes};
pub use self::matrix::{Matrix, MatrixError};
pub use self::pool::Pool;
pub use self::product::{Epilogue, Input, Kernels};
pub use self::vector::rotate;

/// Rows of a panel: the output features that are computed together.
pub const PANEL: usize = 16;

/// Columns that share a scale, in weights of 4 bits and in activations of 8 bits.
pub const GROUP: usize = 32;
