//! The project's own operators, as a graph sees them.

mod embedding;
mod linear;
mod lora_add;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::{
    operator::OperatorDomain,
    value::{Shape, SymbolicDimensions, TensorElementType, ValueType},
};
use slm_convert::graph::OPERATOR_DOMAIN;
use slm_kernels::{Activations, Format, Level};

use self::{
    embedding::Embedding,
    linear::{LinearAdd, NormLinear},
    lora_add::LoraAdd,
};
use super::sharing::Sharing;
use crate::adapters::AdapterTable;

/// The operator domain that graphs need. Adapters are not graph inputs: a node knows which group of the model it is,
/// and finds the adapter of each row in `table` by the slot number in `rows`. So loading, replacing and unloading an
/// adapter is a store to the table, between two steps or during one.
pub(super) fn domain(table: Arc<AdapterTable>, threads: usize) -> ort::Result<OperatorDomain> {
    let shared = Shared { table, threads, level: Level::best(), scratch: Arc::default() };
    OperatorDomain::new(OPERATOR_DOMAIN)?
        .add(LoraAdd { shared: shared.clone() })?
        .add(NormLinear { shared: shared.clone() })?
        .add(LinearAdd { shared })?
        .add(Embedding)
}

/// What the nodes of a session have in common.
#[derive(Clone)]
struct Shared {
    table: Arc<AdapterTable>,
    threads: usize,
    level: Level,
    scratch: Arc<Mutex<Scratch>>,
}

/// Memory of the node that runs: they run one after the other, and a copy for each would be most of a model.
#[derive(Default)]
struct Scratch {
    activations: Activations,
    prepared: Vec<f32>,
    sharing: Sharing,
}

impl Shared {
    fn scratch(&self) -> MutexGuard<'_, Scratch> {
        // A node that panicked left nothing that the next one would not write anew.
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attributes of a packed matrix.
#[derive(Clone, Copy)]
struct Matrix {
    format: Format,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    fn read(context: &ort::operator::KernelContext<'_>) -> ort::Result<Self> {
        let size = |name: &str| {
            let size: Option<i64> = context.get(name);
            size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| missing(name))
        };
        let format: String = context.get("format").ok_or_else(|| missing("format"))?;
        let format = Format::by_name(&format)
            .ok_or_else(|| ort::Error::new(format!("weights of the format `{format}` are not known; convert anew")))?;
        Ok(Self { format, inputs: size("inputs")?, outputs: size("outputs")? })
    }

    fn view<'a>(&self, bytes: &'a [u8]) -> ort::Result<slm_kernels::Weights<'a>> {
        slm_kernels::Weights::new(self.format, self.inputs, self.outputs, bytes).map_err(ort::Error::wrap)
    }
}

fn missing(attribute: &str) -> ort::Error {
    ort::Error::new(format!("the node has no attribute `{attribute}`; convert the model anew"))
}

/// A tensor of floats with the first `kept` dimensions of `like`, and then `width`: only with known shapes can the
/// runtime plan memory.
fn rows_like(like: &ValueType, kept: usize, width: i64) -> Option<ValueType> {
    let ValueType::Tensor { shape, dimension_symbols, .. } = like else { return None };
    let shape = Shape::new(shape.iter().copied().take(kept).chain([width]));
    let symbols = dimension_symbols.iter().take(kept).cloned().chain([String::new()]);
    Some(ValueType::Tensor {
        ty: TensorElementType::Float32,
        shape,
        dimension_symbols: SymbolicDimensions::new(symbols),
    })
}
