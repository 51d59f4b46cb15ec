//! Writes the decoder's safetensors file as a stream: the header is planned first, so that no more than one block of packed rows
//! is held in memory. All cores read and quantize, a panel at a time, which stays in their caches.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use outpost_kernels::{Format, PANEL};
use rayon::prelude::*;
use serde_json::{Map, json};

use super::ImportOptions;
use super::inventory::{Entry, Role};
use super::progress::Meter;
use super::quantize::Quant;
use super::source::TensorSource;
use crate::error::{Error, Result};
use crate::weights::FORMATS;

/// Values that are packed before they are written.
const BLOCK: usize = 1 << 24;

/// Where tensors begin, as matrices do.
const ALIGN: usize = 64;

/// How an entry lies in the file.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// Panels of a matrix.
    Matrix { format: Format, rows: usize, width: usize },
    /// Numbers in f32.
    Vector { len: usize },
}

impl Layout {
    fn of(entry: &Entry, quant: Quant) -> Self {
        let [rows, width] = entry.shape[..] else {
            return Self::Vector { len: entry.shape.iter().product() };
        };
        // 4 bits cost most where tokens are told apart (docs/performance.md). Of an embedding, only the rows in use are read.
        let quant = match (entry.role, quant) {
            (Role::Embedding | Role::Head, Quant::Int4) => Quant::Int8,
            _ => quant,
        };
        Self::Matrix { format: quant.format(width), rows, width }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Matrix { format, rows, width } => format.bytes(rows, width).unwrap_or(0),
            Self::Vector { len } => len * size_of::<f32>(),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Matrix { format, .. } => {
                FORMATS.iter().find(|(_, known)| *known == format).map_or("", |(suffix, _)| suffix)
            }
            Self::Vector { .. } => "",
        }
    }

    /// Number format and shape for the header.
    fn describe(self) -> (&'static str, Vec<usize>) {
        match self {
            Self::Matrix { rows, .. } => {
                let panels = rows.div_ceil(PANEL);
                ("U8", vec![panels, self.bytes() / panels.max(1)])
            }
            Self::Vector { len } => ("F32", vec![len]),
        }
    }
}

/// Writes the tensors of `entries` to `path`.
pub(crate) fn write_decoder(
    source: &dyn TensorSource,
    entries: &[Entry],
    options: ImportOptions,
    path: &Path,
    meter: &mut Meter<'_>,
) -> Result<()> {
    let entries = in_order(entries, options.quant);
    let mut file = BufWriter::new(File::create(path).map_err(Error::io(path))?);
    file.write_all(&header(&entries)).map_err(Error::io(path))?;
    for (entry, layout) in &entries {
        if matches!(layout, Layout::Matrix { .. }) {
            meter.stage(&format!("decoder: {}", stage(&entry.packed)));
        }
        write_entry(source, entry, *layout, &mut file, meter).map_err(|fault| match fault {
            Fault::Read(fault) => fault,
            Fault::Write(fault) => Error::io(path)(fault),
        })?;
    }
    let file = file.into_inner().map_err(|fault| Error::io(path)(fault.into_error()))?;
    file.sync_all().map_err(Error::io(path))
}

/// What is stored: matrices first, each of which is a multiple of 64 bytes, so that all of them are aligned.
fn in_order(entries: &[Entry], quant: Quant) -> Vec<(&Entry, Layout)> {
    let mut entries: Vec<_> =
        entries.iter().map(|entry| (entry, Layout::of(entry, quant))).collect();
    entries.sort_by_key(|(_, layout)| matches!(layout, Layout::Vector { .. }));
    entries
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
    for (entry, layout) in in_order(entries, options.quant) {
        let place = match entry.role {
            Role::Embedding => 1,
            Role::Head => 2,
            _ if entry.packed.ends_with(".vision.weight") => 3,
            _ if entry.packed.ends_with(".speech.weight") => 4,
            Role::Norm | Role::Linear => 0,
        };
        parts[place].1 += layout.bytes() as u64;
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
    layout: Layout,
    file: &mut BufWriter<File>,
    meter: &mut Meter<'_>,
) -> Result<(), Fault> {
    let Layout::Matrix { format, rows, width } = layout else {
        let len = entry.shape.iter().product();
        let values = entry.rows(source, 0..len).map_err(Fault::Read)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        meter.add(bytes.len() as u64);
        return file.write_all(&bytes).map_err(Fault::Write);
    };
    let block = (BLOCK / width / PANEL).max(1) * PANEL;
    for start in (0..rows).step_by(block) {
        let end = rows.min(start + block);
        let panel = |first: usize| {
            let values = entry.rows(source, first..end.min(first + PANEL))?;
            Ok(format.pack(&values, width))
        };
        let panels: Result<Vec<Vec<u8>>> =
            (start..end).into_par_iter().step_by(PANEL).map(panel).collect();
        for panel in panels.map_err(Fault::Read)? {
            file.write_all(&panel).map_err(Fault::Write)?;
            meter.add(panel.len() as u64);
        }
    }
    Ok(())
}

/// Length and JSON header of a safetensors file, filled up so that the data is aligned.
fn header(entries: &[(&Entry, Layout)]) -> Vec<u8> {
    let mut header = Map::new();
    let mut offset = 0;
    for (entry, layout) in entries {
        let (dtype, shape) = layout.describe();
        let end = offset + layout.bytes();
        let name = format!("{}{}", entry.packed, layout.suffix());
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    let length = (json.len() + 8).next_multiple_of(ALIGN) - 8;
    json.resize(length, b' ');
    [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
}
