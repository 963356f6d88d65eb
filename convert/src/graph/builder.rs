//! Graph builder: nodes, names and initializers.

use std::io;

use super::{GraphError, OPERATOR_DOMAIN, Precision};
use crate::{
    architecture::Architecture,
    checkpoint::Checkpoint,
    onnx::{self, Attribute, ElementType, Node, ValueInfo},
    weights::WeightFile,
};

/// Domain of ONNX Runtime's operators outside the ONNX standard.
pub(super) const MICROSOFT: &str = "com.microsoft";
const IR_VERSION: i64 = 10;
const OPSET: i64 = 21;

/// A graph under construction.
pub(super) struct Builder<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) precision: Precision,
    weights: WeightFile,
    nodes: Vec<Node>,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, precision: Precision, weights: WeightFile) -> Self {
        Self { checkpoint, precision, weights, nodes: Vec::new(), inputs: Vec::new(), outputs: Vec::new() }
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

    pub(super) fn f32s(&mut self, name: &str, shape: &[usize], data: &[f32]) -> io::Result<()> {
        self.weights.add(name, ElementType::F32, shape, bytemuck::cast_slice(data))
    }

    pub(super) fn i64s(&mut self, name: &str, data: &[i64]) -> io::Result<()> {
        self.weights.add(name, ElementType::I64, &[data.len()], bytemuck::cast_slice(data))
    }

    pub(super) fn bytes(&mut self, name: &str, shape: &[usize], data: &[u8]) -> io::Result<()> {
        self.weights.add(name, ElementType::U8, shape, data)
    }

    pub(super) fn finish(self) -> Result<onnx::Model, GraphError> {
        let (initializer, _bytes) = self.weights.finish()?;
        let opset = |domain: &str, version| onnx::OperatorSet { domain: domain.into(), version };
        Ok(onnx::Model {
            ir_version: IR_VERSION,
            producer_name: env!("CARGO_PKG_NAME").into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(onnx::Graph {
                node: self.nodes,
                name: "decoder".into(),
                initializer,
                input: self.inputs,
                output: self.outputs,
            }),
            opset_import: vec![opset("", OPSET), opset(MICROSOFT, 1), opset(OPERATOR_DOMAIN, 1)],
        })
    }
}
