//! Runs the ONNX files of a packed directory with tract: the only module that knows the runner.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tract_onnx::prelude::{
    Datum, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoArcTensor,
    IntoRunnable, IntoTValue, TVec, Tensor, TractResult, TypedRunnableModel,
};

use crate::error::{Error, Result};
use crate::request::Stop;

/// Most runs that go on at once: bounds the memory of their intermediate results.
const MOST_AT_ONCE: usize = 8;

/// Where the weights of the encoders' layers are between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncoderWeights {
    /// In memory.
    #[default]
    Resident,
    /// In their files: a layer is read when its turn comes, once for all crops and segments, and dropped after it.
    OnDemand,
}

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

    /// Takes the text of an ONNX file whose inputs are real numbers of these shapes, in their order.
    ///
    /// # Errors
    /// [`Error::Encoder`] when the runner cannot take it.
    pub(crate) fn parse(name: &str, mut onnx: &[u8], shapes: &[&[usize]]) -> Result<Self> {
        let shaped = |mut model: InferenceModel| {
            for (index, shape) in shapes.iter().enumerate() {
                model.set_input_fact(index, InferenceFact::dt_shape(f32::datum_type(), *shape))?;
            }
            model.into_optimized()?.into_runnable()
        };
        let plan = tract_onnx::onnx().model_for_read(&mut onnx).and_then(shaped);
        plan.map(|plan| Self { name: name.to_owned(), plan }).map_err(|fault| Error::Encoder {
            graph: name.to_owned(),
            reason: format!("{fault:#}"),
        })
    }

    /// Runs the graph on its inputs, in their order, and gives its only output.
    ///
    /// # Errors
    /// [`Error::Encoder`] when the inputs do not fit the graph.
    pub(crate) fn run(&self, inputs: &[Array]) -> Result<Array> {
        self.run_all(inputs).map(|mut outputs| outputs.swap_remove(0))
    }

    /// As [`Graph::run`], and gives all outputs in their order; there is at least one.
    ///
    /// # Errors
    /// As [`Graph::run`].
    pub(crate) fn run_all(&self, inputs: &[Array]) -> Result<Vec<Array>> {
        let inputs: TVec<_> = inputs.iter().map(|input| input.0.clone().into_tvalue()).collect();
        let outputs = self.plan.run(inputs).map_err(|fault| Error::Encoder {
            graph: self.name.clone(),
            reason: format!("{fault:#}"),
        })?;
        Ok(outputs.into_iter().map(|output| Array(output.into_arc_tensor())).collect())
    }
}

/// A tensor that a [`Graph`] takes or gives. A clone shares the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Array(Arc<Tensor>);

impl Array {
    /// Real numbers or indices of that shape.
    ///
    /// # Errors
    /// [`Error::Encoder`] when the shape asks for another count.
    pub(crate) fn new<T: Datum + Copy>(shape: &[usize], data: &[T]) -> Result<Self> {
        Tensor::from_shape(shape, data).map(|tensor| Self(Arc::new(tensor))).map_err(failed)
    }

    /// Its real numbers, flattened.
    ///
    /// # Errors
    /// [`Error::Encoder`] when it holds something else.
    pub(crate) fn numbers(&self) -> Result<&[f32]> {
        let numbers: TractResult<_> = self.0.try_as_plain_ram().and_then(|ram| ram.as_slice());
        numbers.map_err(failed)
    }
}

fn failed(fault: impl std::fmt::Display) -> Error {
    Error::Encoder { graph: "tensor".to_owned(), reason: format!("{fault:#}") }
}

/// Layers, a graph each, that run one after the other: `<name>_00`, `<name>_01`, …
#[derive(Debug)]
pub(crate) struct Stack {
    dir: PathBuf,
    name: &'static str,
    layers: Layers,
}

#[derive(Debug)]
enum Layers {
    Resident(Vec<Graph>),
    OnDemand(usize),
}

/// What goes through a [`Stack`]: rows, which every layer replaces, and an input that all layers take besides.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) rows: Array,
    pub(crate) beside: Array,
}

impl Stack {
    /// Loads that many layers, or only sees that they are there.
    ///
    /// # Errors
    /// As [`Graph::load`].
    pub(crate) fn load(
        dir: &Path,
        name: &'static str,
        count: usize,
        weights: EncoderWeights,
    ) -> Result<Self> {
        let layers = match weights {
            EncoderWeights::Resident => Layers::Resident(
                (0..count).map(|layer| load_layer(dir, name, layer)).collect::<Result<_>>()?,
            ),
            EncoderWeights::OnDemand => {
                // A damaged file is to be found now, and not when somebody speaks: the last one stands for all.
                if let Some(last) = count.checked_sub(1) {
                    load_layer(dir, name, last)?;
                }
                Layers::OnDemand(count)
            }
        };
        Ok(Self { dir: dir.to_owned(), name, layers })
    }

    /// Runs all layers on each of the passes, these side by side.
    ///
    /// # Errors
    /// [`Error::Stopped`] between runs, else as [`Graph::load`] and [`Graph::run`].
    pub(crate) fn run(&self, mut passes: Vec<Pass>, stop: &Stop) -> Result<Vec<Array>> {
        match &self.layers {
            Layers::Resident(layers) => {
                for layer in layers {
                    run_layer(layer, &mut passes, stop)?;
                }
            }
            Layers::OnDemand(count) => {
                for layer in 0..*count {
                    stop.check()?;
                    run_layer(&load_layer(&self.dir, self.name, layer)?, &mut passes, stop)?;
                }
            }
        }
        Ok(passes.into_iter().map(|pass| pass.rows).collect())
    }
}

/// The name of one graph of a stack.
pub(crate) fn layer_name(stack: &str, layer: usize) -> String {
    format!("{stack}_{layer:02}")
}

fn load_layer(dir: &Path, stack: &str, layer: usize) -> Result<Graph> {
    Graph::load(dir, &layer_name(stack, layer))
}

fn run_layer(layer: &Graph, passes: &mut [Pass], stop: &Stop) -> Result<()> {
    side_by_side(passes, |pass| {
        stop.check()?;
        pass.rows = layer.run(&[pass.rows.clone(), pass.beside.clone()])?;
        Ok(())
    })
}

/// Does the work on every item, on as many cores as there are.
fn side_by_side<T: Send>(
    items: &mut [T],
    work: impl Fn(&mut T) -> Result<()> + Sync,
) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MOST_AT_ONCE).min(items.len());
    if threads < 2 {
        return items.iter_mut().try_for_each(work);
    }
    let left = Mutex::new(items.iter_mut());
    let next = || left.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let worker = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
