//! Keys and values of the positions seen so far, in blocks that are added as they are needed, up to a hard bound (spec 1.5).
//!
//! A full block is never written to again, so forks share it; the block that a cache writes to is its own.

use tch::{Device, Kind, Tensor};

use crate::config::DecoderConfig;
use crate::decoder::kv::KvFormat;
use crate::error::{Error, Result};

/// Largest code in int8.
const LARGEST: f64 = 127.0;

/// What the cache's tensors look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KvShape {
    pub(super) layers: i64,
    pub(super) heads: i64,
    pub(super) head_dim: i64,
    /// What is computed in.
    pub(super) kind: Kind,
    pub(super) device: Device,
    pub(super) format: KvFormat,
}

impl KvShape {
    pub(super) fn new(config: &DecoderConfig, kind: Kind, device: Device) -> Self {
        Self {
            layers: config.num_hidden_layers as i64,
            heads: config.num_key_value_heads as i64,
            head_dim: config.head_dim() as i64,
            kind,
            device,
            format: KvFormat::Bf16,
        }
    }
}

/// Numbers in the cache's format: `[.., positions, head_dim]`, and for int8 their scales `[.., positions, scales]`.
#[derive(Debug)]
struct Packed {
    numbers: Tensor,
    scales: Option<Tensor>,
}

impl Packed {
    /// Room for keys and values, `[layers, 2, heads, positions, ..]`.
    fn room(shape: KvShape, positions: usize) -> Result<Self> {
        let KvShape { layers, heads, head_dim, kind, device, format } = shape;
        let empty = |width: i64, kind| {
            Tensor::f_empty([layers, 2, heads, positions as i64, width], (kind, device))
        };
        Ok(match format {
            KvFormat::Bf16 => Self { numbers: empty(head_dim, kind)?, scales: None },
            KvFormat::Int8 => Self {
                numbers: empty(head_dim, Kind::Int8)?,
                scales: Some(empty(KvFormat::scales(head_dim as usize) as i64, kind)?),
            },
        })
    }

    /// Packs `xs` `[heads, positions, head_dim]`.
    fn of(xs: &Tensor, format: KvFormat) -> Self {
        if format == KvFormat::Bf16 {
            return Self { numbers: xs.shallow_clone(), scales: None };
        }
        let size = xs.size();
        let scales = KvFormat::scales(size[2] as usize) as i64;
        let groups = xs.to_kind(Kind::Float).reshape([size[0], size[1], scales, -1]);
        // Rounded first, so that the codes are those of the scale that is kept; never 0, by which nothing can be divided.
        let scale = (groups.abs().amax(-1, true) / LARGEST)
            .clamp_min(f64::from(f32::MIN_POSITIVE))
            .to_kind(xs.kind());
        let codes = (groups / &scale).round().clamp(-LARGEST, LARGEST);
        Self {
            numbers: codes.to_kind(Kind::Int8).reshape(size),
            scales: Some(scale.squeeze_dim(-1)),
        }
    }

    /// The numbers in `kind`.
    fn unpack(&self, kind: Kind) -> Tensor {
        let Some(scales) = &self.scales else { return self.numbers.shallow_clone() };
        let size = self.numbers.size();
        let groups = [size[0], size[1], scales.size()[2], -1];
        (self.numbers.to_kind(kind).reshape(groups) * scales.unsqueeze(-1)).reshape(size)
    }

    fn view(&self, view: impl Fn(&Tensor) -> Tensor) -> Self {
        Self { numbers: view(&self.numbers), scales: self.scales.as_ref().map(view) }
    }

    /// The keys (0) or values (1) of a layer.
    fn of_layer(&self, layer: usize, side: i64) -> Self {
        self.view(|tensor| tensor.get(layer as i64).get(side))
    }

    fn positions(&self, start: usize, n: usize) -> Self {
        self.view(|tensor| tensor.narrow(-2, start as i64, n as i64))
    }

    /// Overwrites these numbers with others of the same shape.
    fn fill(&mut self, from: &Self) {
        self.numbers.copy_(&from.numbers);
        if let (Some(scales), Some(from)) = (&mut self.scales, &from.scales) {
            scales.copy_(from);
        }
    }
}

/// Keys, after rotation, and values of every layer.
#[derive(Debug)]
pub(super) struct KvCache {
    shape: KvShape,
    /// Of [`KvCache::BLOCK`] positions each; the last one ends at the limit.
    blocks: Vec<Packed>,
    len: usize,
    limit: usize,
}

impl KvCache {
    /// Positions that are allocated at a time, and attended to at a time: few enough that what is unpacked of them stays in a
    /// processor's cache, enough that the calls for a block weigh little beside it.
    pub(super) const BLOCK: usize = 1024;

    /// An empty cache for at most `limit` positions.
    pub(super) fn new(shape: KvShape, limit: usize) -> Self {
        Self { shape, blocks: Vec::new(), len: 0, limit }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all positions. Their blocks may be shared, so they are given up.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    /// Makes room for `n` more positions.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        let needed = self.len + n;
        if needed > self.limit {
            return Err(Error::ContextFull { prompt: self.len, new: n, limit: self.limit });
        }
        while self.blocks.len() * Self::BLOCK < needed {
            self.blocks.push(self.room(self.blocks.len())?);
        }
        Ok(())
    }

    /// The memory of a block.
    fn room(&self, block: usize) -> Result<Packed> {
        Packed::room(self.shape, Self::BLOCK.min(self.limit - block * Self::BLOCK))
    }

    /// Stores keys and values `[n, heads, head_dim]` of a layer behind the present positions, and gives them as
    /// [`KvCache::read`] will, `[heads, n, head_dim]`. Room must have been made; [`KvCache::advance`] ends the pass.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> (Tensor, Tensor) {
        let packed = [keys, values].map(|xs| Packed::of(&xs.transpose(0, 1), self.shape.format));
        let (start, end) = (self.len, self.len + keys.size()[0] as usize);
        for block in start / Self::BLOCK..end.div_ceil(Self::BLOCK) {
            let first = block * Self::BLOCK;
            let (from, to) = (start.max(first), end.min(first + Self::BLOCK));
            for (side, xs) in (0..).zip(&packed) {
                self.blocks[block]
                    .of_layer(layer, side)
                    .positions(from - first, to - from)
                    .fill(&xs.positions(from - start, to - from));
            }
        }
        let [keys, values] = packed.map(|xs| xs.unpack(self.shape.kind));
        (keys, values)
    }

    /// Keys and values `[heads, up to BLOCK, head_dim]` of a layer's first `len` positions, a block at a time.
    pub(super) fn read(&self, layer: usize, len: usize) -> impl Iterator<Item = (Tensor, Tensor)> {
        self.blocks.iter().zip((0..len).step_by(Self::BLOCK)).map(move |(block, first)| {
            let n = (len - first).min(Self::BLOCK);
            let side = |side| block.of_layer(layer, side).positions(0, n).unpack(self.shape.kind);
            (side(0), side(1))
        })
    }

    /// Counts `n` positions that every layer has stored.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// The first `len` positions; neither cache sees what is appended to the other.
    pub(super) fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len);
        let full = len / Self::BLOCK;
        let mut blocks: Vec<Packed> =
            self.blocks[..full].iter().map(|block| block.view(Tensor::shallow_clone)).collect();
        if let Some(block) = self.blocks.get(full)
            && len > full * Self::BLOCK
        {
            let n = len - full * Self::BLOCK;
            let room = self.room(full)?;
            room.positions(0, n).fill(&block.positions(0, n));
            blocks.push(room);
        }
        Ok(Self { shape: self.shape, blocks, len, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: usize = 3 * KvCache::BLOCK;

    fn cache(limit: usize, format: KvFormat) -> KvCache {
        let (kind, device) = (Kind::Float, Device::Cpu);
        KvCache::new(KvShape { layers: 1, heads: 2, head_dim: 64, kind, device, format }, limit)
    }

    fn push(cache: &mut KvCache, n: usize, value: f64) {
        cache.reserve(n).unwrap();
        let xs = Tensor::full([n as i64, 2, 64], value, (Kind::Float, Device::Cpu));
        let _ = cache.append(0, &xs, &(&xs * 2.0));
        cache.advance(n);
    }

    fn allocated(cache: &KvCache) -> usize {
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        cache
            .blocks
            .iter()
            .map(|block| bytes(&block.numbers) + block.scales.as_ref().map_or(0, bytes))
            .sum()
    }

    /// The first number of each position's key.
    fn keys(cache: &KvCache) -> Vec<f32> {
        let keys: Vec<Tensor> = cache.read(0, cache.len).map(|(keys, _)| keys).collect();
        Vec::try_from(Tensor::cat(&keys, 1).select(0, 1).select(1, 0)).unwrap()
    }

    #[test]
    fn memory_grows_a_block_at_a_time_and_keeps_what_was_stored() {
        for (format, position) in
            [(KvFormat::Bf16, 2 * 2 * 64 * 4), (KvFormat::Int8, 2 * 2 * (64 + 8))]
        {
            let mut cache = cache(LONG - 24, format);
            assert_eq!(allocated(&cache), 0);
            push(&mut cache, 1000, 1.0);
            assert_eq!(allocated(&cache), KvCache::BLOCK * position);
            push(&mut cache, 24, 2.0);
            assert_eq!(allocated(&cache), KvCache::BLOCK * position);
            push(&mut cache, 1100, 3.0);
            // The last block ends at the bound.
            assert_eq!(allocated(&cache), (LONG - 24) * position);
            let expected = [vec![1.0; 1000], vec![2.0; 24], vec![3.0; 1100]].concat();
            let found = keys(&cache);
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6));
            let (_, values) = cache.read(0, 2000).last().unwrap();
            assert_eq!(values.size(), [2, 976, 64]);
            assert!((values.double_value(&[1, 975, 63]) - 6.0).abs() < 1e-5);
        }
    }

    #[test]
    fn the_bound_is_hard() {
        let mut cache = cache(10, KvFormat::Bf16);
        push(&mut cache, 10, 1.0);
        let fault = cache.reserve(1).unwrap_err();
        assert!(matches!(fault, Error::ContextFull { prompt: 10, new: 1, limit: 10 }));
        assert!(fault.to_string().contains("bounded at 10"), "{fault}");
        assert_eq!(cache.len(), 10);
    }

    #[test]
    fn forks_share_full_blocks_and_write_to_their_own() {
        for format in [KvFormat::Bf16, KvFormat::Int8] {
            let mut one = cache(LONG, format);
            push(&mut one, KvCache::BLOCK + 4, 1.0);
            let mut two = one.fork(KvCache::BLOCK + 3).unwrap();
            let at = |cache: &KvCache, block: usize| cache.blocks[block].numbers.data_ptr();
            assert_eq!(at(&one, 0), at(&two, 0));
            assert_ne!(at(&one, 1), at(&two, 1));
            // One that ends with a block has nothing of the next, and one from within a block has a copy of it.
            assert_eq!(one.fork(KvCache::BLOCK).unwrap().blocks.len(), 1);
            let mut early = one.fork(3).unwrap();
            push(&mut early, 1, 9.0);
            push(&mut two, 1, 5.0);
            push(&mut one, 1, 7.0);
            let last = |cache: &KvCache| keys(cache)[cache.len - 2..].to_vec();
            for (cache, expected) in [(&one, [1.0, 7.0]), (&two, [1.0, 5.0]), (&early, [1.0, 9.0])]
            {
                let near = last(cache).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(near, "{:?} for {expected:?}", last(cache));
            }
        }
    }

    #[test]
    fn a_large_number_costs_only_its_own_group_precision() {
        let xs = Tensor::rand([5, 2, 64], (Kind::Float, Device::Cpu)) - 0.5;
        let _ = xs.narrow(2, 40, 1).fill_(100.0);
        let mut cache = cache(10, KvFormat::Int8);
        cache.reserve(5).unwrap();
        let (keys, zeros) = cache.append(0, &xs, &xs.zeros_like());
        let error = (keys.transpose(0, 1) - &xs).abs();
        let largest = |first, n| error.narrow(2, first, n).max().double_value(&[]);
        assert!(largest(0, 32) < 0.5 / 127.0 / 2.0 + 1e-6, "{}", largest(0, 32));
        assert!(largest(32, 32) < 100.0 / 127.0, "{}", largest(32, 32));
        assert!(zeros.abs().max().double_value(&[]) == 0.0);
    }
}
