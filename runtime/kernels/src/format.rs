//! The number formats of a matrix, and what a panel takes in each.

use crate::mapping::ALIGN;
use crate::{GROUP, PANEL};

/// Number format of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4 bits in groups of 32, with a scale and a minimum.
    Q4,
    /// 8 bits with a scale a row.
    Q8,
    /// bf16.
    Bf16,
    /// f32.
    F32,
}

/// Codes of a group in a panel, in bytes.
pub(crate) const Q4_GROUP: usize = PANEL * GROUP / 2;
pub(crate) const Q8_GROUP: usize = PANEL * GROUP;
/// Scale and minimum codes of a group in a Q4 panel.
pub(crate) const Q4_SCALES: usize = 2 * PANEL;
/// Scale and minimum units of a Q4 panel.
const Q4_UNITS: usize = 2 * PANEL * size_of::<f32>();

impl Format {
    /// Whether a matrix of that width can be in this format.
    pub fn takes(self, width: usize) -> bool {
        match self {
            Self::Q4 | Self::Q8 => width > 0 && width.is_multiple_of(GROUP),
            Self::Bf16 | Self::F32 => width > 0,
        }
    }

    /// Bytes of a panel; `None` for a width that the format doesn't take or whose bytes can't be counted.
    pub fn panel_bytes(self, width: usize) -> Option<usize> {
        if !self.takes(width) {
            return None;
        }
        let groups = width / GROUP;
        match self {
            Self::Q4 => groups
                .checked_mul(Q4_GROUP)?
                .checked_add(scales_bytes(groups))?
                .checked_add(Q4_UNITS),
            Self::Q8 => groups.checked_mul(Q8_GROUP)?.checked_add(PANEL * size_of::<f32>()),
            Self::Bf16 => width.div_ceil(2).checked_mul(ALIGN),
            Self::F32 => width.checked_mul(ALIGN),
        }
    }

    /// Bytes of a `[rows, width]` matrix; `None` as for [`Format::panel_bytes`].
    pub fn bytes(self, rows: usize, width: usize) -> Option<usize> {
        self.panel_bytes(width)?.checked_mul(rows.div_ceil(PANEL))
    }
}

/// Scale and minimum codes of a Q4 panel, filled up.
pub(crate) fn scales_bytes(groups: usize) -> usize {
    (groups * Q4_SCALES).next_multiple_of(ALIGN)
}
