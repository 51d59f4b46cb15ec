//! Keys and values of the positions seen so far, in blocks that grow up to a hard bound (spec 1.5).

use tch::{Device, Kind, Tensor};

use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// What the cache's tensors look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) heads: i64,
    pub(crate) head_dim: i64,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
}

/// Keys, after rotation, and values of every layer: `[heads, capacity, head_dim]` each.
#[derive(Debug)]
pub(crate) struct KvCache {
    shape: KvShape,
    layers: Vec<(Tensor, Tensor)>,
    len: usize,
    capacity: usize,
    limit: usize,
}

impl KvShape {
    pub(crate) fn new(config: &DecoderConfig, kind: Kind, device: Device) -> Self {
        Self {
            layers: config.num_hidden_layers,
            heads: config.num_key_value_heads as i64,
            head_dim: config.head_dim() as i64,
            kind,
            device,
        }
    }
}

impl KvCache {
    /// Positions that are allocated at a time.
    const BLOCK: usize = 256;

    /// An empty cache for at most `limit` positions.
    pub(crate) fn new(shape: KvShape, limit: usize) -> Self {
        Self { shape, layers: Vec::new(), len: 0, capacity: 0, limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all positions, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `n` more positions.
    pub(crate) fn reserve(&mut self, n: usize) -> Result<()> {
        let needed = self.len + n;
        if needed > self.limit {
            return Err(Error::ContextFull { prompt: self.len, new: n, limit: self.limit });
        }
        if needed > self.capacity {
            // By half at least, so that copying stays linear in the length.
            let roomy = needed.max(self.capacity * 3 / 2).next_multiple_of(Self::BLOCK);
            *self = self.copy(self.len, roomy.min(self.limit))?;
        }
        Ok(())
    }

    /// Stores keys and values `[n, heads, head_dim]` of a layer behind the present positions, and gives all of the layer's up to
    /// them. Room must have been made; [`KvCache::advance`] ends the pass.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> (Tensor, Tensor) {
        let (start, n) = (self.len as i64, keys.size()[0]);
        let (all_keys, all_values) = &self.layers[layer];
        all_keys.narrow(1, start, n).copy_(&keys.transpose(0, 1));
        all_values.narrow(1, start, n).copy_(&values.transpose(0, 1));
        (all_keys.narrow(1, 0, start + n), all_values.narrow(1, 0, start + n))
    }

    /// Counts `n` positions that every layer has stored.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }

    /// A copy of the first `len` positions that shares no memory with this one.
    pub(crate) fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len);
        self.copy(len, (len + 1).next_multiple_of(Self::BLOCK).min(self.limit.max(len)))
    }

    fn copy(&self, len: usize, capacity: usize) -> Result<Self> {
        let KvShape { heads, head_dim, kind, device, .. } = self.shape;
        let fresh = |old: Option<&Tensor>| -> Result<Tensor> {
            let tensor = Tensor::f_empty([heads, capacity as i64, head_dim], (kind, device))?;
            if let Some(old) = old {
                tensor.f_narrow(1, 0, len as i64)?.f_copy_(&old.f_narrow(1, 0, len as i64)?)?;
            }
            Ok(tensor)
        };
        let layers = (0..self.shape.layers)
            .map(|layer| {
                let old = self.layers.get(layer);
                Ok((fresh(old.map(|(keys, _)| keys))?, fresh(old.map(|(_, values)| values))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { shape: self.shape, layers, len, capacity, limit: self.limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(limit: usize) -> KvCache {
        let shape =
            KvShape { layers: 1, heads: 2, head_dim: 4, kind: Kind::Float, device: Device::Cpu };
        KvCache::new(shape, limit)
    }

    fn push(cache: &mut KvCache, n: usize, value: f64) -> (Tensor, Tensor) {
        cache.reserve(n).unwrap();
        let xs = Tensor::full([n as i64, 2, 4], value, (Kind::Float, Device::Cpu));
        let all = cache.append(0, &xs, &xs);
        cache.advance(n);
        all
    }

    #[test]
    fn growth_keeps_what_was_stored() {
        let mut cache = cache(1000);
        let _ = push(&mut cache, 200, 1.0);
        let (keys, _) = push(&mut cache, 300, 2.0);
        assert_eq!(keys.size(), [2, 500, 4]);
        assert_eq!(keys.sum(Kind::Float).int64_value(&[]), 8 * (200 + 600));
        assert!(cache.capacity <= 1000);
    }

    #[test]
    fn the_bound_is_hard() {
        let mut cache = cache(10);
        let _ = push(&mut cache, 10, 1.0);
        assert!(matches!(
            cache.reserve(1),
            Err(Error::ContextFull { prompt: 10, new: 1, limit: 10 })
        ));
        assert_eq!(cache.len(), 10);
    }

    #[test]
    fn a_fork_shares_no_memory() {
        let mut one = cache(1000);
        let _ = push(&mut one, 4, 1.0);
        let mut two = one.fork(3).unwrap();
        let (of_two, _) = push(&mut two, 1, 5.0);
        let (of_one, _) = push(&mut one, 1, 7.0);
        let row = |keys: &Tensor, at: i64| keys.double_value(&[0, at, 0]);
        assert_eq!((row(&of_two, 2), row(&of_two, 3)), (1.0, 5.0));
        assert_eq!((row(&of_one, 3), row(&of_one, 4)), (1.0, 7.0));
    }
}
