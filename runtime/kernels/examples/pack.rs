//! How fast rows are rounded: `cargo run --release --example pack`.
use outpost_kernels::Format;
fn main() {
    let values: Vec<f32> = (0..16 * 3072u32).map(|i| (i.wrapping_mul(2654435761) >> 8) as f32 / 1e7 - 0.8).collect();
    for format in [Format::Q4, Format::Q8, Format::Bf16] {
        let begin = std::time::Instant::now();
        for _ in 0..100 { std::hint::black_box(format.pack(&values, 3072)); }
        println!("{format:?}: {:.1} M weights a second", 100.0 * values.len() as f64 / begin.elapsed().as_secs_f64() / 1e6);
    }
}
