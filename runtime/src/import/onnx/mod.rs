//! The encoders as plain ONNX graphs, built from config and checkpoint: `<graph>.onnx` in the packed directory, with f32 weights beside it.
//!
//! | graph | what |
//! | --- | --- |
//! | `vision_embeddings` | a crop → patches |
//! | `vision_layer_NN` | patches → patches, one layer of the tower |
//! | `vision_projector` | pooled patches, with separators between → rows for the decoder |
//! | `audio_subsample` | log-mel frames → a row per 80 ms |
//! | `audio_distance_bias` | distances → what they add to the scores of every block |
//! | `audio_layer_NN` | rows → rows, one block of the conformer over a segment |
//! | `audio_projector_speech`, `audio_projector_vision` | rows → rows for the decoder |

mod conformer;
mod graph;
mod inventory;
mod siglip;

use std::path::Path;

use self::graph::{GraphWriter, Value};
pub use self::inventory::{inventory, layer_of, running};
use super::progress::Meter;
use super::source::TensorSource;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::layer_name;

/// Writes the graphs of every encoder that the config names into `dir`.
///
/// # Errors
/// [`Error::Weights`] when a tensor is missing or mis-shaped, [`Error::Io`] when a file cannot be written.
pub(crate) fn write_encoders(
    source: &dyn TensorSource,
    config: &Config,
    dir: &Path,
    meter: &mut Meter<'_>,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let hidden = config.decoder.hidden_size;
    let mut write = |name: &str, build: &dyn Fn(GraphWriter<'_>) -> Result<u64>| -> Result<()> {
        meter.stage(name);
        meter.add(build(GraphWriter::create(source, dir, name)?)?);
        Ok(())
    };
    if let Some(image) = config.image() {
        let vision = image.tower();
        write("vision_embeddings", &|g| siglip::embeddings(g, &vision))?;
        for layer in 0..vision.running_layers() {
            write(&layer_name("vision_layer", layer), &|g| siglip::layer(g, &vision, layer))?;
        }
        write("vision_projector", &|g| siglip::projector(g, vision.hidden_size, hidden))?;
    }
    if let Some(audio) = config.audio() {
        write("audio_subsample", &|g| conformer::subsample(g, audio))?;
        write("audio_distance_bias", &|g| conformer::distance_bias(g, audio))?;
        for block in 0..audio.num_blocks {
            write(&layer_name("audio_layer", block), &|g| conformer::block(g, audio, block))?;
        }
        for which in ["speech", "vision"] {
            write(&format!("audio_projector_{which}"), &|g| {
                conformer::projector(g, which, audio.attention_dim, hidden)
            })?;
        }
    }
    Ok(())
}

/// Linear, GELU, linear.
fn projector(
    g: &mut GraphWriter<'_>,
    prefix: &str,
    xs: &Value,
    width: usize,
    hidden: usize,
) -> Result<Value> {
    let xs = g.linear(xs, &format!("{prefix}.0"), width, hidden)?;
    let xs = g.gelu(&xs);
    g.linear(&xs, &format!("{prefix}.2"), hidden, hidden)
}
