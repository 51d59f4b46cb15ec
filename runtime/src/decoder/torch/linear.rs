//! A matrix as libtorch multiplies it: dense, or in CUDA's int4 order.

use outpost_kernels::{Format, GROUP, Matrix};
use tch::{Device, Kind, Tensor};

use super::Target;
use crate::error::Result;
use crate::weights::Weights;

/// `ys = xs @ weight^T` for `xs` `[n, width]`, without a bias.
#[derive(Debug)]
pub(super) enum Linear {
    /// `[rows, width]`.
    Dense(Tensor),
    Int4(Int4),
}

/// 4 bits in groups of 32, in the tiles of the CUDA kernel: `w = (code - 8) * scale + zero`.
#[derive(Debug)]
pub(super) struct Int4 {
    weight: Tensor,
    /// `[width / 32, rows, 2]` in bf16.
    scale_zero: Tensor,
    rows: usize,
}

/// Rows that are unpacked at a time.
const ROWS: usize = 512;

impl Linear {
    pub(super) fn load(
        weights: &Weights,
        module: &str,
        rows: usize,
        width: usize,
        target: Target,
    ) -> Result<Self> {
        Self::of(&weights.matrix(module, rows, width)?, target)
    }

    /// A packed matrix, brought to the device.
    pub(super) fn of(matrix: &Matrix, target: Target) -> Result<Self> {
        // The kernel's tiles are 8 rows by 32 columns.
        let is_tiled = target.device != Device::Cpu && matrix.rows().is_multiple_of(8);
        if matrix.format() == Format::Q4 && is_tiled {
            return int4(matrix, target.device).map(Self::Int4);
        }
        dense(matrix, target).map(Self::Dense)
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.size()[0] as usize,
            Self::Int4(int4) => int4.rows,
        }
    }

    pub(super) fn forward(&self, xs: &Tensor) -> Tensor {
        match self {
            Self::Dense(weight) => xs.linear::<&Tensor>(weight, None),
            Self::Int4(int4) => {
                xs.internal_weight_int4pack_mm(&int4.weight, GROUP as i64, &int4.scale_zero)
            }
        }
    }
}

/// The numbers of a matrix, on the device.
fn dense(matrix: &Matrix, Target { device, kind }: Target) -> Result<Tensor> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let whole = Tensor::f_empty([rows as i64, width as i64], (kind, device))?;
    let mut block = vec![0.0_f32; ROWS.min(rows) * width];
    for start in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - start);
        for (row, values) in (start..).zip(block.chunks_exact_mut(width)).take(count) {
            matrix.row(row, values);
        }
        let part =
            Tensor::f_from_slice(&block[..count * width])?.f_view([count as i64, width as i64])?;
        whole.f_narrow(0, start as i64, count as i64)?.f_copy_(&part)?;
    }
    Ok(whole)
}

/// The codes of a matrix in the order of CUDA's kernel, and their scales.
fn int4(matrix: &Matrix, device: Device) -> Result<Int4> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let groups = width / GROUP;
    let (codes, scales) = matrix.q4_codes();
    let size = [rows as i64, width as i64 / 2];
    let inner_tiles =
        [8, 4, 2].into_iter().find(|tiles| width.is_multiple_of(16 * tiles)).unwrap_or(2);
    let weight = Tensor::f_from_data_size(&codes, &size, Kind::Uint8)?
        .f_to(device)?
        .f_internal_convert_weight_to_int4pack(inner_tiles as i64)?;
    let scale_zero = Tensor::f_from_slice(&scales)?
        .f_view([groups as i64, rows as i64, 2])?
        .f_to_kind(Kind::BFloat16)?
        .f_to(device)?;
    Ok(Int4 { weight, scale_zero, rows })
}
