//! What the machine can do at best, measured: reading memory, and multiplying in registers alone.

use std::arch::asm;
use std::hint::black_box;
use std::time::Instant;

use outpost_kernels::{AlignedBytes, Isa, Pool};

/// Far beyond any cache.
const READ: usize = 768 << 20;

/// Bytes a second that all threads together read from memory, the best of three passes.
pub(crate) fn bandwidth(pool: &Pool) -> f64 {
    let mut bytes = AlignedBytes::zeroed(READ);
    // Pages are there once they are written to.
    bytes.as_mut_slice().iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let parts: Vec<&[u8]> = bytes.chunks(READ.div_ceil(pool.threads())).collect();
    best_of(3, || {
        pool.run(parts.len(), |part| {
            let mut sums = [0_u64; 16];
            for line in parts[part].as_chunks::<128>().0 {
                for (sum, eight) in sums.iter_mut().zip(line.as_chunks().0) {
                    *sum ^= u64::from_le_bytes(*eight);
                }
            }
            black_box(sums);
        });
        READ as f64
    })
}

/// Multiply-adds a second that all threads together do without touching memory: the instruction that an instruction set's
/// kernels for many positions are made of. `None` for plain Rust, which has no such.
pub(crate) fn multiply_adds(pool: &Pool, isa: Isa) -> Option<f64> {
    const ROUNDS: u64 = 4_000_000;
    let each = spin(isa, 1)?;
    Some(best_of(3, || {
        pool.run(pool.threads(), |_| {
            spin(isa, ROUNDS);
        });
        pool.threads() as f64 * ROUNDS as f64 * each
    }))
}

fn best_of(times: usize, run: impl Fn() -> f64) -> f64 {
    let once = || {
        let begin = Instant::now();
        run() / begin.elapsed().as_secs_f64()
    };
    (0..times).map(|_| once()).fold(0.0, f64::max)
}

/// Eight instructions (AMX: four) that don't wait for each other, so many times; how many multiply-adds they are.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions without operands in memory")]
fn spin(isa: Isa, rounds: u64) -> Option<f64> {
    /// A loop around instructions, whose registers are given up.
    macro_rules! spin {
        ([$($line:literal),*], $($register:tt),*) => {
            // SAFETY: benches take instruction sets that this CPU has; registers alone change.
            unsafe {
                asm!(
                    "2:", $($line,)* "dec {rounds}", "jnz 2b",
                    rounds = inout(reg) rounds => _, $(out($register) _,)*
                    options(nomem, nostack),
                )
            }
        };
    }
    let each = match isa {
        Isa::Amx => {
            tiles(rounds);
            4 * 16 * 16 * 32
        }
        Isa::Avx512Vnni => {
            spin!(
                [
                    "vpdpbusd zmm0, zmm8, zmm9",
                    "vpdpbusd zmm1, zmm8, zmm9",
                    "vpdpbusd zmm2, zmm8, zmm9",
                    "vpdpbusd zmm3, zmm8, zmm9",
                    "vpdpbusd zmm4, zmm8, zmm9",
                    "vpdpbusd zmm5, zmm8, zmm9",
                    "vpdpbusd zmm6, zmm8, zmm9",
                    "vpdpbusd zmm7, zmm8, zmm9"
                ],
                "zmm0",
                "zmm1",
                "zmm2",
                "zmm3",
                "zmm4",
                "zmm5",
                "zmm6",
                "zmm7"
            );
            8 * 64
        }
        Isa::AvxVnni => {
            spin!(
                [
                    "{{vex}} vpdpbusd ymm0, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm1, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm2, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm3, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm4, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm5, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm6, ymm8, ymm9",
                    "{{vex}} vpdpbusd ymm7, ymm8, ymm9"
                ],
                "ymm0",
                "ymm1",
                "ymm2",
                "ymm3",
                "ymm4",
                "ymm5",
                "ymm6",
                "ymm7"
            );
            8 * 32
        }
        Isa::Avx2 => {
            spin!(
                [
                    "vpmaddubsw ymm10, ymm8, ymm9",
                    "vpaddw ymm0, ymm0, ymm10",
                    "vpmaddubsw ymm11, ymm8, ymm9",
                    "vpaddw ymm1, ymm1, ymm11",
                    "vpmaddubsw ymm12, ymm8, ymm9",
                    "vpaddw ymm2, ymm2, ymm12",
                    "vpmaddubsw ymm13, ymm8, ymm9",
                    "vpaddw ymm3, ymm3, ymm13"
                ],
                "ymm0",
                "ymm1",
                "ymm2",
                "ymm3",
                "ymm10",
                "ymm11",
                "ymm12",
                "ymm13"
            );
            4 * 32
        }
        _ => return None,
    };
    Some(f64::from(each))
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "tile registers are reached by assembly alone")]
fn tiles(rounds: u64) {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        (config.0[16 + 2 * tile], config.0[48 + tile]) = (64, 16);
    }
    // SAFETY: the CPU has AMX and the system permits it, since this instruction set is available; the assembly reads the
    // configuration and changes tile registers alone, which it releases.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm4",
            "tilezero tmm5",
            "tilezero tmm6",
            "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &raw const config,
            rounds = inout(reg) rounds => _,
            options(nostack),
        );
    }
}

/// Not measured here.
#[cfg(not(target_arch = "x86_64"))]
fn spin(_: Isa, _: u64) -> Option<f64> {
    None
}
