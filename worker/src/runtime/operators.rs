//! The project's own operators, as a graph sees them.

mod attention;
mod embedding;
mod linear;
mod lora_add;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::{
    operator::OperatorDomain,
    value::{Shape, SymbolicDimensions, TensorElementType, ValueType},
};
use slm_convert::graph::OPERATOR_DOMAIN;
use slm_kernels::{Format, Level};

use self::{
    attention::Attention,
    embedding::Embedding,
    linear::{LinearAdd, NormLinear},
    lora_add::LoraAdd,
};
use super::step::Step;

/// The operator domain that graphs need. Neither adapters nor keys and values are graph inputs: a node knows which group
/// or layer of the model it is, and finds in `step` whose its tokens are. So loading, replacing and unloading an adapter
/// is a store to a table, between two steps or during one.
pub(super) fn domain(step: Arc<Mutex<Step>>, threads: usize) -> ort::Result<OperatorDomain> {
    let shared = Shared { step, threads, level: Level::best() };
    OperatorDomain::new(OPERATOR_DOMAIN)?
        .add(LoraAdd { shared: shared.clone() })?
        .add(NormLinear { shared: shared.clone() })?
        .add(LinearAdd { shared: shared.clone() })?
        .add(Attention { shared })?
        .add(Embedding)
}

/// What the nodes of a session have in common.
#[derive(Clone)]
struct Shared {
    step: Arc<Mutex<Step>>,
    threads: usize,
    level: Level,
}

impl Shared {
    fn step(&self) -> MutexGuard<'_, Step> {
        // A node that panicked left nothing that the next one would not write anew.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
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
