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
use super::source::TensorSource;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::layer_name;

/// Writes the graphs of every encoder that the config names into `dir`, telling each one's name to `progress`.
///
/// # Errors
/// [`Error::Weights`] when a tensor is missing or mis-shaped, [`Error::Io`] when a file cannot be written.
pub fn write_encoders(
    source: &dyn TensorSource,
    config: &Config,
    dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let hidden = config.decoder.hidden_size;
    let mut start = |name: &str| {
        progress(name);
        GraphWriter::create(source, dir, name)
    };
    if let Some(image) = config.image() {
        let vision = image.tower();
        siglip::embeddings(start("vision_embeddings")?, &vision)?;
        for layer in 0..vision.running_layers() {
            siglip::layer(start(&layer_name("vision_layer", layer))?, &vision, layer)?;
        }
        siglip::projector(start("vision_projector")?, vision.hidden_size, hidden)?;
    }
    if let Some(audio) = config.audio() {
        conformer::subsample(start("audio_subsample")?, audio)?;
        conformer::distance_bias(start("audio_distance_bias")?, audio)?;
        for block in 0..audio.num_blocks {
            conformer::block(start(&layer_name("audio_layer", block))?, audio, block)?;
        }
        for which in ["speech", "vision"] {
            let graph = start(&format!("audio_projector_{which}"))?;
            conformer::projector(graph, which, audio.attention_dim, hidden)?;
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
