//! cos and sin of the positions, in tables on the device: a step uploads none of them.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::decoder::rope::{Regime, Rope};
use crate::error::Result;

/// cos and sin of some positions, ready to be multiplied with heads: `[n, 1, head_dim]`.
#[derive(Debug)]
pub(super) struct Angles {
    cos: Tensor,
    /// Negative in the first half, as the formula asks; 0 where nothing is rotated.
    sin: Tensor,
    rotary: i64,
}

/// The angles of all positions so far, in each regime.
#[derive(Debug)]
pub(super) struct Tables {
    head_dim: usize,
    kind: Kind,
    device: Device,
    short: Option<Angles>,
    long: Option<Angles>,
}

impl Tables {
    /// Positions that a table grows by.
    const STEP: usize = 1024;

    pub(super) fn new(head_dim: usize, kind: Kind, device: Device) -> Self {
        Self { head_dim, kind, device, short: None, long: None }
    }

    /// The angles of those positions. A decoder has one `rope`.
    pub(super) fn of(
        &mut self,
        rope: &Rope,
        regime: Regime,
        positions: &Range<usize>,
    ) -> Result<Angles> {
        let (head_dim, kind, device) = (self.head_dim, self.kind, self.device);
        let slot = match regime {
            Regime::Short => &mut self.short,
            Regime::Long => &mut self.long,
        };
        let known = slot.as_ref().map_or(0, Angles::len);
        if known < positions.end {
            let more = positions.end.next_multiple_of(Self::STEP) - known;
            let more =
                Angles::upload(rope, regime, &(known..known + more), (head_dim, kind, device))?;
            *slot = Some(match slot.take() {
                Some(table) => table.followed_by(&more)?,
                None => more,
            });
        }
        let table = slot.as_ref().map(|table| table.narrow(positions));
        // The slot was filled above.
        table.unwrap_or_else(|| Angles::upload(rope, regime, positions, (head_dim, kind, device)))
    }
}

impl Angles {
    fn len(&self) -> usize {
        self.cos.size()[0] as usize
    }

    fn narrow(&self, positions: &Range<usize>) -> Result<Self> {
        let part =
            |table: &Tensor| table.f_narrow(0, positions.start as i64, positions.len() as i64);
        Ok(Self { cos: part(&self.cos)?, sin: part(&self.sin)?, rotary: self.rotary })
    }

    fn followed_by(&self, more: &Self) -> Result<Self> {
        let joined = |a: &Tensor, b: &Tensor| Tensor::f_cat(&[a, b], 0);
        Ok(Self {
            cos: joined(&self.cos, &more.cos)?,
            sin: joined(&self.sin, &more.sin)?,
            rotary: self.rotary,
        })
    }

    fn upload(
        rope: &Rope,
        regime: Regime,
        positions: &Range<usize>,
        (head_dim, kind, device): (usize, Kind, Device),
    ) -> Result<Self> {
        let n = positions.len();
        let rotation = rope.rotation(regime, positions.start, n);
        let pairs = rotation.pairs;
        let mut cos = vec![1.0_f32; n * head_dim];
        let mut sin = vec![0.0_f32; n * head_dim];
        let rows = cos.chunks_exact_mut(head_dim).zip(sin.chunks_exact_mut(head_dim));
        for (position, (cos, sin)) in rows.enumerate() {
            let (c, s) = rotation.of(position);
            for pair in 0..pairs {
                (cos[pair], cos[pair + pairs]) = (c[pair], c[pair]);
                (sin[pair], sin[pair + pairs]) = (-s[pair], s[pair]);
            }
        }
        let shape = [n as i64, 1, head_dim as i64];
        let table = |values: &[f32]| {
            Tensor::f_from_slice(values)?.f_view(shape)?.f_to_kind(kind)?.f_to(device)
        };
        Ok(Self { cos: table(&cos)?, sin: table(&sin)?, rotary: 2 * pairs as i64 })
    }

    /// Rotates heads `[n, heads, head_dim]`: pair `(j, j + rotary / 2)` by the angle of its position, the rest stays.
    pub(super) fn apply(&self, xs: &Tensor) -> Tensor {
        let half = self.rotary / 2;
        let rest = xs.size()[2] - self.rotary;
        let swapped = Tensor::cat(
            &[xs.narrow(2, half, half), xs.narrow(2, 0, half), xs.narrow(2, self.rotary, rest)],
            2,
        );
        (xs * &self.cos).addcmul_(&swapped, &self.sin)
    }
}
