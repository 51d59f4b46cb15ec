//! The kernels at the shape of Phi-4-mini, and how near they are to what the machine can do:
//! `cargo bench -p outpost-kernels -- [FILTER]`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for developers")]

mod peaks;

use std::cell::RefCell;
use std::hint::black_box;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use outpost_kernels::{
    AlignedBytes, Epilogue, Format, Input, Isa, Kernels, KvBlock, KvFormat, KvShape, Matrix,
    Queries, attend,
};

/// Rows and width of the matrices of a layer: queries, keys and values; their output; gate and up; down.
const MATRICES: [(usize, usize); 4] = [(5120, 3072), (3072, 3072), (16384, 3072), (3072, 8192)];
const LAYERS: usize = 32;

/// Layers that are there: more than half a gigabyte, so that no cache holds them.
const DISTINCT: usize = 10;

fn threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|isa| *isa != Isa::Portable)
}

fn layer() -> Vec<Matrix> {
    let matrix = |(rows, width)| {
        let mut bytes = AlignedBytes::zeroed(Format::Q4.bytes(rows, width).unwrap());
        for (i, eight) in bytes.as_mut_slice().as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // No exponent of f32 is all ones, whatever the place.
            *eight = ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0x3f3f_3f3f_3f3f_3f3f)
                .to_le_bytes();
        }
        Matrix::new(Format::Q4, rows, width, bytes.into()).unwrap()
    };
    MATRICES.into_iter().map(matrix).collect()
}

/// Products of all of a layer's matrices.
fn products(criterion: &mut Criterion) {
    let layers: Vec<_> = (0..DISTINCT).map(|_| layer()).collect();
    let bytes: usize = layers[0].iter().map(|matrix| matrix.bytes().len()).sum();
    let weights: usize = MATRICES.iter().map(|(rows, width)| rows * width).sum();
    for isa in isas() {
        let kernels = Kernels::new(isa, threads());
        let read = peaks::bandwidth(kernels.pool());
        let multiply = peaks::multiply_adds(kernels.pool(), isa);
        let gigamacs = multiply
            .map_or_else(String::new, |rate| format!(", {:.0} G multiply-adds/s", rate / 1e9));
        println!("{isa}: at best {:.1} GB/s{gigamacs}", read / 1e9);
        let mut group = criterion.benchmark_group(format!("layer/{isa}"));
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        for positions in [1, 8, 64, 512] {
            group.throughput(Throughput::Elements(positions as u64));
            let (mut input, mut out) = (Input::default(), Vec::new());
            let times = RefCell::new(Vec::new());
            let mut next = layers.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(positions), |bencher| {
                bencher.iter_custom(|iterations| {
                    let begin = Instant::now();
                    for layer in next.by_ref().take(iterations as usize) {
                        for matrix in layer {
                            input.begin(positions, matrix.width()).fill(0.5);
                            out.resize(positions * matrix.rows(), 0.0);
                            kernels.product(matrix, &mut input, &mut out, Epilogue::Store);
                        }
                    }
                    let time = begin.elapsed();
                    times.borrow_mut().push(time / iterations as u32);
                    time
                });
            });
            if let Some(time) = median(times.take()) {
                let share = |rate: f64, peak: f64| format!("{:.0} %", 100.0 * rate / time / peak);
                println!(
                    "{isa}, {positions} positions: {:.1} t/s through {LAYERS} layers; {} of the bandwidth, {} of the multiply-adds",
                    positions as f64 / time / LAYERS as f64,
                    share(bytes as f64, read),
                    multiply
                        .map_or("?".to_owned(), |peak| share((weights * positions) as f64, peak)),
                );
            }
        }
        group.finish();
    }
}

fn median(mut times: Vec<Duration>) -> Option<f64> {
    times.sort();
    times.get(times.len() / 2).map(Duration::as_secs_f64)
}

/// Attention of one position, and of a prompt's part, in a layer.
fn attention(criterion: &mut Criterion) {
    const HEADS: usize = 24;
    let shape = KvShape { layers: 1, heads: 8, head_dim: 128, format: KvFormat::Bf16 };
    for isa in isas() {
        let kernels = Kernels::new(isa, threads());
        let mut group = criterion.benchmark_group(format!("attention/{isa}"));
        group.sample_size(10);
        for behind in [2_048, 16_384] {
            let blocks: Vec<_> =
                (0..behind / KvBlock::POSITIONS + 4).map(|_| KvBlock::new(shape)).collect();
            for positions in [1, 256] {
                let values = vec![0.5; positions * HEADS * shape.head_dim];
                let mut out = vec![0.0; values.len()];
                let queries = Queries { values: &values, heads: HEADS, start: behind };
                group.throughput(Throughput::Elements(positions as u64));
                group.bench_function(
                    BenchmarkId::new(format!("behind {behind}"), positions),
                    |bencher| {
                        bencher.iter(|| attend(&kernels, &blocks, 0, queries, black_box(&mut out)));
                    },
                );
            }
        }
        group.finish();
    }
}

/// Rounding a panel on one thread, as an import does.
fn pack(criterion: &mut Criterion) {
    let width = MATRICES[0].1;
    let values: Vec<f32> = (0..16 * width as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e7 - 0.8)
        .collect();
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Elements(values.len() as u64));
    for format in [Format::Q4, Format::Q8, Format::Bf16] {
        group.bench_function(format!("{format:?}"), |bencher| {
            bencher.iter(|| black_box(format.pack(&values, width)));
        });
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = pack, attention, products
}
criterion_main!(kernels);
