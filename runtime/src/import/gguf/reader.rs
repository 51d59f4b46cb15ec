//! The head of a GGUF file: metadata and the places of its tensors, read with every length held against what is left.
//!
//! Layout (ggml's `docs/gguf.md`): magic `GGUF`, version, count of tensors, count of metadata; the metadata as key, type and
//! value; a tensor's entry as name, dimensions (the row's width first), type and offset; padding; the data.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use super::blocks::BlockType;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Rows first.
    pub(crate) shape: Vec<usize>,
    pub(crate) format: Result<BlockType, u32>,
    /// From the start of the file; empty where the format is unknown.
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// What stands before the data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, Place>,
}

/// Arrays within arrays, at most.
const DEPTH: usize = 4;
/// Values of all arrays together, at most: a value takes more memory than its byte in the file.
const VALUES: u64 = 1 << 22;

impl Head {
    /// Reads the head of a file of `length` bytes.
    ///
    /// # Errors
    /// What is wrong, where the file is cut short, contradicts itself or is none.
    pub(crate) fn read(file: impl Read, length: u64) -> Result<Self, String> {
        let length = usize::try_from(length).map_err(|_| format!("a file of {length} bytes"))?;
        let mut cursor = Cursor { file: BufReader::new(file), length, at: 0, values: VALUES };
        if cursor.take(4)? != b"GGUF" {
            return Err("this is no GGUF file: it does not begin with `GGUF`".into());
        }
        let version = cursor.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(format!("GGUF version {version}: only 2 and 3 can be read"));
        }
        let (tensors, pairs) = (cursor.u64()?, cursor.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let key = cursor.text()?;
            let kind = cursor.u32()?;
            let value = cursor.value(kind, DEPTH).map_err(|fault| format!("`{key}`: {fault}"))?;
            metadata.insert(key, value);
        }
        let mut entries = BTreeMap::new();
        for _ in 0..tensors {
            let (name, place) = cursor.tensor()?;
            if entries.insert(name.clone(), place).is_some() {
                return Err(format!("there are two tensors `{name}`"));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Unsigned(alignment)) => usize::try_from(*alignment).unwrap_or(0),
            _ => 32,
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(format!("`general.alignment` is {alignment}: no power of two"));
        }
        settle(&mut entries, cursor.at.next_multiple_of(alignment), length)?;
        Ok(Self { metadata, tensors: entries })
    }
}

/// Turns offsets into places in the file, and checks that they are within it and apart.
fn settle(entries: &mut BTreeMap<String, Place>, data: usize, file: usize) -> Result<(), String> {
    let mut spans = Vec::new();
    for (name, place) in &mut *entries {
        let start = place.start.checked_add(data);
        let end = start.and_then(|start| start.checked_add(place.length));
        match (start, end) {
            (Some(start), Some(end)) if end <= file => {
                place.start = start;
                spans.push((start, end, name.as_str()));
            }
            _ => {
                return Err(format!(
                    "`{name}` lies beyond the end of the file of {file} bytes: it was cut short, fetch it again"
                ));
            }
        }
    }
    spans.sort_unstable();
    match spans.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(format!("`{}` and `{}` overlap", pair[0].2, pair[1].2)),
        None => Ok(()),
    }
}

struct Cursor<R> {
    file: R,
    /// Of the whole file, in bytes.
    length: usize,
    at: usize,
    /// Values of arrays that may still come.
    values: u64,
}

impl<R: Read> Cursor<R> {
    fn take(&mut self, count: usize) -> Result<Vec<u8>, String> {
        // Nothing is reserved for bytes that the file does not have.
        self.claim(count)?;
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).map_err(|fault| fault.to_string())?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.claim(N)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|fault| fault.to_string())?;
        Ok(bytes)
    }

    /// Moves on by `count` bytes, which the file must have.
    fn claim(&mut self, count: usize) -> Result<(), String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.length);
        self.at = end.ok_or_else(|| {
            format!("the head ends at byte {}: the file was cut short", self.length)
        })?;
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let at = self.at;
        String::from_utf8(self.take(length)?)
            .map_err(|_| format!("the text at byte {at} is not UTF-8"))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>()?[0].into()),
            1 => Value::Signed(self.array::<1>()?[0].cast_signed().into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth > 0 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let left = self.values.checked_sub(count);
                self.values =
                    left.ok_or_else(|| format!("an array of {count} values is too long"))?;
                // Nothing is reserved for a count that the file only claims: every value takes a byte at least.
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(kind, depth - 1)?);
                }
                Value::Array(values)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("value type {other} is unknown")),
        })
    }

    fn tensor(&mut self) -> Result<(String, Place), String> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(format!("`{name}` has {dimensions} dimensions: at most 4 are known"));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| format!("`{name}`: {size} is no size"))?);
        }
        shape.reverse();
        let format = BlockType::of(self.u32()?);
        let start = usize::try_from(self.u64()?).map_err(|_| format!("`{name}`: no offset"))?;
        let length = format.map_or(Some(0), |format| length(&shape, format));
        let length = length.ok_or_else(|| format!("`{name}` cannot have the shape {shape:?}"))?;
        Ok((name, Place { shape, format, start, length }))
    }
}

/// Bytes of a tensor; `None` if rows are not whole blocks or the number overflows.
fn length(shape: &[usize], format: BlockType) -> Option<usize> {
    let (values, bytes) = format.block();
    let width = shape.last().copied().unwrap_or(1);
    if !width.is_multiple_of(values) {
        return None;
    }
    // A size of 0 must not hide what the others are multiplied to.
    let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul((*size).max(1)))?;
    let length = count.div_ceil(values).checked_mul(bytes)?;
    Some(if shape.contains(&0) { 0 } else { length })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A file with one value of metadata and tensors of 32 numbers in `Q8_0`, each at an offset.
    fn file(tensors: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(text("a.list"));
        bytes.extend([9_u32.to_le_bytes(), 8_u32.to_le_bytes()].concat());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(text("x"));
        for (name, width, offset) in tensors {
            bytes.extend(text(name));
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(width.to_le_bytes());
            bytes.extend(8_u32.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend([1; 34]);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Head, String> {
        Head::read(bytes, bytes.len() as u64)
    }

    fn fault(tensors: &[(&str, u64, u64)]) -> String {
        parse(&file(tensors)).unwrap_err()
    }

    #[test]
    fn a_whole_file_is_read() {
        let bytes = file(&[("t", 32, 0)]);
        let head = parse(&bytes).unwrap();
        assert_eq!(head.metadata["a.list"], Value::Array(vec![Value::Text("x".into())]));
        let place = &head.tensors["t"];
        assert_eq!((place.shape.as_slice(), place.length), (&[32][..], 34));
        assert_eq!(place.start + place.length, bytes.len());
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = file(&[("t", 32, 0)]);
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn sizes_and_places_that_cannot_be_are_named() {
        assert!(fault(&[("t", 33, 0)]).contains("`t` cannot have the shape [33]"));
        assert!(fault(&[("t", 64, 0)]).contains("`t` lies beyond the end"));
        assert!(fault(&[("t", 1 << 63, 0)]).contains("`t`"));
        let hidden = length(&[0, 1 << 40, 1 << 40], BlockType::F32);
        assert_eq!((hidden, length(&[0, 32], BlockType::F32)), (None, Some(0)));
        assert!(fault(&[("t", 32, u64::MAX)]).contains("`t` lies beyond the end"));
        assert!(fault(&[("t", 32, 0), ("u", 32, 0)]).contains("`t` and `u` overlap"));
        assert!(fault(&[("t", 32, 0), ("t", 32, 0)]).contains("two tensors `t`"));
    }

    #[test]
    fn counts_that_are_only_claimed_cost_nothing() {
        let mut bytes = file(&[]);
        // The length of the list, then the length of its text.
        for at in [24 + 8 + 6 + 8, 24 + 8 + 6 + 16] {
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert!(parse(&bytes).unwrap_err().contains("a.list"));
            bytes = file(&[]);
        }
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(parse(&bytes).unwrap_err().contains("cut short"));
    }

    proptest! {
        #[test]
        fn damage_gives_an_error_or_places_within_the_file(
            flips in prop::collection::vec((0_usize..200, any::<u8>()), 1..6)
        ) {
            let mut bytes = file(&[("t", 32, 0)]);
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Ok(head) = parse(&bytes) {
                for place in head.tensors.values() {
                    prop_assert!(place.start + place.length <= bytes.len());
                }
            }
        }
    }
}
