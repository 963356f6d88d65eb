//! Graph builder: nodes, names and initializers.

use std::io;

use half::f16;

use super::{Activations, Flavour, Form, GraphError, OPERATOR_DOMAIN};
use crate::{
    architecture::Architecture,
    checkpoint::Checkpoint,
    onnx::{self, Attribute, ElementType, Node, ValueInfo},
    weights::WeightFile,
};

/// Domain of ONNX Runtime's operators outside the ONNX standard.
pub(super) const MICROSOFT: &str = "com.microsoft";
/// Domain of the operators of the ONNX standard.
const STANDARD: &str = "";

/// A graph under construction.
pub(super) struct Builder<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) flavour: Flavour,
    weights: WeightFile,
    nodes: Vec<Node>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, flavour: Flavour, weights: WeightFile) -> Self {
        Self { checkpoint, flavour, weights, nodes: Vec::new(), inputs: Vec::new(), outputs: Vec::new() }
    }

    pub(super) fn architecture(&self) -> &'a Architecture {
        self.checkpoint.architecture()
    }

    pub(super) fn input(&mut self, value: ValueInfo) {
        self.inputs.push(value);
    }

    pub(super) fn output(&mut self, value: ValueInfo) {
        self.outputs.push(value);
    }

    /// Adds a node. An empty name is an omitted input or output; the last ones are left out.
    pub(super) fn node(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) {
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        let given = inputs.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        self.nodes.push(Node {
            input: strings(&inputs[..given]),
            output: strings(outputs),
            name: format!("{}/{op}", outputs.iter().find(|n| !n.is_empty()).unwrap_or(&"")),
            op_type: op.into(),
            attribute: attributes,
            domain: domain.into(),
        });
    }

    /// Adds a tensor of the activations' type.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> io::Result<()> {
        match self.flavour.activations {
            Activations::F32 => self.f32s(name, shape, data),
            Activations::F16 => self.f16s(name, shape, data),
        }
    }

    /// Type of the activations.
    pub(super) fn float(&self) -> ElementType {
        match self.flavour.activations {
            Activations::F32 => ElementType::F32,
            Activations::F16 => ElementType::F16,
        }
    }

    fn f16s(&mut self, name: &str, shape: &[usize], data: &[f32]) -> io::Result<()> {
        let data: Vec<f16> = data.iter().map(|&x| f16::from_f32(x)).collect();
        self.weights.add(name, ElementType::F16, shape, bytemuck::cast_slice(&data))
    }

    pub(super) fn f32s(&mut self, name: &str, shape: &[usize], data: &[f32]) -> io::Result<()> {
        self.weights.add(name, ElementType::F32, shape, bytemuck::cast_slice(data))
    }

    pub(super) fn i64s(&mut self, name: &str, data: &[i64]) -> io::Result<()> {
        self.weights.add(name, ElementType::I64, &[data.len()], bytemuck::cast_slice(data))
    }

    pub(super) fn bytes(&mut self, name: &str, shape: &[usize], data: &[u8]) -> io::Result<()> {
        self.weights.add(name, ElementType::U8, shape, data)
    }

    /// Adds signed integers of 4 bits, two a byte, the earlier one in the low half.
    pub(super) fn i4s(&mut self, name: &str, shape: &[usize], data: &[u8]) -> io::Result<()> {
        self.weights.add(name, ElementType::I4, shape, data)
    }

    pub(super) fn finish(self) -> Result<onnx::Model, GraphError> {
        let (initializer, _bytes) = self.weights.finish()?;
        let opset = |domain: &str, version| onnx::OperatorSet { domain: domain.into(), version };
        // `TensorScatter` and `Attention` with it came with opset 24.
        let (ir_version, opset_import) = match self.flavour.form {
            Form::Standard => (11, vec![opset(STANDARD, 24)]),
            Form::Paged | Form::States | Form::Gqa | Form::Delta => {
                (10, vec![opset(STANDARD, 21), opset(MICROSOFT, 1), opset(OPERATOR_DOMAIN, 1)])
            }
        };
        Ok(onnx::Model {
            ir_version,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(onnx::Graph {
                node: self.nodes,
                name: "decoder".into(),
                initializer,
                input: self.inputs,
                output: self.outputs,
            }),
            opset_import,
        })
    }
}
