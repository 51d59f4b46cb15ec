//! Every kernel that this CPU has, against sums in f64 and against each other.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::mapping::AlignedBytes;

const FORMATS: [Format; 4] = [Format::Q4, Format::Q8, Format::Bf16, Format::F32];

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn input(xs: &[f32], width: usize) -> Input {
    let mut input = Input::default();
    input.begin(xs.len() / width, width).copy_from_slice(xs);
    input
}

/// `xs @ matrix^T` by the numbers that the codes stand for.
fn expected(matrix: &Matrix, xs: &[f32]) -> Vec<f64> {
    let mut row = vec![0.0; matrix.width()];
    let mut ys = vec![0.0; xs.len() / matrix.width() * matrix.rows()];
    for number in 0..matrix.rows() {
        matrix.row(number, &mut row);
        for (position, xs) in xs.chunks_exact(matrix.width()).enumerate() {
            let sum = xs.iter().zip(&row).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            ys[position * matrix.rows() + number] = sum;
        }
    }
    ys
}

/// The largest difference, as a share of `size`.
fn distance(found: &[f32], expected: &[f64], size: f64) -> f64 {
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    differences.fold(0.0, f64::max) / size
}

/// What sums of `width` products of numbers between -1 and 1 typically are: a single one may be next to 0.
fn typical(width: usize) -> f64 {
    (width as f64).sqrt() / 3.0
}

/// Rounding activations: to 8 bits a group, or to bf16 in tiles. A sum of some dozen products can be off by a few roundings.
fn tolerance(format: Format, isa: Isa) -> f64 {
    match (format, isa) {
        (Format::Q4 | Format::Q8, _) => 0.06,
        (Format::Bf16, Isa::Amx) => 0.03,
        (Format::Bf16 | Format::F32, _) => 1e-5,
    }
}

/// A few cases, unless `PROPTEST_CASES` says otherwise.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(40))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_are_a_matrix(bytes: Vec<u8>, rows in 1_usize..40, groups in 1_usize..5, seed: u64) {
        let width = groups * GROUP;
        for format in FORMATS {
            let whole: Vec<u8> =
                bytes.iter().copied().chain([seed as u8]).cycle().take(format.bytes(rows, width).unwrap()).collect();
            let matrix = Matrix::new(format, rows, width, AlignedBytes::copy_of(&whole).into()).unwrap();
            let mut row = vec![0.0; width];
            matrix.row(rows - 1, &mut row);
            for positions in [1, 13] {
                for isa in Isa::available() {
                    let mut out = vec![0.0; positions * rows];
                    let xs = random(seed, positions * width);
                    Kernels::new(isa, 1).product(&matrix, &mut input(&xs, width), &mut out, Epilogue::Store);
                }
            }
            prop_assert!(Matrix::new(format, rows + 16, width, AlignedBytes::copy_of(&whole).into()).is_err());
        }
    }

    #[test]
    fn products_are_those_of_the_numbers(
        rows in 1_usize..70,
        groups in 1_usize..9,
        positions in 1_usize..45,
        threads in 1_usize..4,
        seed: u64,
    ) {
        let width = groups * GROUP;
        let xs = random(seed, positions * width);
        let weights = random(seed ^ 1, rows * width);
        for format in FORMATS {
            let matrix = Matrix::pack(format, &weights, width).unwrap();
            let expected = expected(&matrix, &xs);
            for isa in Isa::available() {
                let kernels = Kernels::new(isa, threads);
                let mut out = vec![f32::NAN; positions * rows];
                kernels.product(&matrix, &mut input(&xs, width), &mut out, Epilogue::Store);
                let distance = distance(&out, &expected, typical(width));
                prop_assert!(distance < tolerance(format, isa), "{format:?} {isa}: {distance}");
            }
        }
    }

    #[test]
    fn floats_take_any_width(width in 1_usize..100, rows in 1_usize..40, positions in 1_usize..40) {
        let xs = random(3, positions * width);
        let weights = random(4, rows * width);
        for format in [Format::Bf16, Format::F32] {
            let matrix = Matrix::pack(format, &weights, width).unwrap();
            let expected = expected(&matrix, &xs);
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; positions * rows];
                let kernels = Kernels::new(isa, 2);
                kernels.product(&matrix, &mut input(&xs, width), &mut out, Epilogue::Store);
                let distance = distance(&out, &expected, typical(width));
                prop_assert!(distance < tolerance(format, isa), "{format:?} {isa}: {distance}");
            }
        }
    }
}

#[test]
fn sums_of_codes_are_the_same_on_every_instruction_set() {
    // Few positions take the products of codes everywhere: their integer sums are exact, and what is left is the order in which
    // floats are added.
    let (rows, width, positions) = (100, 1024, 9);
    let weights = random(5, rows * width);
    let xs = random(6, positions * width);
    for format in [Format::Q4, Format::Q8] {
        let matrix = Matrix::pack(format, &weights, width).unwrap();
        let product = |isa| {
            let mut out = vec![0.0; positions * rows];
            let kernels = Kernels::new(isa, 1);
            kernels.product(&matrix, &mut input(&xs, width), &mut out, Epilogue::Store);
            out
        };
        let portable: Vec<f64> = product(Isa::Portable).into_iter().map(f64::from).collect();
        for isa in Isa::available() {
            let distance = distance(&product(isa), &portable, typical(width));
            assert!(distance < 2e-6, "{format:?} {isa}: {distance}");
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    // The largest activations on the largest codes, in every column.
    let width = 2048;
    for (low, high) in [(-1.0, 1.0), (1.0, 1.0), (-1.0, -1.0)] {
        let row: Vec<f32> = (0..width).map(|i| if i == 0 { low } else { high }).collect();
        let weights = row.repeat(16);
        let xs = vec![3.0; 4 * width];
        for format in [Format::Q4, Format::Q8] {
            let matrix = Matrix::pack(format, &weights, width).unwrap();
            let expected = expected(&matrix, &xs);
            for isa in Isa::available() {
                let mut out = vec![0.0; 4 * 16];
                let kernels = Kernels::new(isa, 1);
                kernels.product(&matrix, &mut input(&xs, width), &mut out, Epilogue::Store);
                let distance = distance(&out, &expected, 3.0 * width as f64);
                assert!(distance < 1e-4, "{format:?} {isa}: {distance}");
            }
        }
    }
}

#[test]
fn an_adapter_is_added_to_what_is_there() {
    let (rows, width) = (48, 64);
    let matrix = Matrix::pack(Format::Q8, &random(7, rows * width), width).unwrap();
    for positions in [1, 30] {
        let xs = random(8, positions * width);
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, 2);
            let mut input = input(&xs, width);
            let mut once = vec![0.0; positions * rows];
            kernels.product(&matrix, &mut input, &mut once, Epilogue::Store);
            let mut added = vec![1.0; positions * rows];
            kernels.product(&matrix, &mut input, &mut added, Epilogue::Add(0.5));
            let near = once.iter().zip(&added).all(|(a, b)| (1.0 + 0.5 * a - b).abs() < 1e-5);
            assert!(near, "{isa}");
        }
    }
}

#[test]
fn rows_of_the_head_are_those_of_the_whole() {
    let (rows, width, positions) = (300, 96, 3);
    let wanted = [0, 1, 15, 16, 17, 100, 255, 298, 299];
    let xs = random(9, positions * width);
    for format in FORMATS {
        let matrix = Matrix::pack(format, &random(10, rows * width), width).unwrap();
        for isa in Isa::available() {
            let kernels = Kernels::new(isa, 2);
            let mut whole = vec![0.0; positions * rows];
            kernels.product(&matrix, &mut input(&xs, width), &mut whole, Epilogue::Store);
            let mut some = vec![0.0; wanted.len()];
            kernels.product_of_rows(&matrix, &mut input(&xs, width), &wanted, &mut some);
            for (row, found) in wanted.iter().zip(some) {
                let expected = whole[2 * rows + *row as usize];
                assert!((found - expected).abs() < 1e-5, "{format:?} {isa} row {row}");
            }
        }
    }
}

#[test]
fn an_input_is_filled_again_for_other_positions() {
    let kernels = Kernels::new(Isa::Portable, 1);
    let matrix = Matrix::pack(Format::Q4, &random(11, 16 * 64), 64).unwrap();
    let mut reused = Input::default();
    for (seed, positions) in [(12, 5), (13, 1), (14, 7)] {
        let xs = random(seed, positions * 64);
        reused.begin(positions, 64).copy_from_slice(&xs);
        let (mut found, mut expected) = (vec![0.0; positions * 16], vec![0.0; positions * 16]);
        kernels.product(&matrix, &mut reused, &mut found, Epilogue::Store);
        kernels.product(&matrix, &mut input(&xs, 64), &mut expected, Epilogue::Store);
        assert_eq!(found, expected);
    }
}
