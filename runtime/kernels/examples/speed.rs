//! How fast this CPU's kernels are on the matrices of a Phi-4-mini layer: `cargo run --release --example speed [kernel]`.
use outpost_kernels::*;
use std::time::Instant;

fn main() {
    let threads = 2;
    let isas: Vec<Isa> = match std::env::args().nth(1) {
        Some(name) => vec![name.parse().unwrap()],
        None => Isa::available().filter(|isa| *isa != Isa::Portable).collect(),
    };
    let shapes = [(5120, 3072), (3072, 3072), (16384, 3072), (3072, 8192)];
    // Several layers, so that weights come from memory.
    let layers: Vec<Vec<Matrix>> = (0..6)
        .map(|_| {
            shapes
                .iter()
                .map(|(rows, width)| {
                    let bytes = Format::Q4.bytes(*rows, *width).unwrap();
                    let mut data = AlignedBytes::zeroed(bytes);
                    for (i, byte) in data.as_mut_slice().iter_mut().enumerate() {
                        *byte = (i as u32).wrapping_mul(2654435761).to_le_bytes()[3];
                    }
                    Matrix::new(Format::Q4, *rows, *width, data.into()).unwrap()
                })
                .collect()
        })
        .collect();
    let total: usize = layers.iter().flatten().map(|m| m.bytes().len()).sum();
    for isa in isas {
        let kernels = Kernels::new(isa, threads);
        for positions in [1, 8, 16, 64, 512] {
            let mut best = f64::MAX;
            let repeats = if positions < 16 { 5 } else { 2 };
            for _ in 0..repeats {
                let begin = Instant::now();
                for layer in &layers {
                    for matrix in layer {
                        let mut input = Input::default();
                        for (i, x) in input.begin(positions, matrix.width()).iter_mut().enumerate() {
                            *x = (i % 17) as f32 - 8.0;
                        }
                        let mut out = vec![0.0; positions * matrix.rows()];
                        kernels.product(matrix, &mut input, &mut out, Epilogue::Store);
                    }
                }
                best = best.min(begin.elapsed().as_secs_f64());
            }
            let per_model = best * 32.0 / 6.0;
            println!(
                "{isa:12} {positions:4} positions: {:8.1} t/s, {:5.1} GB/s",
                positions as f64 / per_model,
                total as f64 / best / 1e9
            );
        }
    }
}
