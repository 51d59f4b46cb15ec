//! Bytes of a packed file, mapped or in memory, shared by the matrices that lie in them.

#![expect(unsafe_code, reason = "mapping a file and aligning an allocation")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// Alignment of panels, so that a vector never straddles two cache lines.
pub(crate) const ALIGN: usize = 64;

/// A range of bytes that are never written to: of a mapped file, or of memory.
#[derive(Clone)]
pub struct Bytes {
    store: Arc<Store>,
    range: Range<usize>,
}

enum Store {
    Mapped(Mmap),
    Owned(AlignedBytes),
}

impl Bytes {
    /// Maps a file. Other processes that map it share its pages.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the bytes are read as numbers whatever they are. A packed model is written beside its place and renamed into
        // it, never changed; a file that somebody cuts short raises SIGBUS, as it does for every program that maps it.
        let mapped = unsafe { Mmap::map(file)? };
        let range = 0..mapped.len();
        Ok(Self { store: Arc::new(Store::Mapped(mapped)), range })
    }

    /// A part of these bytes; `None` if it isn't within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) =
            (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        if start > end || end > self.range.end {
            return None;
        }
        Some(Self { store: Arc::clone(&self.store), range: start..end })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &*self.store {
            Store::Mapped(mapped) => mapped,
            Store::Owned(bytes) => bytes,
        };
        &whole[self.range.clone()]
    }
}

impl From<AlignedBytes> for Bytes {
    fn from(bytes: AlignedBytes) -> Self {
        let range = 0..bytes.len();
        Self { store: Arc::new(Store::Owned(bytes)), range }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bytes").field("range", &self.range).finish_non_exhaustive()
    }
}

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// Bytes in memory, aligned to 64.
#[derive(Clone, Default)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; ALIGN]); len.div_ceil(ALIGN)], len }
    }

    /// A copy of some bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        copy.as_mut_slice().copy_from_slice(bytes);
        copy
    }

    /// Grows to at least `len` bytes, with zeros; what was there stays.
    pub(crate) fn grow(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(len.div_ceil(ALIGN), Line([0; ALIGN]));
            self.len = len;
        }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the lines are `len.div_ceil(64)` times 64 initialised bytes, borrowed as long as the result is.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as in `as_mut_slice`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_and_grow_without_loss() {
        let mut bytes = AlignedBytes::copy_of(&[1, 2, 3]);
        assert!(bytes.as_ptr().addr().is_multiple_of(ALIGN));
        bytes.grow(200);
        assert_eq!(bytes[..4], [1, 2, 3, 0]);
        assert_eq!(bytes.len(), 200);
        bytes.grow(5);
        assert_eq!(bytes.len(), 200);
    }

    #[test]
    fn a_slice_stays_within_its_whole() {
        let bytes = Bytes::from(AlignedBytes::copy_of(&[1, 2, 3, 4]));
        let part = bytes.slice(1..3).unwrap();
        assert_eq!(*part, [2, 3]);
        assert_eq!(*part.slice(1..2).unwrap(), [3]);
        assert!(part.slice(1..3).is_none());
        assert!(part.slice(usize::MAX..usize::MAX).is_none());
    }

    #[test]
    fn a_mapped_file_is_read_as_it_lies() {
        let path = std::env::temp_dir().join(format!("outpost-mapping-{}", std::process::id()));
        std::fs::write(&path, [7_u8; 5000]).unwrap();
        let bytes = Bytes::map(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*bytes, [7_u8; 5000]);
    }
}
