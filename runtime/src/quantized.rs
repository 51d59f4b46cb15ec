//! Matrices whose codes stay packed on a GPU, and products with them.
//!
//! Few positions go through libtorch's kernels for few positions, which read each code once. More of them take tiles of the
//! matrix, unpacked to the numbers that are computed in, and a dense product: a prompt pays for unpacking once, and gets the
//! speed of tensor cores. Without a GPU all products take the tiles, which is how they are tested.

use outpost_kernels::{Format, GROUP, Matrix};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Rows that are packed and unpacked at a time: many enough for a dense product to be fast, few enough for the memory plan.
const TILE: usize = 1024;

/// Rows of a tile of the int4 kernel.
const TILE_ROWS: usize = 8;

/// 4 bits in groups of 32, in the order of libtorch's CUDA kernel: `w = (code - 8) * scale + zero`.
#[derive(Debug)]
pub(crate) struct Int4 {
    /// `[rows / 8, width / (32 * pairs), 32, pairs]`: word `[r, c, l, p]` is row `8 r + l / 4` and has eight columns of group
    /// `c * pairs + p`, see [`word`].
    words: Tensor,
    /// `[width / 32, rows, 2]` in bf16.
    scale_zero: Tensor,
    /// What the two codes of a byte stand for, less 8, `[256, 2]`.
    codes: Tensor,
}

/// 8 bits with a scale for each row: `w = code * scale`.
#[derive(Debug)]
pub(crate) struct Int8 {
    /// `[rows, width]`.
    codes: Tensor,
    /// `[rows]`; in f32 on a GPU, which computes with it so.
    scales: Tensor,
}

/// Eight columns of a group for lane `lane`, of the 16 bytes that [`Matrix::q4_codes`] gives for the group. From the lowest bits
/// on these are columns `c`, `c + 8`, `c + 16` and `c + 24` for `c = 2 lane`, then for `c = 2 lane + 1`.
fn word(bytes: &[u8; 16], lane: usize) -> i32 {
    let even = (0..4).map(|i| u32::from(bytes[lane + 4 * i] >> 4) << (4 * i));
    let odd = (0..4).map(|i| u32::from(bytes[lane + 4 * i] & 15) << (16 + 4 * i));
    even.chain(odd).fold(0_u32, |word, code| word | code).cast_signed()
}

/// `xs @ weight^T`, the weight unpacked a tile at a time.
fn by_tiles(xs: &Tensor, rows: i64, unpack: impl Fn(i64, i64) -> Tensor) -> Tensor {
    let tile = TILE as i64;
    let product = |first| xs.linear::<&Tensor>(&unpack(first, tile.min(rows - first)), None);
    let parts: Vec<Tensor> = (0..rows).step_by(TILE).map(product).collect();
    match parts.as_slice() {
        [whole] => whole.shallow_clone(),
        parts => Tensor::cat(parts, 1),
    }
}

impl Int4 {
    /// From so many positions on, a dense product is faster: the kernel reads all codes again for each 16 positions.
    const MANY: i64 = 64;

    /// Whether the kernel has an order for the matrix.
    pub(crate) fn takes(matrix: &Matrix) -> bool {
        matrix.format() == Format::Q4 && matrix.rows().is_multiple_of(TILE_ROWS)
    }

    /// Packs a matrix that it [takes](Self::takes) on the device, a tile at a time: no copy of the whole is made.
    pub(crate) fn of(matrix: &Matrix, device: Device) -> Result<Self> {
        let (rows, groups) = (matrix.rows(), matrix.width() / GROUP);
        let pairs = [4, 2, 1].into_iter().find(|pairs| groups.is_multiple_of(*pairs)).unwrap_or(1);
        let lanes = 4 * TILE_ROWS;
        let size = |rows: usize| [rows / TILE_ROWS, groups / pairs, lanes, pairs].map(|n| n as i64);
        let words = Tensor::f_empty(size(rows), (Kind::Int, device))?;
        let scale_zero =
            Tensor::f_empty([groups as i64, rows as i64, 2], (Kind::BFloat16, device))?;
        for first in (0..rows).step_by(TILE) {
            let count = TILE.min(rows - first);
            let (codes, scales) = matrix.q4_codes(first..first + count);
            let mut part = vec![0; count * groups * 4];
            for (at, bytes) in codes.as_chunks::<16>().0.iter().enumerate() {
                let (row, group) = (at / groups, at % groups);
                let block = row / TILE_ROWS * (groups / pairs) + group / pairs;
                for lane in 0..4 {
                    let of_row = block * lanes + row % TILE_ROWS * 4 + lane;
                    part[of_row * pairs + group % pairs] = word(bytes, lane);
                }
            }
            let part = Tensor::f_from_slice(&part)?.f_view(size(count))?;
            let (block, blocks) = (first / TILE_ROWS, count / TILE_ROWS);
            words.f_narrow(0, block as i64, blocks as i64)?.f_copy_(&part)?;
            let scales = Tensor::f_from_slice(&scales)?.f_view([groups as i64, count as i64, 2])?;
            scale_zero.f_narrow(1, first as i64, count as i64)?.f_copy_(&scales)?;
        }
        let pair = |byte: u8| [byte & 15, byte >> 4].map(|code| f32::from(code) - 8.0);
        let codes: Vec<f32> = (0..=u8::MAX).flat_map(pair).collect();
        let codes = Tensor::f_from_slice(&codes)?.f_view([256, 2])?;
        let codes = codes.f_to_kind(Kind::BFloat16)?.f_to(device)?;
        Ok(Self { words, scale_zero, codes })
    }

    pub(crate) fn rows(&self) -> i64 {
        self.scale_zero.size()[1]
    }

    /// `xs @ weight^T` for `xs` `[n, width]` in bf16.
    pub(crate) fn product(&self, xs: &Tensor) -> Tensor {
        if xs.device() != Device::Cpu && xs.size()[0] < Self::MANY {
            return xs.internal_weight_int4pack_mm(&self.words, GROUP as i64, &self.scale_zero);
        }
        by_tiles(xs, self.rows(), |first, count| self.unpack(first, count))
    }

    /// Some rows in bf16, `[count, width]`; both numbers are multiples of 8.
    fn unpack(&self, first: i64, count: i64) -> Tensor {
        let (outer, pairs) = (self.words.size()[1], self.words.size()[3]);
        let block = |rows: i64| rows / TILE_ROWS as i64;
        let bytes = self.words.narrow(0, block(first), block(count)).view_dtype(Kind::Uint8);
        // A lane's number is row and column; a byte's is odd columns or even ones, and which half of the group.
        let codes = self
            .codes
            .index_select(0, &bytes.to_kind(Kind::Int).reshape([-1]))
            .reshape([block(count), outer, TILE_ROWS as i64, 4, pairs, 2, 2, 2])
            .permute([0, 2, 1, 4, 6, 7, 3, 5])
            .reshape([count, outer * pairs, GROUP as i64]);
        let scale_zero = self.scale_zero.narrow(1, first, count).transpose(0, 1);
        let of = |which| scale_zero.narrow(2, which, 1);
        (codes * of(0) + of(1)).reshape([count, -1])
    }
}

impl Int8 {
    /// As [`Int4::MANY`]; the kernel goes through the codes again for each position.
    const MANY: i64 = 8;

    /// Packs a matrix in [`Format::Q8`] on the device, a tile at a time.
    pub(crate) fn of(matrix: &Matrix, device: Device, kind: Kind) -> Result<Self> {
        let (rows, width) = (matrix.rows(), matrix.width());
        let codes = Tensor::f_empty([rows as i64, width as i64], (Kind::Int8, device))?;
        let kind = if device == Device::Cpu { kind } else { Kind::Float };
        let scales = Tensor::f_empty([rows as i64], (kind, device))?;
        for first in (0..rows).step_by(TILE) {
            let count = TILE.min(rows - first);
            let (part, factors) = matrix.q8_codes(first..first + count);
            let part = Tensor::f_from_slice(&part)?.f_view([count as i64, width as i64])?;
            codes.f_narrow(0, first as i64, count as i64)?.f_copy_(&part)?;
            scales
                .f_narrow(0, first as i64, count as i64)?
                .f_copy_(&Tensor::f_from_slice(&factors)?)?;
        }
        Ok(Self { codes, scales })
    }

    pub(crate) fn rows(&self) -> i64 {
        self.codes.size()[0]
    }

    /// `xs @ weight^T` for `xs` `[n, width]`.
    pub(crate) fn product(&self, xs: &Tensor) -> Tensor {
        if xs.size()[0] < Self::MANY {
            return xs.contiguous().internal_weight_int8pack_mm(&self.codes, &self.scales);
        }
        let kind = xs.kind();
        // Codes are whole numbers below 129, which bf16 holds exactly.
        let unpack = |first, count| self.codes.narrow(0, first, count).to_kind(kind);
        (by_tiles(xs, self.rows(), unpack) * &self.scales).to_kind(kind)
    }
}

/// Multiplies small matrices on the device in each way that a model needs, and compares with f32.
///
/// # Errors
/// When libtorch refuses one, as without kernels for this GPU.
pub(crate) fn check(device: Device) -> Result<std::result::Result<(), String>> {
    let _no_grad = tch::no_grad_guard();
    let (rows, width) = (64, 128);
    let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.37).sin()).collect();
    for (format, name) in [(Format::Q4, "int4"), (Format::Q8, "int8")] {
        let Ok(matrix) = Matrix::pack(format, &values, width) else { continue };
        let mut whole = vec![0.0; rows * width];
        for (row, values) in whole.chunks_exact_mut(width).enumerate() {
            matrix.row(row, values);
        }
        let weight = Tensor::f_from_slice(&whole)?.f_view([rows as i64, width as i64])?;
        for positions in [1, 5, Int4::MANY] {
            let xs = (Tensor::f_arange(positions * width as i64, (Kind::Float, Device::Cpu))?
                * 0.11)
                .f_sin()?
                .f_view([positions, width as i64])?
                .f_to_kind(Kind::BFloat16)?;
            let expected = xs.f_to_kind(Kind::Float)?.f_linear::<&Tensor>(&weight, None)?;
            let on_device = xs.f_to(device)?;
            let found = if format == Format::Q4 {
                let int4 = Int4::of(&matrix, device)?;
                if device != Device::Cpu {
                    // What a GPU lacks shows here, as an error.
                    let (words, scale_zero) = (&int4.words, &int4.scale_zero);
                    let group = GROUP as i64;
                    let _ = on_device.f_internal_weight_int4pack_mm(words, group, scale_zero)?;
                }
                int4.product(&on_device)
            } else {
                let int8 = Int8::of(&matrix, device, Kind::BFloat16)?;
                let _ = on_device.f_internal_weight_int8pack_mm(&int8.codes, &int8.scales)?;
                int8.product(&on_device)
            };
            let found = found.f_to(Device::Cpu)?.f_to_kind(Kind::Float)?;
            let error = (&found - &expected).f_abs()?.f_max()?.f_double_value(&[])?
                / expected.f_abs()?.f_max()?.f_double_value(&[])?;
            // Scales and sums are rounded to bf16.
            if error.is_nan() || error > 0.03 {
                return Ok(Err(format!(
                    "a product of {positions} rows with an {name} matrix is off by {error:.3}"
                )));
            }
        }
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::torch_device;

    fn values(rows: usize, width: usize) -> Vec<f32> {
        (0..rows * width).map(|i| (i as f32 * 0.61).sin() + 0.1).collect()
    }

    fn exact(matrix: &Matrix) -> Tensor {
        let mut whole = vec![0.0; matrix.rows() * matrix.width()];
        for (row, values) in whole.chunks_exact_mut(matrix.width()).enumerate() {
            matrix.row(row, values);
        }
        Tensor::from_slice(&whole).view([matrix.rows() as i64, matrix.width() as i64])
    }

    fn difference(found: &Tensor, expected: &Tensor) -> f64 {
        let expected = expected.to_device(Device::Cpu);
        let found = found.to_device(Device::Cpu).to_kind(Kind::Float);
        let largest = |xs: &Tensor| xs.abs().max().double_value(&[]);
        largest(&(&found - &expected)) / largest(&expected)
    }

    /// The order of libtorch's CUDA kernel as its conversion writes it (`matrix_to_m16n8k16_Bint4_layout`): for tile row
    /// `r`, lane `t` and pair `p` eight codes from the lowest bits on.
    #[test]
    fn words_are_in_the_order_of_the_kernel() {
        // The even column stands in the high bits.
        let bytes: [u8; 16] =
            std::array::from_fn(|i| (((2 * i) as u8 % 16) << 4) | ((2 * i + 1) as u8 % 16));
        for lane in 0..4 {
            let word = word(&bytes, lane).cast_unsigned();
            let columns = [0, 8, 16, 24, 1, 9, 17, 25].map(|offset| 2 * lane + offset);
            for (place, column) in columns.iter().enumerate() {
                assert_eq!(word >> (4 * place) & 15, (column % 16) as u32, "{lane}, {place}");
            }
        }
    }

    #[test]
    fn unpacked_tiles_are_the_rows_of_the_matrix() {
        // Two tiles, and widths for each number of groups in a word.
        for (rows, width) in [(16, 32), (64, 192), (1032, 128), (320, 64)] {
            let matrix = Matrix::pack(Format::Q4, &values(rows, width), width).unwrap();
            let int4 = Int4::of(&matrix, torch_device()).unwrap();
            let whole = exact(&matrix);
            for (first, count) in [(0, rows), (8, rows - 8)] {
                let (first, count) = (i64::from(first), count as i64);
                let found = int4.unpack(first, count);
                let error = difference(&found, &whole.narrow(0, first, count));
                // Scales and numbers are rounded to bf16.
                assert!(error < 0.01, "{rows} x {width}: {error}");
            }
        }
    }

    #[test]
    fn products_with_codes_are_products_with_the_numbers() {
        for (rows, width) in [(16, 32), (1032, 192)] {
            for format in [Format::Q4, Format::Q8] {
                let matrix = Matrix::pack(format, &values(rows, width), width).unwrap();
                let weight = exact(&matrix);
                for positions in [1, 5, 16, 17, 96] {
                    let xs = Tensor::randn([positions, width as i64], (Kind::Float, Device::Cpu))
                        .to_kind(Kind::BFloat16);
                    let expected = xs.to_kind(Kind::Float).linear::<&Tensor>(&weight, None);
                    let xs = xs.to_device(torch_device());
                    let found = match format {
                        Format::Q4 => Int4::of(&matrix, torch_device()).unwrap().product(&xs),
                        _ => {
                            Int8::of(&matrix, torch_device(), Kind::BFloat16).unwrap().product(&xs)
                        }
                    };
                    assert_eq!((found.size()[1], found.kind()), (rows as i64, Kind::BFloat16));
                    let error = difference(&found, &expected);
                    assert!(error < 0.02, "{format:?}, {positions} x {rows} x {width}: {error}");
                }
            }
        }
    }

    #[test]
    fn the_check_accepts_products_that_are_right() {
        assert_eq!(check(torch_device()).unwrap(), Ok(()));
    }

    /// The largest error of products of full shape, as figures for `cargo xtask test --cuda`.
    #[test]
    #[ignore = "takes minutes on a CPU"]
    fn products_of_full_shape_are_right() {
        let _no_grad = tch::no_grad_guard();
        let shapes = [(16, 32), (64, 192), (3072, 320), (16_384, 3072), (3072, 8192)];
        for (rows, width) in shapes {
            for format in [Format::Q4, Format::Q8] {
                let matrix = Matrix::pack(format, &values(rows, width), width).unwrap();
                let weight = exact(&matrix).to_device(torch_device());
                let (int4, int8) = match format {
                    Format::Q4 => (Some(Int4::of(&matrix, torch_device()).unwrap()), None),
                    _ => (None, Some(Int8::of(&matrix, torch_device(), Kind::BFloat16).unwrap())),
                };
                for positions in [1, 5, 16, 17, 96, 320] {
                    let xs =
                        Tensor::randn([positions, width as i64], (Kind::Float, torch_device()))
                            .to_kind(Kind::BFloat16);
                    let expected = xs.to_kind(Kind::Float).linear::<&Tensor>(&weight, None);
                    let found = int4.as_ref().map(|int4| int4.product(&xs));
                    let found = found.or_else(|| int8.as_ref().map(|int8| int8.product(&xs)));
                    let error = difference(&found.unwrap(), &expected);
                    println!(
                        "figure {format:?} {rows}x{width} with {positions} rows: off by {error:.5}"
                    );
                    assert!(error < 0.03, "{format:?}, {positions} x {rows} x {width}: {error}");
                }
            }
        }
    }

    #[test]
    #[ignore = "needs a GPU, which it makes useless for its process"]
    fn a_fault_in_a_kernel_is_found_by_waiting_for_the_gpu() {
        let device = torch_device();
        assert!(device.is_cuda(), "OUTPOST_TEST_DEVICE is cuda");
        let rows = Tensor::zeros([4, 4], (Kind::Float, device));
        let none = Tensor::from_slice(&[1000_i64]).to_device(device);
        // An assertion on the device, which nobody waits for.
        let _ = rows.f_index_select(0, &none);
        let wait = || std::panic::catch_unwind(|| tch::Cuda::synchronize(0));
        assert!(wait().is_err(), "the fault is found");
        assert!(wait().is_err() && rows.f_sum(Kind::Float).is_err(), "and it stays");
        println!("figure a device assert is found, and stays");
    }
}
