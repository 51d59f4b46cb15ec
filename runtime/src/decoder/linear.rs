//! A matrix in the number format of the file, and the kernel that multiplies with it. What the numbers mean is in
//! `import::quantize`, their names are in `weights`.

use tch::{Device, Kind, Tensor};

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
}

impl Linear {
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
            Self::Dense(weight) => xs.linear::<&Tensor>(weight, None),
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
            Self::Int4(Int4 { weight, scale_zero, group, on_cpu }) => Self::Int4(Int4 {
                weight: weight.shallow_clone(),
                scale_zero: scale_zero.shallow_clone(),
                group: *group,
                on_cpu: *on_cpu,
            }),
        }
    }
}

impl Int8 {
    /// Rows of activations from which multiplying with the matrix turned into bf16 is faster than the int8 kernel.
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
        xs.linear::<&Tensor>(&self.weight.to_kind(Kind::BFloat16), None) * &self.scale
    }
}

impl Int4 {
    /// Matrix rows that are laid out at a time: a multiple of every kernel's block, and few, since in between each code takes 32
    /// bits.
    const BLOCK: usize = 128;

    fn load(weights: &Weights, name: &str, rows: usize, width: usize) -> Result<Self> {
        let scales = format!("{name}.scale_zero");
        let codes = weights.bytes(&format!("{name}.int4"), &[rows, width / 2])?;
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
        let scale_zero =
            weights.tensor(&scales, &[rows, groups, 2])?.f_transpose(0, 1)?.f_contiguous()?;
        let on_cpu = weights.device() == Device::Cpu;
        let weight = if on_cpu {
            cpu_layout(&codes, rows, width)?
        } else {
            cuda_layout(&codes, rows, width, weights.device())?
        };
        Ok(Self { weight, scale_zero, group: group as i64, on_cpu })
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        if self.on_cpu {
            xs.internal_weight_int4pack_mm_for_cpu(&self.weight, self.group, &self.scale_zero)
        } else {
            xs.internal_weight_int4pack_mm(&self.weight, self.group, &self.scale_zero)
        }
    }
}

/// `[rows, width / 2]`, in blocks of rows as the CPU kernel of this machine wants them.
fn cpu_layout(codes: &[u8], rows: usize, width: usize) -> Result<Tensor> {
    let whole = Tensor::f_empty(sizes(&[rows, width / 2]), (Kind::Uint8, Device::Cpu))?;
    for (block, codes) in codes.chunks(Int4::BLOCK * width / 2).enumerate() {
        let mut wide = vec![0_i32; 2 * codes.len()];
        for ([even, odd], byte) in wide.as_chunks_mut().0.iter_mut().zip(codes) {
            (*even, *odd) = (i32::from(byte >> 4), i32::from(byte & 15));
        }
        let part = Tensor::f_from_slice(&wide)?
            .f_view([-1, width as i64])?
            .f_internal_convert_weight_to_int4pack_for_cpu(1)?;
        whole.f_narrow(0, (block * Int4::BLOCK) as i64, part.size()[0])?.f_copy_(&part)?;
    }
    Ok(whole)
}

/// The tiles of the CUDA kernel. Its input has the nibbles in the order of the file.
fn cuda_layout(codes: &[u8], rows: usize, width: usize, device: Device) -> Result<Tensor> {
    let inner_tiles =
        [8, 4, 2].into_iter().find(|tiles| width.is_multiple_of(16 * tiles)).unwrap_or(2);
    Ok(Tensor::f_from_data_size(codes, &sizes(&[rows, width / 2]), Kind::Uint8)?
        .f_to(device)?
        .f_internal_convert_weight_to_int4pack(inner_tiles as i64)?)
}
