//! Runs one ONNX file of a packed directory with tract: the only module that knows the runner.

use std::path::Path;
use std::sync::Arc;

use tract_onnx::prelude::{
    Datum, Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec, Tensor,
    TractResult, TypedRunnableModel,
};

use crate::error::{Error, Result};

/// A loaded and optimised graph. Runs take `&self` and share nothing, so several may go on at once.
pub(crate) struct Graph {
    name: String,
    plan: Arc<TypedRunnableModel>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Graph {
    /// Loads `<dir>/<name>.onnx` with the weights beside it.
    ///
    /// # Errors
    /// [`Error::Io`] when the file is not there, [`Error::Encoder`] when the runner cannot take it.
    pub(crate) fn load(dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(format!("{name}.onnx"));
        std::fs::metadata(&path).map_err(Error::io(&path))?;
        let plan = tract_onnx::onnx()
            .model_for_path(&path)
            .and_then(InferenceModelExt::into_optimized)
            .and_then(IntoRunnable::into_runnable)
            .map_err(|fault| Error::Encoder {
                graph: name.to_owned(),
                reason: format!("{}: {fault:#}: import the model again", path.display()),
            })?;
        Ok(Self { name: name.to_owned(), plan })
    }

    /// Runs the graph on its inputs, in their order, and gives its only output, flattened.
    ///
    /// # Errors
    /// [`Error::Encoder`] when the inputs do not fit the graph.
    pub(crate) fn run(&self, inputs: &[Input<'_>]) -> Result<Vec<f32>> {
        self.try_run(inputs).map_err(|fault| Error::Encoder {
            graph: self.name.clone(),
            reason: format!("{fault:#}"),
        })
    }

    fn try_run(&self, inputs: &[Input<'_>]) -> TractResult<Vec<f32>> {
        let inputs = inputs.iter().map(Input::value).collect::<TractResult<TVec<_>>>()?;
        let outputs = self.plan.run(inputs)?;
        Ok(outputs[0].try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    }
}

/// A tensor given to a [`Graph`]: shape and numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// Real numbers.
    F32(&'a [usize], &'a [f32]),
    /// Indices.
    I64(&'a [usize], &'a [i64]),
}

impl Input<'_> {
    fn value(&self) -> TractResult<TValue> {
        match self {
            Self::F32(shape, data) => tensor(shape, data),
            Self::I64(shape, data) => tensor(shape, data),
        }
    }
}

fn tensor<T: Datum + Copy>(shape: &[usize], data: &[T]) -> TractResult<TValue> {
    Ok(Tensor::from_shape(shape, data)?.into_tvalue())
}
