//! A matrix in the number format of the file, and the kernel that multiplies with it. What the numbers mean is in
//! `import::quantize`, their names are in `weights`.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::dense::{self, Layout};
use crate::error::Result;
use crate::weights::{Weights, sizes};

/// `ys = xs @ weight^T` for `xs` `[n, width]`, without a bias.
#[derive(Debug)]
pub(crate) enum Linear {
    /// f32 or bf16 `[rows, width]`.
    Dense(Tensor),
    Int8(Int8),
    Int4(Int4),
}

/// 8 bits with a scale a row.
#[derive(Debug)]
pub(crate) struct Int8 {
    weight: Tensor,
    scale: Tensor,
}

/// 4 bits in groups, in the order of libtorch's kernel for the device.
#[derive(Debug)]
pub(crate) struct Int4 {
    weight: Tensor,
    scale_zero: Tensor,
    group: i64,
    on_cpu: bool,
    /// How the codes are ordered, where it is known.
    layout: Option<Layout>,
}

impl Linear {
    /// Positions from which a product in another number format is faster, where bf16 has no fast one.
    const DENSE_FROM: i64 = 32;

    /// Reads `{path}.weight` of `[rows, width]` in whatever format it was packed.
    pub(crate) fn load(weights: &Weights, path: &str, rows: usize, width: usize) -> Result<Self> {
        let name = format!("{path}.weight");
        if weights.contains(&format!("{name}.int4")) {
            Int4::load(weights, &name, rows, width).map(Self::Int4)
        } else if weights.contains(&format!("{name}.int8")) {
            Int8::load(weights, &name, rows, width).map(Self::Int8)
        } else {
            weights.tensor(&name, &[rows, width]).map(Self::Dense)
        }
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Tensor {
        match self {
            Self::Dense(weight) => {
                let kind = dense::kind(xs.device());
                if weight.kind() == Kind::BFloat16
                    && kind != Kind::BFloat16
                    && xs.size()[0] >= Self::DENSE_FROM
                {
                    return dense::product(xs, weight, kind);
                }
                xs.linear::<&Tensor>(weight, None)
            }
            Self::Int8(int8) => int8.forward(xs),
            Self::Int4(int4) => int4.forward(xs),
        }
    }

    /// A second handle on the same memory.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Dense(weight) => Self::Dense(weight.shallow_clone()),
            Self::Int8(Int8 { weight, scale }) => {
                Self::Int8(Int8 { weight: weight.shallow_clone(), scale: scale.shallow_clone() })
            }
            Self::Int4(Int4 { weight, scale_zero, group, on_cpu, layout }) => Self::Int4(Int4 {
                weight: weight.shallow_clone(),
                scale_zero: scale_zero.shallow_clone(),
                group: *group,
                on_cpu: *on_cpu,
                layout: *layout,
            }),
        }
    }
}

impl Int8 {
    /// Positions from which a product with the codes as other numbers is faster than the int8 kernel.
    const DENSE_FROM: i64 = 16;

    pub(crate) fn load(weights: &Weights, name: &str, rows: usize, width: usize) -> Result<Self> {
        Ok(Self {
            weight: weights.tensor(&format!("{name}.int8"), &[rows, width])?,
            scale: weights.tensor(&format!("{name}.scale"), &[rows])?,
        })
    }

    /// Some rows of the matrix, in bf16.
    pub(crate) fn rows(&self, ids: &Tensor) -> Tensor {
        let scale = self.scale.index_select(0, ids).unsqueeze(1);
        self.weight.index_select(0, ids).to_kind(Kind::BFloat16) * scale
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        if xs.size()[0] < Self::DENSE_FROM && xs.device() == Device::Cpu {
            return xs.internal_weight_int8pack_mm(&self.weight, &self.scale);
        }
        // Codes up to 127 are exact in bf16.
        let mut ys = match dense::kind(xs.device()) {
            Kind::BFloat16 => xs.linear::<&Tensor>(&self.weight.to_kind(Kind::BFloat16), None),
            kind => dense::product(xs, &self.weight, kind),
        };
        ys *= &self.scale;
        ys
    }
}

impl Int4 {
    /// Matrix rows that are laid out at a time: a multiple of every kernel's block, and few, since in between each code takes 32
    /// bits.
    const BLOCK: usize = 128;
    /// Positions from which a product with the unpacked matrix is faster than the int4 kernel.
    const DENSE_FROM: i64 = 96;

    fn load(weights: &Weights, name: &str, rows: usize, width: usize) -> Result<Self> {
        let scales = format!("{name}.scale_zero");
        let codes = Codes { weights, name: format!("{name}.int4"), rows, bytes: width / 2 };
        let groups = match weights.shape(&scales) {
            [_, groups, _] if *groups > 0 => *groups,
            _ => return Err(weights.fault(format!("`{scales}` is missing or mis-shaped"))),
        };
        let group = width / groups;
        if !matches!(group, 32 | 64 | 128 | 256) || group * groups != width {
            return Err(
                weights.fault(format!("`{scales}` has {groups} groups for a width of {width}"))
            );
        }
        let scale_zero = weights.transposed(&scales, &[rows, groups, 2])?;
        let on_cpu = weights.device() == Device::Cpu;
        let weight =
            if on_cpu { cpu_layout(&codes)? } else { cuda_layout(&codes, weights.device())? };
        let layout = if on_cpu { Layout::of_this_cpu(rows) } else { None };
        Ok(Self { weight, scale_zero, group: group as i64, on_cpu, layout })
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        if let Some(layout) = self.layout
            && xs.size()[0] >= Self::DENSE_FROM
        {
            let kind = dense::kind(xs.device());
            layout.product(xs, &self.weight, &self.scale_zero, kind)
        } else if self.on_cpu {
            xs.internal_weight_int4pack_mm_for_cpu(&self.weight, self.group, &self.scale_zero)
        } else {
            xs.internal_weight_int4pack_mm(&self.weight, self.group, &self.scale_zero)
        }
    }
}

/// A matrix of codes in its file, two in a byte, the even column in the high nibble.
struct Codes<'a> {
    weights: &'a Weights,
    name: String,
    rows: usize,
    /// Of a row.
    bytes: usize,
}

impl Codes<'_> {
    fn read(&self, rows: Range<usize>) -> Result<Vec<u8>> {
        let part = rows.start * self.bytes..rows.end * self.bytes;
        self.weights.bytes(&self.name, &[self.rows, self.bytes], 1, part)
    }
}

/// `[rows, width / 2]`, in blocks of rows as the CPU kernel of this machine wants them.
fn cpu_layout(codes: &Codes<'_>) -> Result<Tensor> {
    let whole = Tensor::f_empty(sizes(&[codes.rows, codes.bytes]), (Kind::Uint8, Device::Cpu))?;
    for start in (0..codes.rows).step_by(Int4::BLOCK) {
        let block = codes.read(start..codes.rows.min(start + Int4::BLOCK))?;
        let mut wide = vec![0_i32; 2 * block.len()];
        for ([even, odd], byte) in wide.as_chunks_mut().0.iter_mut().zip(block) {
            (*even, *odd) = (i32::from(byte >> 4), i32::from(byte & 15));
        }
        let part = Tensor::f_from_slice(&wide)?
            .f_view([-1, 2 * codes.bytes as i64])?
            .f_internal_convert_weight_to_int4pack_for_cpu(1)?;
        whole.f_narrow(0, start as i64, part.size()[0])?.f_copy_(&part)?;
    }
    Ok(whole)
}

/// The tiles of the CUDA kernel. Its input has the nibbles in the order of the file.
fn cuda_layout(codes: &Codes<'_>, device: Device) -> Result<Tensor> {
    let width = 2 * codes.bytes;
    let inner_tiles =
        [8, 4, 2].into_iter().find(|tiles| width.is_multiple_of(16 * tiles)).unwrap_or(2);
    let whole = codes.read(0..codes.rows)?;
    Ok(Tensor::f_from_data_size(&whole, &sizes(&[codes.rows, codes.bytes]), Kind::Uint8)?
        .f_to(device)?
        .f_internal_convert_weight_to_int4pack(inner_tiles as i64)?)
}
