//! Keys and values in the order in which attention multiplies them.
//!
//! A [`KvBlock`] has room for [`KvBlock::POSITIONS`] positions of all layers. For each layer and head it has the keys as panels
//! of 16 positions and the values as panels of 16 dimensions, in the layout of a matrix in bf16 or f32: scores are a product of
//! the queries with the keys, and the attended values one of the softmax with the values. In int8 the codes lie like the numbers
//! in bf16, and 32 dimensions of a position share a scale.

use half::bf16;

use crate::level::{Level, levels};
use crate::mapping::AlignedBytes;
use crate::{GROUP, Isa, PANEL};

/// Number format of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// f32, beside weights in f32.
    F32,
    /// bf16.
    Bf16,
    /// 8 bits, with a scale in bf16 for each 32 dimensions.
    Int8,
}

/// Sizes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the decoder.
    pub layers: usize,
    /// Heads of keys.
    pub heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Number format.
    pub format: KvFormat,
}

/// Keys and values of some positions.
#[derive(Debug, Clone)]
pub struct KvBlock {
    shape: KvShape,
    bytes: AlignedBytes,
}

/// Keys or values of a layer and head, as numbers: `[panel][line][64 bytes]`.
pub(crate) struct Side<'a> {
    pub(crate) lines: &'a [[u8; 64]],
    pub(crate) is_bf16: bool,
}

impl KvShape {
    /// Dimensions of a head, filled up to whole groups.
    pub(crate) fn padded(self) -> usize {
        self.head_dim.next_multiple_of(GROUP)
    }

    fn number(self) -> usize {
        match self.format {
            KvFormat::F32 => 4,
            KvFormat::Bf16 => 2,
            KvFormat::Int8 => 1,
        }
    }

    /// Bytes of the keys, or of the values, of a layer and head, without scales.
    fn numbers(self) -> usize {
        KvBlock::POSITIONS * self.padded() * self.number()
    }

    /// Bytes of their scales.
    fn scales(self) -> usize {
        match self.format {
            KvFormat::Int8 => KvBlock::POSITIONS * self.padded() / GROUP * 2,
            KvFormat::F32 | KvFormat::Bf16 => 0,
        }
    }

    fn side(self) -> usize {
        self.numbers() + self.scales()
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.layers * self.heads * 2 * self.side()
    }

    /// Columns of a line: pairs in bf16 and in int8.
    fn columns(self) -> usize {
        if self.format == KvFormat::F32 { 1 } else { 2 }
    }

    /// Where a number lies among a side's: that of row `row` of panels and column `column`, of `width` columns.
    fn place(self, row: usize, column: usize, width: usize) -> usize {
        let columns = self.columns();
        let line = row / PANEL * (width / columns) + column / columns;
        (line * PANEL + row % PANEL) * columns + column % columns
    }
}

impl KvBlock {
    /// Positions of a block.
    pub const POSITIONS: usize = 64;

    /// An empty block.
    pub fn new(shape: KvShape) -> Self {
        Self { shape, bytes: AlignedBytes::zeroed(shape.block_bytes()) }
    }

    /// The sizes.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// The bytes, to be kept and to be given to [`KvBlock::from_bytes`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A block of the bytes of another; `None` if there are more or fewer than the shape asks for.
    pub fn from_bytes(shape: KvShape, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == shape.block_bytes())
            .then(|| Self { shape, bytes: AlignedBytes::copy_of(bytes) })
    }

    fn range(&self, layer: usize, head: usize, is_value: bool) -> std::ops::Range<usize> {
        let side = self.shape.side();
        let start = ((layer * self.shape.heads + head) * 2 + usize::from(is_value)) * side;
        start..start + side
    }

    /// Stores the key and the value of a position, `head_dim` numbers each.
    ///
    /// # Panics
    /// When there is no such layer, head or position.
    pub fn store(
        &mut self,
        layer: usize,
        head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        assert!(
            layer < self.shape.layers && head < self.shape.heads && position < Self::POSITIONS,
            "layer {layer}, head {head}, position {position} of {:?}",
            self.shape
        );
        let (shape, padded) = (self.shape, self.shape.padded());
        let keys = self.range(layer, head, false);
        store_side(shape, &mut self.bytes.as_mut_slice()[keys], position, key, |dim| {
            shape.place(position, dim, padded)
        });
        let values = self.range(layer, head, true);
        store_side(shape, &mut self.bytes.as_mut_slice()[values], position, value, |dim| {
            shape.place(dim, position, Self::POSITIONS)
        });
    }

    /// Keys or values of a layer and head; those in int8 are unpacked into `room`.
    pub(crate) fn side<'a>(
        &'a self,
        isa: Isa,
        layer: usize,
        head: usize,
        is_value: bool,
        room: &'a mut AlignedBytes,
    ) -> Side<'a> {
        let bytes = &self.bytes[self.range(layer, head, is_value)];
        let (numbers, scales) = bytes.split_at(self.shape.numbers());
        if self.shape.format != KvFormat::Int8 {
            let is_bf16 = self.shape.format == KvFormat::Bf16;
            return Side { lines: numbers.as_chunks().0, is_bf16 };
        }
        room.grow(2 * numbers.len());
        let level = Level::of(isa);
        let unpacked = &mut room.as_mut_slice()[..2 * numbers.len()];
        if is_value {
            level.unpack_values(numbers, scales, self.shape.padded(), unpacked);
        } else {
            level.unpack_keys(numbers, scales, self.shape.padded(), unpacked);
        }
        Side { lines: room[..2 * numbers.len()].as_chunks().0, is_bf16: true }
    }
}

/// Stores a position's numbers at their places among a side's.
fn store_side(
    shape: KvShape,
    side: &mut [u8],
    position: usize,
    values: &[f32],
    place: impl Fn(usize) -> usize,
) {
    let (numbers, scales) = side.split_at_mut(shape.numbers());
    match shape.format {
        KvFormat::F32 => {
            for (dim, value) in values.iter().enumerate() {
                numbers[4 * place(dim)..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
        KvFormat::Bf16 => {
            for (dim, value) in values.iter().enumerate() {
                let value = bf16::from_f32(*value).to_le_bytes();
                numbers[2 * place(dim)..][..2].copy_from_slice(&value);
            }
        }
        KvFormat::Int8 => {
            let groups = shape.padded() / GROUP;
            for (group, values) in values.chunks(GROUP).enumerate() {
                let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                // Rounded first, so that the codes are those of the scale that is kept.
                let scale = bf16::from_f32(largest / 127.0);
                let inverse = if scale == bf16::ZERO { 0.0 } else { scale.to_f32().recip() };
                scales[2 * (position * groups + group)..][..2]
                    .copy_from_slice(&scale.to_le_bytes());
                for (dim, value) in (group * GROUP..).zip(values) {
                    let code = (value * inverse).round().clamp(-127.0, 127.0) as i8;
                    numbers[place(dim)] = code.cast_unsigned();
                }
            }
        }
    }
}

fn scale(scales: &[u8], at: usize) -> f32 {
    bf16::from_le_bytes([scales[2 * at], scales[2 * at + 1]]).to_f32()
}

/// Keys' codes into pairs of bf16. A line of codes has two dimensions of 16 positions.
#[inline(always)]
pub(crate) fn unpack_keys(codes: &[u8], scales: &[u8], padded: usize, out: &mut [u8]) {
    let groups = padded / GROUP;
    let panel = PANEL * padded;
    let panels = codes.chunks_exact(panel).zip(out.chunks_exact_mut(2 * panel));
    for (number, (codes, out)) in panels.enumerate() {
        let of_group = PANEL * GROUP;
        let pairs = codes.chunks_exact(of_group).zip(out.chunks_exact_mut(2 * of_group));
        for (group, (codes, out)) in pairs.enumerate() {
            let of_position: [f32; PANEL] = std::array::from_fn(|position| {
                scale(scales, (number * PANEL + position) * groups + group)
            });
            let lines = codes.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
            for (codes, out) in lines {
                let pairs = codes.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<4>().0);
                for ((codes, out), scale) in pairs.zip(&of_position) {
                    *out = pair(*codes, [*scale; 2]);
                }
            }
        }
    }
}

/// Values' codes into pairs of bf16. A line of codes has two positions of 16 dimensions.
#[inline(always)]
pub(crate) fn unpack_values(codes: &[u8], scales: &[u8], padded: usize, out: &mut [u8]) {
    let groups = padded / GROUP;
    let lines = codes.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0);
    for (line, (codes, out)) in lines.enumerate() {
        let (panel, position) = (line / (KvBlock::POSITIONS / 2), line % (KvBlock::POSITIONS / 2));
        let group = panel * PANEL / GROUP;
        let of_pair = [0, 1].map(|odd| scale(scales, (2 * position + odd) * groups + group));
        let pairs = codes.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<4>().0);
        for (codes, out) in pairs {
            *out = pair(*codes, of_pair);
        }
    }
}

#[inline(always)]
fn pair(codes: [u8; 2], scales: [f32; 2]) -> [u8; 4] {
    // Finite, so that rounding needs no care.
    let bits = |at: usize| {
        let bits = (f32::from(codes[at].cast_signed()) * scales[at]).to_bits();
        bits.wrapping_add(0x7fff + ((bits >> 16) & 1))
    };
    (bits(0) >> 16 | bits(1) & 0xffff_0000).to_le_bytes()
}
levels!(unpack_keys(codes: &[u8], scales: &[u8], padded: usize, out: &mut [u8]) -> () = unpack_keys);
levels!(unpack_values(codes: &[u8], scales: &[u8], padded: usize, out: &mut [u8]) -> () = unpack_values);
