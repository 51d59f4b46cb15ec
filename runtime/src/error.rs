//! The errors of the runtime: one variant per thing a user can fix.

use std::path::{Path, PathBuf};

/// Shorthand for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong while importing, loading or running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `config.json` or another JSON file of the model does not fit.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Which key, what is wrong and how to fix it.
        reason: String,
    },
    /// The weights do not fit the config: every fault found, by tensor name.
    #[error("{}: {}", path.display(), faults.join("; "))]
    Weights {
        /// The checkpoint file or folder.
        path: PathBuf,
        /// One line per missing, extra, mis-shaped or truncated tensor.
        faults: Vec<String>,
    },
    /// An encoder graph cannot be loaded or run.
    #[error("encoder {graph}: {reason}")]
    Encoder {
        /// The name of the graph.
        graph: String,
        /// What the ONNX runner said.
        reason: String,
    },
    /// A sound is unusable.
    #[error("audio{}: {reason}", at(path.as_deref()))]
    Audio {
        /// The file it came from, if any.
        path: Option<PathBuf>,
        /// What is wrong and what would be accepted.
        reason: String,
    },
    /// A picture is unusable.
    #[error("image{}: {reason}", at(path.as_deref()))]
    Image {
        /// The file it came from, if any.
        path: Option<PathBuf>,
        /// What is wrong and what would be accepted.
        reason: String,
    },
    /// The request cannot be turned into a prompt.
    #[error("request: {0}")]
    Request(String),
    /// The prompt and the answer do not fit into the context.
    #[error(
        "the prompt has {prompt} tokens and up to {new} more were asked for, but the context is bounded at {limit}: shorten the prompt, or raise `context` if the model's own bound is higher"
    )]
    ContextFull {
        /// Tokens of the prompt, media included.
        prompt: usize,
        /// Tokens asked for beyond it.
        new: usize,
        /// The bound.
        limit: usize,
    },
    /// A tool's JSON Schema cannot be made into a grammar.
    #[error("tool grammar: {0}")]
    Grammar(String),
    /// The deadline passed or the caller cancelled.
    #[error("stopped: {0}")]
    Stopped(StopReason),
    /// The compute device asked for is not there.
    #[error("device: {0}")]
    Device(String),
    /// The decoder gave no finite logit, as it does on damaged weights.
    #[error(
        "the decoder gave no usable logit: are the weights of this model damaged? `outpost inspect` checks them"
    )]
    NoLogit,
    /// The device has no room for an intermediate result, or for keys and values.
    #[error(
        "out of memory: {0}; set a shorter `model.context` or `model.kv` to int8, or import the model with a smaller --quant"
    )]
    OutOfMemory(String),
    /// libtorch refused an operation.
    #[cfg(feature = "torch")]
    #[error("libtorch: {0}")]
    Torch(#[source] tch::TchError),
}

#[cfg(feature = "torch")]
impl From<tch::TchError> for Error {
    fn from(fault: tch::TchError) -> Self {
        match Self::out_of_memory(&fault.to_string()) {
            Some(refused) => refused,
            None => Self::Torch(fault),
        }
    }
}

/// Why a generation ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The request's deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The caller cancelled.
    #[error("cancelled by the caller")]
    Cancelled,
}

impl Error {
    /// An allocation that was refused, where libtorch or CUDA says so: they tell it by their words alone.
    pub fn out_of_memory(words: &str) -> Option<Self> {
        let is_refused = ["out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"]
            .iter()
            .any(|refusal| words.contains(refusal));
        // The rest is a backtrace.
        is_refused.then(|| Self::OutOfMemory(words.lines().next().unwrap_or_default().to_owned()))
    }

    /// Whether the device itself refused, rather than the request or the model.
    pub fn is_of_device(&self) -> bool {
        match self {
            Self::OutOfMemory(_) => true,
            #[cfg(feature = "torch")]
            Self::Torch(_) => true,
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), reason: reason.into() }
    }
}

fn at(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| format!(" {}", path.display()))
}

#[cfg(all(test, feature = "torch"))]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_that_is_refused_is_told_from_other_faults() {
        let of = |words: &str| Error::from(tch::TchError::Torch(words.to_owned()));
        let refused =
            of("CUDA out of memory. Tried to allocate 2.00 GiB.\nException raised from malloc");
        assert!(
            matches!(&refused, Error::OutOfMemory(words) if words.ends_with("2.00 GiB.")),
            "{refused:?}"
        );
        let other = of("CUDA error: an illegal memory access was encountered");
        assert!(matches!(other, Error::Torch(_)), "{other:?}");
        // libtorch itself, on the CPU.
        let size = [1_i64 << 40, 1 << 20];
        let fault = tch::Tensor::f_empty(size, (tch::Kind::Float, tch::Device::Cpu)).unwrap_err();
        assert!(matches!(Error::from(fault), Error::OutOfMemory(_)));
    }
}
