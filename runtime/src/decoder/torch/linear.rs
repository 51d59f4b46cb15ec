//! A matrix as libtorch multiplies it: dense, or with its codes packed as on a GPU.

use outpost_kernels::{Format, Matrix};
use tch::Tensor;

use super::Target;
use crate::error::Result;
use crate::quantized::{Int4, Int8};
use crate::weights::Weights;

/// `ys = xs @ weight^T` for `xs` `[n, width]`, without a bias.
#[derive(Debug)]
pub(super) enum Linear {
    /// `[rows, width]`.
    Dense(Tensor),
    Int4(Int4),
    Int8(Int8),
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
        if target.as_gpu && Int4::takes(matrix) {
            return Int4::of(matrix, target.device).map(Self::Int4);
        }
        if target.as_gpu && matrix.format() == Format::Q8 {
            return Int8::of(matrix, target.device, target.kind).map(Self::Int8);
        }
        dense(matrix, target).map(Self::Dense)
    }

    pub(super) fn rows(&self) -> usize {
        let rows = match self {
            Self::Dense(weight) => weight.size()[0],
            Self::Int4(weight) => weight.rows(),
            Self::Int8(weight) => weight.rows(),
        };
        rows as usize
    }

    pub(super) fn forward(&self, xs: &Tensor) -> Tensor {
        match self {
            Self::Dense(weight) => xs.linear::<&Tensor>(weight, None),
            Self::Int4(weight) => weight.product(xs),
            Self::Int8(weight) => weight.product(xs),
        }
    }
}

/// The numbers of a matrix, on the device.
fn dense(matrix: &Matrix, target: Target) -> Result<Tensor> {
    let (rows, width) = (matrix.rows(), matrix.width());
    let whole = Tensor::f_empty([rows as i64, width as i64], (target.kind, target.device))?;
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
