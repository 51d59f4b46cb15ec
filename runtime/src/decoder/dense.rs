//! Products of many positions with a matrix that is kept in few bits, or in a number format for which this machine has no fast
//! product: some rows at a time are turned into numbers of another format and multiplied at once.
//!
//! The kernels for few bits take a matrix apart anew for every few positions. Where there are many, taking it apart once is
//! faster, even though the numbers go through memory: with 320 positions and a matrix of 8192 x 3072 in 4 bits, 152 ms instead
//! of 300 on two cores with AVX2.

use std::sync::OnceLock;

use half::bf16;
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// Numbers of the matrix that are turned at a time: few enough to stay in a processor's cache.
const TILE: usize = 1 << 20;
/// Rows that are turned at a time are a multiple of this one, which is one of every block of codes.
const STEP: usize = 64;

/// The number format in which the device multiplies large matrices fastest.
pub(super) fn kind(device: Device) -> Kind {
    if device == Device::Cpu && !multiplies_bf16() { Kind::Float } else { Kind::BFloat16 }
}

/// Whether the CPU has an instruction for products of bf16.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// Rows of a matrix of that width that are turned at a time.
fn tile_rows(width: usize) -> usize {
    (TILE / width / STEP).max(1) * STEP
}

/// `xs @ weight^T` for `xs` `[n, width]` and `weight` `[rows, width]`, multiplied in `kind`: `[n, rows]` in the format of `xs`.
pub(super) fn product(xs: &Tensor, weight: &Tensor, kind: Kind) -> Tensor {
    let (rows, width) = weight.size2().unwrap_or_default();
    by_tiles(xs, kind, rows as usize, width as usize, |wide, start, len| {
        wide.linear::<&Tensor>(&weight.narrow(0, start as i64, len as i64).to_kind(kind), None)
    })
}

/// `[n, rows]` from products of `xs`, in `kind`, with some rows at a time, of which `of_rows` is told the first and the number.
fn by_tiles(
    xs: &Tensor,
    kind: Kind,
    rows: usize,
    width: usize,
    mut of_rows: impl FnMut(&Tensor, usize, usize) -> Tensor,
) -> Tensor {
    let wide = xs.to_kind(kind);
    let ys = Tensor::empty([xs.size()[0], rows as i64], (xs.kind(), xs.device()));
    let step = tile_rows(width);
    for start in (0..rows).step_by(step) {
        let len = step.min(rows - start);
        ys.narrow(1, start as i64, len as i64).copy_(&of_rows(&wide, start, len));
    }
    ys
}

/// How the kernel for 4 bits of this machine's CPU orders the codes of a matrix. libtorch has an order for each kind of CPU: the
/// rows are cut into blocks, and of a block, each column is a run of bytes with two rows in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks of 64 rows, the upper half of them in the low nibbles and the lower half in the high ones: AVX-512.
    Halves64,
    /// The same with 32 rows: AVX2.
    Halves32,
    /// Blocks of 32 rows, of which neighbours share a byte, the upper one in the low nibble: any other CPU.
    Pairs32,
}

impl Layout {
    /// The order for a matrix of so many rows; none where it is another one, or the rows are not whole blocks.
    pub(super) fn of_this_cpu(rows: usize) -> Option<Self> {
        static FOUND: OnceLock<Option<Layout>> = OnceLock::new();
        FOUND.get_or_init(Self::find).filter(|layout| rows.is_multiple_of(layout.block()))
    }

    /// Has libtorch order a matrix, and sees which order that is.
    fn find() -> Option<Self> {
        let (rows, width) = (128, 32);
        // Each row and each column is unlike the others.
        let code = |at: usize| (at * at * 31 + at / width * 7) % 97 % 16;
        let codes: Vec<i32> = (0..rows * width).map(|at| code(at) as i32).collect();
        let ordered = Tensor::f_from_slice(&codes)
            .and_then(|codes| codes.f_view([rows as i64, width as i64]))
            .and_then(|codes| codes.f_internal_convert_weight_to_int4pack_for_cpu(1))
            .ok()?;
        let ordered: Vec<u8> = Vec::try_from(ordered.reshape([-1])).ok()?;
        let fits = |layout: &Self| {
            (0..rows * width).all(|at| {
                let (byte, is_high) = layout.place(at / width, at % width, width);
                let code = code(at) as u8;
                ordered
                    .get(byte)
                    .is_some_and(|byte| code == if is_high { byte >> 4 } else { byte & 15 })
            })
        };
        Self::ALL.into_iter().find(fits)
    }

    const ALL: [Self; 3] = [Self::Halves64, Self::Halves32, Self::Pairs32];

    /// Rows of a block.
    fn block(self) -> usize {
        match self {
            Self::Halves64 => 64,
            Self::Halves32 | Self::Pairs32 => 32,
        }
    }

    /// The byte of a code, and whether it is in the high nibble.
    fn place(self, row: usize, column: usize, width: usize) -> (usize, bool) {
        let (half, within) = (self.block() / 2, row % self.block());
        let run = row / self.block() * half * width + column * half;
        match self {
            Self::Halves64 | Self::Halves32 => (run + within % half, within >= half),
            Self::Pairs32 => (run + within / 2, within % 2 == 1),
        }
    }

    /// `xs @ weight^T` for `xs` `[n, width]`, with `codes` `[rows, width / 2]` in this order and `scale_zero`
    /// `[width / group, rows, 2]`, multiplied in `kind`: `[n, rows]` in the format of `xs`.
    pub(super) fn product(
        self,
        xs: &Tensor,
        codes: &Tensor,
        scale_zero: &Tensor,
        kind: Kind,
    ) -> Tensor {
        match kind {
            Kind::BFloat16 => self.product_in::<bf16>(xs, codes, scale_zero),
            _ => self.product_in::<f32>(xs, codes, scale_zero),
        }
    }

    fn product_in<T: Number>(self, xs: &Tensor, codes: &Tensor, scale_zero: &Tensor) -> Tensor {
        let (rows, bytes) = codes.size2().unwrap_or_default();
        let (rows, bytes) = (rows as usize, bytes as usize);
        let mut tile = Tile::<T>::new(tile_rows(2 * bytes).min(rows), 2 * bytes);
        let (mut part, mut scales) = (Vec::new(), Vec::new());
        by_tiles(xs, T::FORMAT, rows, 2 * bytes, |wide, start, len| {
            let range = |tensor: &Tensor, dim| tensor.narrow(dim, start as i64, len as i64);
            read(&range(codes, 0), &mut part);
            read(&range(scale_zero, 1).to_kind(Kind::Float).contiguous(), &mut scales);
            tile.product(wide, len, |numbers| match self {
                Self::Halves64 => unpack::<32, T>(self, &part, &scales, len, numbers),
                Self::Halves32 | Self::Pairs32 => {
                    unpack::<16, T>(self, &part, &scales, len, numbers);
                }
            })
        })
    }
}

/// The numbers of a contiguous tensor.
fn read<T: Element + Copy + Default>(tensor: &Tensor, numbers: &mut Vec<T>) {
    numbers.resize(tensor.numel(), T::default());
    tensor.copy_data(numbers, tensor.numel());
}

/// What a code becomes.
trait Number: Copy {
    /// Its name in libtorch. (tch 0.26 itself takes bf16 for f16.)
    const FORMAT: Kind;

    fn of(value: f32) -> Self;
}

impl Number for f32 {
    const FORMAT: Kind = Kind::Float;

    fn of(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    const FORMAT: Kind = Kind::BFloat16;

    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Turns codes of `rows` rows, in blocks of twice `HALF`, into numbers `[width, rows]`, by `scales` `[width / group, rows, 2]`, a
/// scale and a zero point: `(code - 8) * scale + zero`.
fn unpack<const HALF: usize, T: Number>(
    layout: Layout,
    codes: &[u8],
    scales: &[f32],
    rows: usize,
    numbers: &mut [T],
) {
    let (width, groups) = (numbers.len() / rows, scales.len() / (2 * rows));
    let group = width / groups;
    let (codes, _) = codes.as_chunks::<HALF>();
    for (index, (scales, numbers)) in
        scales.chunks_exact(2 * rows).zip(numbers.chunks_exact_mut(group * rows)).enumerate()
    {
        for (block, scales) in scales.chunks_exact(4 * HALF).enumerate() {
            let of_rows = Rows::<HALF>::of(scales, layout);
            let first = block * width + index * group;
            let columns = codes[first..first + group].iter().zip(numbers.chunks_exact_mut(rows));
            for (codes, numbers) in columns {
                of_rows.turn(codes, &mut numbers[block * 2 * HALF..][..2 * HALF], layout);
            }
        }
    }
}

/// What the codes of a block's rows stand for, `code * scale + zero`: of the rows in low nibbles, and of those in high ones.
struct Rows<const HALF: usize> {
    scale: [[f32; HALF]; 2],
    zero: [[f32; HALF]; 2],
}

impl<const HALF: usize> Rows<HALF> {
    /// From scale and zero point of each row, where the zero point is what code 8 stands for.
    fn of(scales: &[f32], layout: Layout) -> Self {
        let mut rows = Self { scale: [[0.0; HALF]; 2], zero: [[0.0; HALF]; 2] };
        for (row, [scale, at_8]) in scales.as_chunks().0.iter().enumerate() {
            let (byte, is_high) = layout.place(row, 0, 1);
            rows.scale[usize::from(is_high)][byte] = *scale;
            rows.zero[usize::from(is_high)][byte] = at_8 - 8.0 * scale;
        }
        rows
    }

    /// The numbers of a column. All lengths are known, so that this becomes vector instructions.
    fn turn<T: Number>(&self, codes: &[u8; HALF], numbers: &mut [T], layout: Layout) {
        let number = |nibble: usize, at: usize, code: u8| {
            T::of(f32::from(code) * self.scale[nibble][at] + self.zero[nibble][at])
        };
        match (layout, numbers.as_chunks_mut::<HALF>().0) {
            (Layout::Halves64 | Layout::Halves32, [upper, lower]) => {
                for at in 0..HALF {
                    upper[at] = number(0, at, codes[at] & 15);
                    lower[at] = number(1, at, codes[at] >> 4);
                }
            }
            (_, _) => {
                for (at, pair) in numbers.as_chunks_mut().0.iter_mut().enumerate().take(HALF) {
                    *pair = [number(0, at, codes[at] & 15), number(1, at, codes[at] >> 4)];
                }
            }
        }
    }
}

/// Room for some rows of a matrix, used again and again: with a tensor for each lot of rows, and the numbers copied there, a
/// product takes half as long again.
struct Tile<T> {
    /// On the CPU, one after the other, and nobody else's: no view of it outlives a call.
    room: Tensor,
    width: usize,
    number: std::marker::PhantomData<T>,
}

impl<T: Number> Tile<T> {
    fn new(rows: usize, width: usize) -> Self {
        let room = Tensor::zeros([(rows * width) as i64], (T::FORMAT, Device::Cpu));
        Self { room, width, number: std::marker::PhantomData }
    }

    /// `xs @ numbers` for `xs` `[n, width]`, with the numbers `[width, rows]` that `fill` puts into the room.
    fn product(&mut self, xs: &Tensor, rows: usize, fill: impl FnOnce(&mut [T])) -> Tensor {
        let count = rows * self.width;
        assert!(count <= self.room.numel(), "there is room for so many rows");
        #[expect(
            unsafe_code,
            reason = "tch lends nobody the numbers of a tensor, and copying them takes half as long as the product"
        )]
        // SAFETY: the room is a tensor that `new` made: of `T`, on the CPU, contiguous, initialised, with at least `count` numbers.
        // `self` is its one owner, so nothing reads or writes it while `fill` does; the view below is gone at the end.
        let numbers =
            unsafe { std::slice::from_raw_parts_mut(self.room.data_ptr().cast::<T>(), count) };
        fill(numbers);
        xs.matmul(&self.room.narrow(0, 0, count as i64).view([self.width as i64, rows as i64]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    /// The largest difference, as a share of the largest number.
    fn distance(found: &Tensor, expected: &Tensor) -> f64 {
        let (found, expected) = (found.to_kind(Kind::Float), expected.to_kind(Kind::Float));
        let largest = |xs: &Tensor| xs.abs().max().double_value(&[]);
        largest(&(&found - &expected)) / largest(&expected)
    }

    #[test]
    fn the_product_of_unpacked_codes_is_that_of_the_kernel() {
        // Widths that make one tile, and several of which the last is smaller.
        for (rows, width, group) in [(64, 64, 32), (320, 256, 128), (704, 4096, 32)] {
            let layout = Layout::of_this_cpu(rows as usize).expect("the order is known");
            let codes = Tensor::randint(16, [rows, width], (Kind::Int, Device::Cpu));
            let codes = codes.internal_convert_weight_to_int4pack_for_cpu(1);
            let scale_zero = random(&[width / group, rows, 2], Kind::BFloat16);
            let xs = random(&[100, width], Kind::BFloat16);
            let expected = xs.internal_weight_int4pack_mm_for_cpu(&codes, group, &scale_zero);
            for kind in [Kind::Float, Kind::BFloat16] {
                let found = layout.product(&xs, &codes, &scale_zero, kind);
                assert_eq!((found.size(), found.kind()), (vec![100, rows], Kind::BFloat16));
                let distance = distance(&found, &expected);
                // Both round to bf16: one unit in the last place is up to 1/128 of a number.
                assert!(distance < 1e-2, "{rows} x {width}, {kind:?}: {distance}");
            }
        }
    }

    #[test]
    fn codes_in_every_order_become_the_numbers_they_stand_for() {
        let (rows, width, group) = (704, 1024, 32);
        let random_codes = Tensor::randint(16, [rows * width], (Kind::Int, Device::Cpu));
        let codes: Vec<i32> = Vec::try_from(&random_codes).unwrap();
        let scale_zero = random(&[width / group, rows, 2], Kind::BFloat16);
        let each = scale_zero.to_kind(Kind::Double).repeat_interleave_self_int(group, 0, None);
        let numbers = (random_codes.view([rows, width]).tr().to_kind(Kind::Double) - 8.0)
            * each.select(2, 0)
            + each.select(2, 1);
        let xs = random(&[5, width], Kind::BFloat16);
        let expected = xs.to_kind(Kind::Double).matmul(&numbers);
        for layout in Layout::ALL {
            let mut ordered = vec![0_u8; (rows * width / 2) as usize];
            for (at, code) in codes.iter().enumerate() {
                let (row, column) = (at / width as usize, at % width as usize);
                let (byte, is_high) = layout.place(row, column, width as usize);
                ordered[byte] |= (*code as u8) << if is_high { 4 } else { 0 };
            }
            let ordered = Tensor::from_slice(&ordered).view([rows, width / 2]);
            for kind in [Kind::Float, Kind::BFloat16] {
                let found = layout.product(&xs, &ordered, &scale_zero, kind);
                let distance = distance(&found, &expected);
                assert!(distance < 1e-2, "{layout:?}, {kind:?}: {distance}");
            }
        }
    }

    #[test]
    fn a_matrix_whose_rows_are_no_whole_blocks_is_left_to_the_kernel() {
        assert_eq!(Layout::of_this_cpu(48), None);
    }

    #[test]
    fn the_product_in_another_format_is_that_of_the_numbers() {
        let xs = random(&[40, 4096], Kind::BFloat16);
        let codes = Tensor::randint_low(-127, 128, [700, 4096], (Kind::Int8, Device::Cpu));
        for weight in [random(&[700, 4096], Kind::BFloat16), codes] {
            let found = product(&xs, &weight, Kind::Float);
            assert_eq!((found.size(), found.kind()), (vec![40, 700], Kind::BFloat16));
            let expected = xs.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).tr());
            let distance = distance(&found, &expected);
            assert!(distance < 5e-3, "{:?}: {distance}", weight.kind());
        }
    }
}
