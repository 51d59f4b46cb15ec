//! Writes one ONNX graph: nodes and small constants into `<name>.onnx`, weights as f32 into `<name>.onnx.data` beside it.
//!
//! Values are named tensors, as in ONNX; every method that computes adds a node and gives the name of its output.
//! Rows are `[T, D]` throughout, without a batch axis.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    type_proto,
};

use crate::error::{Error, Result};
use crate::import::source::TensorSource;

/// Version of the operators; `LayerNormalization` came with it.
const OPSET: i64 = 17;
/// Version of the file format that goes with it.
const IR_VERSION: i64 = 8;

/// The name of a tensor in the graph.
pub(super) type Value = String;

/// A dimension of an input or output.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dim {
    /// Known now.
    Is(usize),
    /// Known when the graph runs; the same name is the same number.
    Free(&'static str),
}

/// A graph in the making.
pub(super) struct GraphWriter<'a> {
    source: &'a dyn TensorSource,
    path: PathBuf,
    graph: GraphProto,
    data: BufWriter<File>,
    data_path: PathBuf,
    data_length: usize,
}

impl<'a> GraphWriter<'a> {
    /// Starts `<dir>/<name>.onnx` with weights from `source`.
    pub(super) fn create(source: &'a dyn TensorSource, dir: &Path, name: &str) -> Result<Self> {
        let path = dir.join(format!("{name}.onnx"));
        let data_path = dir.join(format!("{name}.onnx.data"));
        let data = BufWriter::new(File::create(&data_path).map_err(Error::io(&data_path))?);
        let graph = GraphProto { name: name.to_owned(), ..Default::default() };
        Ok(Self { source, path, graph, data, data_path, data_length: 0 })
    }

    /// An input of real numbers.
    pub(super) fn input(&mut self, name: &str, shape: &[Dim]) -> Value {
        self.graph.input.push(described(name, DataType::Float, shape));
        name.to_owned()
    }

    /// An input of indices.
    pub(super) fn index_input(&mut self, name: &str, shape: &[Dim]) -> Value {
        self.graph.input.push(described(name, DataType::Int64, shape));
        name.to_owned()
    }

    /// Makes `value` the output and writes the file; the bytes of its weights.
    pub(super) fn finish(mut self, value: &Value, shape: &[Dim]) -> Result<u64> {
        self.graph.output.push(described(value, DataType::Float, shape));
        self.data.flush().map_err(Error::io(&self.data_path))?;
        let model = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            producer_name: "outpost".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(self.graph),
            ..Default::default()
        };
        std::fs::write(&self.path, model.encode_to_vec()).map_err(Error::io(&self.path))?;
        Ok(self.data_length as u64)
    }

    /// A tensor of the checkpoint, under its own name.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value> {
        let numbers = self.source.f32(name, shape)?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.data.write_all(&bytes).map_err(Error::io(&self.data_path))?;
        let location =
            self.data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: shape.iter().map(|&size| size as i64).collect(),
            data_type: DataType::Float as i32,
            data_location: Some(DataLocation::External as i32),
            external_data: vec![
                entry("location", location),
                entry("offset", self.data_length.to_string()),
                entry("length", bytes.len().to_string()),
            ],
            ..Default::default()
        });
        self.data_length += bytes.len();
        Ok(name.to_owned())
    }

    /// A number.
    pub(super) fn number(&mut self, number: f32) -> Value {
        self.constant(DataType::Float, vec![], number.to_le_bytes().to_vec())
    }

    /// A list of integers: a shape, or the axes of an operator.
    fn integers(&mut self, integers: &[i64]) -> Value {
        let bytes = integers.iter().flat_map(|integer| integer.to_le_bytes()).collect();
        self.constant(DataType::Int64, vec![integers.len() as i64], bytes)
    }

    fn constant(&mut self, data_type: DataType, dims: Vec<i64>, raw_data: Vec<u8>) -> Value {
        let name = format!("constant_{}", self.graph.initializer.len());
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims,
            data_type: data_type as i32,
            raw_data,
            ..Default::default()
        });
        name
    }

    /// An operator with one output.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let outputs = self.nodes(op, inputs, attributes, 1);
        outputs.into_iter().next().unwrap_or_default()
    }

    fn nodes(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attribute: Vec<AttributeProto>,
        outputs: usize,
    ) -> Vec<Value> {
        let name = format!("{op}_{}", self.graph.node.len());
        let output: Vec<_> = match outputs {
            1 => vec![name.clone()],
            _ => (0..outputs).map(|output| format!("{name}_{output}")).collect(),
        };
        self.graph.node.push(NodeProto {
            name,
            op_type: op.to_owned(),
            input: inputs.iter().map(|&value| value.clone()).collect(),
            output: output.clone(),
            attribute,
            ..Default::default()
        });
        output
    }

    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[a, b], vec![])
    }

    pub(super) fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[a, b], vec![])
    }

    /// `factor * x`.
    pub(super) fn scale(&mut self, x: &Value, factor: f32) -> Value {
        let factor = self.number(factor);
        self.mul(x, &factor)
    }

    pub(super) fn matmul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("MatMul", &[a, b], vec![])
    }

    pub(super) fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.node("Transpose", &[x], vec![integers("perm", order)])
    }

    /// One size may be -1.
    pub(super) fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.node("Reshape", &[x, &shape], vec![])
    }

    /// Entries of `table` along `axis` by `indices`.
    pub(super) fn gather(&mut self, table: &Value, indices: &Value, axis: i64) -> Value {
        self.node("Gather", &[table, indices], vec![integer("axis", axis)])
    }

    /// One under the other.
    pub(super) fn concat_rows(&mut self, parts: &[&Value]) -> Value {
        self.node("Concat", parts, vec![integer("axis", 0)])
    }

    /// Halves along the last axis.
    pub(super) fn halves(&mut self, x: &Value, half: usize) -> [Value; 2] {
        let sizes = self.integers(&[half as i64; 2]);
        let mut halves =
            self.nodes("Split", &[x, &sizes], vec![integer("axis", -1)], 2).into_iter();
        std::array::from_fn(|_| halves.next().unwrap_or_default())
    }

    pub(super) fn softmax(&mut self, x: &Value) -> Value {
        self.node("Softmax", &[x], vec![integer("axis", -1)])
    }

    pub(super) fn relu(&mut self, x: &Value) -> Value {
        self.node("Relu", &[x], vec![])
    }

    /// `x * sigmoid(x)`.
    pub(super) fn swish(&mut self, x: &Value) -> Value {
        let gate = self.node("Sigmoid", &[x], vec![]);
        self.mul(x, &gate)
    }

    /// `x / 2 * (1 + erf(x / sqrt 2))`.
    pub(super) fn gelu(&mut self, x: &Value) -> Value {
        let scaled = self.scale(x, std::f32::consts::FRAC_1_SQRT_2);
        let erf = self.node("Erf", &[&scaled], vec![]);
        self.half_times_one_plus(x, &erf)
    }

    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    pub(super) fn gelu_tanh(&mut self, x: &Value) -> Value {
        let square = self.mul(x, x);
        let cube = self.mul(&square, x);
        let bent = self.scale(&cube, 0.044_715);
        let sum = self.add(x, &bent);
        let scaled = self.scale(&sum, std::f32::consts::FRAC_2_PI.sqrt());
        let tanh = self.node("Tanh", &[&scaled], vec![]);
        self.half_times_one_plus(x, &tanh)
    }

    fn half_times_one_plus(&mut self, x: &Value, y: &Value) -> Value {
        let one = self.number(1.0);
        let sum = self.add(y, &one);
        let product = self.mul(x, &sum);
        self.scale(&product, 0.5)
    }

    /// `x Wᵀ + b` with `W: [outputs, inputs]`, `x: [T, inputs]`.
    pub(super) fn linear(
        &mut self,
        x: &Value,
        prefix: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Value> {
        self.linear_shaped(x, prefix, &[outputs, inputs])
    }

    /// A convolution of kernel 1 over rows: [`Self::linear`] with `W: [outputs, inputs, 1]`.
    pub(super) fn pointwise(
        &mut self,
        x: &Value,
        prefix: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Value> {
        self.linear_shaped(x, prefix, &[outputs, inputs, 1])
    }

    fn linear_shaped(&mut self, x: &Value, prefix: &str, shape: &[usize]) -> Result<Value> {
        let mut weight = self.weight(&format!("{prefix}.weight"), shape)?;
        if shape.len() > 2 {
            weight = self.reshape(&weight, &[shape[0] as i64, shape[1] as i64]);
        }
        let bias = self.weight(&format!("{prefix}.bias"), &shape[..1])?;
        Ok(self.node("Gemm", &[x, &weight, &bias], vec![integer("transB", 1)]))
    }

    /// Layer normalisation over the last axis.
    pub(super) fn layer_norm(
        &mut self,
        x: &Value,
        prefix: &str,
        width: usize,
        epsilon: f32,
    ) -> Result<Value> {
        let weight = self.weight(&format!("{prefix}.weight"), &[width])?;
        let bias = self.weight(&format!("{prefix}.bias"), &[width])?;
        let attributes = vec![integer("axis", -1), real("epsilon", epsilon)];
        Ok(self.node("LayerNormalization", &[x, &weight, &bias], attributes))
    }

    /// A convolution with bias.
    pub(super) fn conv(&mut self, x: &Value, prefix: &str, conv: &Conv<'_>) -> Result<Value> {
        let weight = self.weight(&format!("{prefix}.weight"), conv.shape)?;
        let bias = self.weight(&format!("{prefix}.bias"), &conv.shape[..1])?;
        let attributes = vec![
            integers(
                "kernel_shape",
                &conv.shape[2..].iter().map(|&size| size as i64).collect::<Vec<_>>(),
            ),
            integers("strides", &vec![conv.stride as i64; conv.shape.len() - 2]),
            integers("pads", conv.pads),
            integer("group", conv.groups as i64),
        ];
        Ok(self.node("Conv", &[x, &weight, &bias], attributes))
    }

    /// Softmax attention of all heads: `q`, `k`, `v`: `[T, heads * width]`; `bias` is added to the scores
    /// `[heads, T, T]`. Gives `[T, heads * width]`.
    pub(super) fn attention(
        &mut self,
        [q, k, v]: [&Value; 3],
        bias: &Value,
        heads: usize,
        width: usize,
    ) -> Value {
        let [heads, columns] = [heads as i64, width as i64];
        let q = self.scale(q, 1.0 / (width as f32).sqrt());
        let [q, k, v] = [&q, k, v].map(|x| self.reshape(x, &[-1, heads, columns]));
        let q = self.transpose(&q, &[1, 0, 2]);
        let k = self.transpose(&k, &[1, 2, 0]);
        let v = self.transpose(&v, &[1, 0, 2]);
        let scores = self.matmul(&q, &k);
        let scores = self.add(&scores, bias);
        let weights = self.softmax(&scores);
        let mixed = self.matmul(&weights, &v);
        let mixed = self.transpose(&mixed, &[1, 0, 2]);
        self.reshape(&mixed, &[-1, heads * columns])
    }
}

/// What a convolution is beside its weights.
pub(super) struct Conv<'a> {
    /// Of the weight: outputs, inputs per group, kernel.
    pub(super) shape: &'a [usize],
    /// The same along every axis.
    pub(super) stride: usize,
    /// Zeros at the begin of every axis, then at its end.
    pub(super) pads: &'a [i64],
    /// Of channels.
    pub(super) groups: usize,
}

fn described(name: &str, data_type: DataType, shape: &[Dim]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|dim| Dimension {
            value: Some(match *dim {
                Dim::Is(size) => dimension::Value::DimValue(size as i64),
                Dim::Free(name) => dimension::Value::DimParam(name.to_owned()),
            }),
            ..Default::default()
        })
        .collect();
    let tensor =
        type_proto::Tensor { elem_type: data_type as i32, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: value, ..attribute(name, AttributeType::Int) }
}

fn integers(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) }
}

fn real(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: value, ..attribute(name, AttributeType::Float) }
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: r#type as i32, ..Default::default() }
}
