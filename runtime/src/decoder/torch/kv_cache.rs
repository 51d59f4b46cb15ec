//! Keys and values of the positions seen so far, in blocks that are added as they are needed, up to a hard bound (spec 1.5).
//!
//! A full block is never written to again, so forks share it; the block that a cache writes to is its own, and no larger in a
//! fork than what it holds. On a GPU there is one block alone, which grows: attention to all keys is then few calls, however many
//! keys there are.

use tch::{Device, Kind, Tensor};

use super::Target;
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
    /// One block of any length, rather than many.
    pub(super) in_one_piece: bool,
}

impl KvShape {
    pub(super) fn new(config: &DecoderConfig, target: Target) -> Self {
        let Target { device, kind, as_gpu } = target;
        Self {
            layers: config.num_hidden_layers as i64,
            heads: config.num_key_value_heads as i64,
            head_dim: config.head_dim() as i64,
            kind,
            device,
            format: KvFormat::Bf16,
            in_one_piece: as_gpu,
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
    /// Room for keys and values of a layer, `[2, heads, positions, ..]`.
    fn room(shape: KvShape, positions: usize) -> Result<Self> {
        let KvShape { heads, head_dim, kind, device, format, .. } = shape;
        let empty =
            |width: i64, kind| Tensor::f_empty([2, heads, positions as i64, width], (kind, device));
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

    /// The keys (0) or values (1).
    fn side(&self, side: i64) -> Self {
        self.view(|tensor| tensor.get(side))
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

/// Keys, after rotation, and values of some positions in every layer. Apart by layer, so that a block which grows is held twice
/// in one layer alone.
#[derive(Debug)]
struct Block(Vec<Packed>);

impl Block {
    fn room(shape: KvShape, positions: usize) -> Result<Self> {
        (0..shape.layers).map(|_| Packed::room(shape, positions)).collect::<Result<_>>().map(Self)
    }

    /// Positions that there is room for.
    fn positions(&self) -> usize {
        self.0.first().map_or(0, |layer| layer.numbers.size()[2] as usize)
    }

    /// The first `n` positions, with room for so many.
    fn copy(&self, shape: KvShape, n: usize, positions: usize) -> Result<Self> {
        self.0.iter().map(|layer| copy(layer, shape, n, positions)).collect::<Result<_>>().map(Self)
    }

    /// Makes room for so many positions; the first `n` stay.
    fn grow(&mut self, shape: KvShape, n: usize, positions: usize) -> Result<()> {
        for layer in &mut self.0 {
            *layer = copy(layer, shape, n, positions)?;
        }
        Ok(())
    }

    /// The same block.
    fn share(&self) -> Self {
        Self(self.0.iter().map(|layer| layer.view(Tensor::shallow_clone)).collect())
    }
}

/// The first `n` positions of a layer, with room for so many.
fn copy(layer: &Packed, shape: KvShape, n: usize, positions: usize) -> Result<Packed> {
    let room = Packed::room(shape, positions)?;
    room.positions(0, n).fill(&layer.positions(0, n));
    Ok(room)
}

/// Keys and values of a sequence.
#[derive(Debug)]
pub(super) struct KvCache {
    shape: KvShape,
    blocks: Vec<Block>,
    len: usize,
    limit: usize,
}

impl KvCache {
    /// Positions of a block where there are many: few enough that what is unpacked of them stays in a processor's cache, enough
    /// that the calls for a block weigh little beside it.
    pub(super) const BLOCK: usize = 1024;

    /// A fork's last block, and one that grows, have room for a multiple of this.
    const STEP: usize = 64;

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

    /// Positions that a full block has; the last one ends at the limit.
    fn block(&self) -> usize {
        if self.shape.in_one_piece { self.limit.max(1) } else { Self::BLOCK }
    }

    /// Makes room for `n` more positions.
    pub(super) fn reserve(&mut self, n: usize) -> Result<()> {
        let needed = self.len + n;
        if needed > self.limit {
            return Err(Error::ContextFull { prompt: self.len, new: n, limit: self.limit });
        }
        let size = self.block();
        for index in self.len / size..needed.div_ceil(size) {
            let first = index * size;
            let most = size.min(self.limit - first);
            let wanted = (needed - first).min(most);
            let room = if self.shape.in_one_piece {
                // Half as much again, so that not every token copies all.
                (wanted + wanted / 2).next_multiple_of(Self::STEP).min(most)
            } else {
                most
            };
            match self.blocks.get_mut(index) {
                None => self.blocks.push(Block::room(self.shape, room)?),
                Some(block) if block.positions() < wanted => {
                    block.grow(self.shape, self.len - first, room)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
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
        let size = self.block();
        for block in start / size..end.div_ceil(size) {
            let first = block * size;
            let (from, to) = (start.max(first), end.min(first + size));
            for (side, xs) in (0..).zip(&packed) {
                self.blocks[block].0[layer]
                    .side(side)
                    .positions(from - first, to - from)
                    .fill(&xs.positions(from - start, to - from));
            }
        }
        let [keys, values] = packed.map(|xs| xs.unpack(self.shape.kind));
        (keys, values)
    }

    /// Keys and values `[heads, up to a block, head_dim]` of a layer's first `len` positions, a block at a time.
    pub(super) fn read(&self, layer: usize, len: usize) -> impl Iterator<Item = (Tensor, Tensor)> {
        let size = self.block();
        self.blocks.iter().zip((0..len).step_by(size)).map(move |(block, first)| {
            let n = (len - first).min(size);
            let side = |side| block.0[layer].side(side).positions(0, n).unpack(self.shape.kind);
            (side(0), side(1))
        })
    }

    /// Counts `n` positions that every layer has stored.
    pub(super) fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// Forgets all positions but the first `len`, if nothing that is shared would be written to then.
    pub(super) fn cut(&mut self, len: usize) -> bool {
        if self.shape.in_one_piece {
            self.len = self.len.min(len);
        }
        self.shape.in_one_piece
    }

    /// The first `len` positions; neither cache sees what is appended to the other.
    pub(super) fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len);
        let size = self.block();
        // One piece is never shared, so that it can be cut.
        let full = if self.shape.in_one_piece { 0 } else { len / size };
        let mut blocks: Vec<Block> = self.blocks[..full].iter().map(Block::share).collect();
        let n = len - full * size;
        if let Some(block) = self.blocks.get(full)
            && n > 0
        {
            let room = n.next_multiple_of(Self::STEP).min(block.positions());
            blocks.push(block.copy(self.shape, n, room)?);
        }
        Ok(Self { shape: self.shape, blocks, len, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::torch_device;

    const LONG: usize = 3 * KvCache::BLOCK;

    fn cache(limit: usize, format: KvFormat) -> KvCache {
        let (kind, device, in_one_piece) = (Kind::Float, torch_device(), false);
        let shape =
            KvShape { layers: 1, heads: 2, head_dim: 64, kind, device, format, in_one_piece };
        KvCache::new(shape, limit)
    }

    fn in_one_piece(limit: usize, format: KvFormat) -> KvCache {
        let cache = cache(limit, format);
        KvCache { shape: KvShape { in_one_piece: true, ..cache.shape }, ..cache }
    }

    fn push(cache: &mut KvCache, n: usize, value: f64) {
        cache.reserve(n).unwrap();
        let xs = Tensor::full([n as i64, 2, 64], value, (Kind::Float, torch_device()));
        let _ = cache.append(0, &xs, &(&xs * 2.0));
        cache.advance(n);
    }

    fn allocated(cache: &KvCache) -> usize {
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        cache
            .blocks
            .iter()
            .flat_map(|block| &block.0)
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
    fn one_piece_grows_by_half_and_keeps_what_was_stored() {
        for format in [KvFormat::Bf16, KvFormat::Int8] {
            let mut cache = in_one_piece(LONG - 24, format);
            push(&mut cache, 1000, 1.0);
            assert_eq!((cache.blocks.len(), cache.blocks[0].positions()), (1, 1536));
            push(&mut cache, 500, 2.0);
            assert_eq!(cache.blocks[0].positions(), 1536);
            push(&mut cache, 1500, 3.0);
            // It ends at the bound.
            assert_eq!((cache.blocks.len(), cache.blocks[0].positions()), (1, LONG - 24));
            let expected = [vec![1.0; 1000], vec![2.0; 500], vec![3.0; 1500]].concat();
            let found = keys(&cache);
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(&expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6));
            assert_eq!(cache.read(0, 3000).count(), 1);
            assert!(matches!(cache.reserve(LONG), Err(Error::ContextFull { .. })));
        }
    }

    #[test]
    fn a_fork_of_one_piece_holds_no_more_than_it_needs_and_goes_its_own_way() {
        let mut one = in_one_piece(LONG, KvFormat::Bf16);
        push(&mut one, 2000, 1.0);
        let mut two = one.fork(200).unwrap();
        assert_eq!(two.blocks[0].positions(), 256);
        push(&mut one, 1, 7.0);
        push(&mut two, 100, 5.0);
        assert_eq!(keys(&one)[1999..].to_vec(), vec![1.0, 7.0]);
        assert_eq!(keys(&two)[199..].to_vec(), [vec![1.0], vec![5.0; 100]].concat());
        // Cut, it goes on from there in the same memory.
        let at = one.blocks[0].0[0].numbers.data_ptr();
        assert!(one.cut(10));
        push(&mut one, 1, 9.0);
        assert_eq!((keys(&one)[9..].to_vec(), one.len()), (vec![1.0, 9.0], 11));
        assert_eq!(one.blocks[0].0[0].numbers.data_ptr(), at);
        assert_eq!(keys(&two)[..200].to_vec(), vec![1.0; 200]);
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
            let at = |cache: &KvCache, block: usize| cache.blocks[block].0[0].numbers.data_ptr();
            assert_eq!(at(&one, 0), at(&two, 0));
            assert_ne!(at(&one, 1), at(&two, 1));
            // No room for more than it holds, until more comes.
            assert_eq!(two.blocks[1].positions(), KvCache::STEP);
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
        let xs = Tensor::rand([5, 2, 64], (Kind::Float, torch_device())) - 0.5;
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
