//! Writes the decoder's safetensors file as a stream: the header is planned first, so that no more than one block of rows is
//! held in memory.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Map, json};

use super::ImportOptions;
use super::inventory::{Entry, Role};
use super::progress::Meter;
use super::quantize::{Format, Quant};
use super::source::TensorSource;
use crate::error::{Error, Result};

/// Values that are read, rounded and kept at a time.
const BLOCK: usize = 1 << 24;

/// Writes the tensors of `entries` to `path`.
pub(crate) fn write_decoder(
    source: &dyn TensorSource,
    entries: &[Entry],
    options: ImportOptions,
    path: &Path,
    meter: &mut Meter<'_>,
) -> Result<()> {
    let entries: Vec<&Entry> =
        entries.iter().filter(|entry| is_stored(entry, options.quant)).collect();
    let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    file.write_all(&header(&entries, options)).map_err(Error::io(path))?;
    for entry in &entries {
        meter.stage(&format!("decoder: {}", stage(&entry.packed)));
        write_entry(source, entry, options, &mut file, meter).map_err(|fault| match fault {
            Fault::Read(fault) => fault,
            Fault::Write(fault) => Error::io(path)(fault),
        })?;
    }
    let file = file.into_inner().map_err(|fault| Error::io(path)(fault.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// Bytes of the decoder's parts in the packed file, by what they are.
pub(crate) fn stored(entries: &[Entry], options: ImportOptions) -> Vec<(&'static str, u64)> {
    let mut parts = [
        ("decoder", 0),
        ("embedding", 0),
        ("head", 0),
        ("vision adapter", 0),
        ("speech adapter", 0),
    ];
    for entry in entries.iter().filter(|entry| is_stored(entry, options.quant)) {
        let (rows, width, format) = layout(entry, options);
        let tensors = format.tensors(rows, width);
        let bytes = |(_, dtype, shape): &(_, Dtype, Vec<usize>)| {
            shape.iter().product::<usize>() * bytes(*dtype)
        };
        let place = match entry.role {
            Role::Embedding => 1,
            Role::Head | Role::TiedHead => 2,
            _ if entry.packed.ends_with(".vision.weight") => 3,
            _ if entry.packed.ends_with(".speech.weight") => 4,
            Role::Norm | Role::Linear => 0,
        };
        parts[place].1 += tensors.iter().map(bytes).sum::<usize>() as u64;
    }
    parts.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

/// `model.layers.3` of `model.layers.3.mlp.down_proj.weight`.
fn stage(name: &str) -> &str {
    name.match_indices('.').nth(2).map_or(name, |(end, _)| &name[..end])
}

enum Fault {
    Read(Error),
    Write(std::io::Error),
}

fn write_entry(
    source: &dyn TensorSource,
    entry: &Entry,
    options: ImportOptions,
    file: &mut BufWriter<File>,
    meter: &mut Meter<'_>,
) -> Result<(), Fault> {
    let (rows, width, format) = layout(entry, options);
    let block = (BLOCK / width).max(1);
    // The first tensor of a format goes out at once; a second one, of scales, is small and waits for its end.
    let mut late = Vec::new();
    for start in (0..rows).step_by(block) {
        let range = start..rows.min(start + block);
        let range = if entry.shape.len() == 1 { 0..width } else { range };
        let values = entry.rows(source, range).map_err(Fault::Read)?;
        let mut packed = format.pack(&values, width).into_iter();
        let first = packed.next().unwrap_or_default();
        file.write_all(&first).map_err(Fault::Write)?;
        meter.add(first.len() as u64);
        late.extend(packed.flatten());
    }
    meter.add(late.len() as u64);
    file.write_all(&late).map_err(Fault::Write)
}

/// The head of a tied model is stored only where its format differs from the embedding's.
fn is_stored(entry: &Entry, quant: Quant) -> bool {
    entry.role != Role::TiedHead || quant == Quant::Int4
}

/// Rows, width and format of a tensor; a norm's weight is one row.
fn layout(entry: &Entry, options: ImportOptions) -> (usize, usize, Format) {
    let (rows, width) = match entry.shape.as_slice() {
        [rows, width] => (*rows, *width),
        other => (1, other.iter().product()),
    };
    let format = match (entry.role, options.quant) {
        (_, Quant::F32) => Format::F32,
        (Role::Norm, _) => Format::Bf16,
        // Rows are looked up one by one: 8 bits are next to exact, and none but the rows in use are read.
        (Role::Embedding, Quant::Int4) => Format::Int8,
        (_, quant) => Format::of(quant, options.group, rows, width),
    };
    (rows, width, format)
}

/// Length and JSON header of a safetensors file.
fn header(entries: &[&Entry], options: ImportOptions) -> Vec<u8> {
    let mut header = Map::new();
    let mut offset = 0;
    for entry in entries {
        let (rows, width, format) = layout(entry, options);
        for (suffix, dtype, shape) in format.tensors(rows, width) {
            let shape = if entry.shape.len() == 1 { entry.shape.clone() } else { shape };
            let end = offset + shape.iter().product::<usize>() * bytes(dtype);
            let name = format!("{}{suffix}", entry.packed);
            header.insert(
                name,
                json!({"dtype": format!("{dtype:?}"), "shape": shape, "data_offsets": [offset, end]}),
            );
            offset = end;
        }
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    // The data begins at a multiple of 8.
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
}

fn bytes(dtype: Dtype) -> usize {
    dtype.bitsize() / 8
}
