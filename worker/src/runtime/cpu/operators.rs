//! The project's operators in ONNX Runtime.

mod attention;
mod delta_rule;
mod embedding;
mod experts;
mod linear;
mod lora_add;
mod norm;
mod norm_add;
mod short_convolution;
mod states;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::{
    operator::OperatorDomain,
    value::{Shape, SymbolicDimensions, TensorElementType, ValueType},
};
use slm_convert::graph::{OPERATOR_DOMAIN, part_formats};
use slm_kernels::{Format, Level, rowwise::Activation};

use self::{
    attention::Attention,
    delta_rule::DeltaRule,
    embedding::Embedding,
    experts::Experts,
    linear::{LinearAdd, NormLinear},
    lora_add::LoraAdd,
    norm_add::NormAdd,
    short_convolution::ShortConvolution,
};
use super::forward_pass::ForwardPass;

/// The operator domain of our graphs. Adapters and KV cache are not graph inputs: a node knows the index of its
/// projection or layer, and `step` maps its rows to sequences and adapters. So loading, replacing or unloading an
/// adapter is one store to a table, at any time.
pub(super) fn domain(step: Arc<Mutex<ForwardPass>>, threads: usize) -> ort::Result<OperatorDomain> {
    let shared = Shared { step, threads, level: Level::best() };
    OperatorDomain::new(OPERATOR_DOMAIN)?
        .add(LoraAdd { shared: shared.clone() })?
        .add(NormLinear { shared: shared.clone() })?
        .add(LinearAdd { shared: shared.clone() })?
        .add(NormAdd { shared: shared.clone() })?
        .add(Experts { shared: shared.clone() })?
        .add(ShortConvolution { shared: shared.clone() })?
        .add(DeltaRule { shared: shared.clone() })?
        .add(Attention { shared })?
        .add(Embedding)
}

/// State shared by the nodes of a session.
#[derive(Clone)]
struct Shared {
    step: Arc<Mutex<ForwardPass>>,
    threads: usize,
    level: Level,
}

impl Shared {
    fn step(&self) -> MutexGuard<'_, ForwardPass> {
        // Each node overwrites its scratch, so a panic leaves nothing behind.
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attributes of a packed matrix.
#[derive(Clone)]
struct MatrixShape {
    /// Format and outputs of each part.
    parts: Vec<(Format, usize)>,
    inputs: usize,
    outputs: usize,
}

impl MatrixShape {
    fn read(context: &ort::operator::KernelContext<'_>) -> ort::Result<Self> {
        let size = |name: &str| {
            let size: Option<i64> = context.get(name);
            size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| missing(name))
        };
        let formats: String = context.get("formats").ok_or_else(|| missing("formats"))?;
        let parts = part_formats(&formats).ok_or_else(|| {
            ort::Error::new(format!("weights of the formats `{formats}` are not known; convert anew"))
        })?;
        let outputs = size("outputs")?;
        if parts.iter().map(|(_, outputs)| outputs).sum::<usize>() != outputs {
            return Err(ort::Error::new(format!(
                "weights of the formats `{formats}` have not {outputs} outputs; convert anew"
            )));
        }
        Ok(Self { parts, inputs: size("inputs")?, outputs })
    }

    fn view<'a>(&self, bytes: &'a [u8]) -> ort::Result<slm_kernels::Matrix<'a>> {
        slm_kernels::Matrix::new(self.inputs, &self.parts, bytes).map_err(ort::Error::wrap)
    }
}

fn activation_by_name(activation: &str) -> ort::Result<Activation> {
    match activation {
        "silu" => Ok(Activation::Silu),
        "gelu_tanh" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        "relu_squared" => Ok(Activation::ReluSquared),
        other => Err(ort::Error::new(format!("the activation `{other}` is not known; convert the model anew"))),
    }
}

fn missing(attribute: &str) -> ort::Error {
    ort::Error::new(format!("the node has no attribute `{attribute}`; convert the model anew"))
}

/// A float tensor with the first `kept` dimensions of `like` and a last one of `width`. The runtime plans memory only
/// for known shapes.
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
