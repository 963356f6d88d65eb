//! `NormLinear` and `LinearAdd`: a packed matrix fused with norm or activation, bias, residual, and the rows' adapters.
//!
//! Two phases over all threads. First, the input's rows are normed or activated, and quantised. Then the adapters' first
//! products (`x A`) and ranges of columns are computed, each range with the residual and the adapters' second products
//! (`h B`) while it is in cache; first products are awaited only after a range's own multiplication.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::ops::Range;

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::{LINEAR_ADD, NORM_LINEAR};
use slm_kernels::{
    Adapters, Level, Linear, Quantizer, Rows, Start,
    lora::Inputs,
    phases::{Gate, Phase, cut},
    rowwise::{Activation, activated, gated},
};

use super::{
    ForwardPass, MatrixShape, Shared, activation_by_name,
    norm::{Norm, NormOf},
    rows_like,
};
use crate::runtime::cpu::{
    adapter_batch::LoraShrink,
    phases::{self, caught},
    tensor::{Constant, Tensor},
};

/// Up to this many rows the weights' bandwidth dominates: use few ranges, because each costs a hand-over.
const ROWS_FEW: usize = 8;
/// Ranges of columns for each thread, so that others can take over from a delayed thread.
const RANGES_FEW: usize = 2;
const RANGES_MANY: usize = 8;

/// Normed `x` times the matrix.
pub(super) struct NormLinear {
    pub(super) shared: Shared,
}

/// Residual plus the activation of `x` times the matrix.
pub(super) struct LinearAdd {
    pub(super) shared: Shared,
}

/// `x`, weights, and so many optional inputs.
fn inputs(optional: usize) -> impl Iterator<Item = OperatorInput> {
    let required = [TensorElementType::Float32, TensorElementType::Uint8].map(OperatorInput::required);
    let optional = std::iter::repeat_with(|| OperatorInput::optional(TensorElementType::Float32)).take(optional);
    required.into_iter().chain(optional)
}

impl Operator for NormLinear {
    type Kernel<'attr> = LinearKernel;

    fn name(&self) -> &str {
        NORM_LINEAR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs(3)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let before = match Norm::read(context, 2)? {
            Some(norm) => Before::Norm(norm),
            None => Before::Nothing,
        };
        LinearKernel::read(&self.shared, context, before, None, 4)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let outputs: i64 = context.attr("outputs")?;
        let x = context.inputs().into_iter().next();
        let y = x.and_then(|x| rows_like(&x, x.tensor_shape()?.len() - 1, outputs));
        match y {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

impl Operator for LinearAdd {
    type Kernel<'attr> = LinearKernel;

    const INPLACES: &[(u32, u32)] = &[(2, 0)];

    fn name(&self) -> &str {
        LINEAR_ADD
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs(2)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let flag = |name: &str| context.get::<i64>(name).is_some_and(|flag| flag != 0);
        let activation: Option<String> = context.get("activation");
        let before = match activation {
            Some(activation) => {
                Before::Activation { activation: activation_by_name(&activation)?, gated: flag("gated") }
            }
            None => Before::Nothing,
        };
        LinearKernel::read(&self.shared, context, before, flag("residual").then_some(2), 3)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let outputs: i64 = context.attr("outputs")?;
        match context.inputs().first().and_then(|x| rows_like(x, x.tensor_shape()?.len() - 1, outputs)) {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

/// Operation on a row before the multiplication.
enum Before {
    Nothing,
    Norm(Norm),
    /// The activation, with `gated` that of its first half times its second.
    Activation {
        activation: Activation,
        gated: bool,
    },
}

pub(super) struct LinearKernel {
    shared: Shared,
    matrix: MatrixShape,
    weights: Constant<u8>,
    before: Before,
    /// Index of the input that is the residual.
    residual: Option<usize>,
    /// Bias, and the index of its input.
    bias: Option<(Constant<f32>, usize)>,
    /// Factor of the product, with bias and adapters.
    scale: f32,
    /// Index of the fused projection in the model; `None` for the head.
    group: Option<usize>,
}

impl LinearKernel {
    fn read(
        shared: &Shared,
        context: &KernelContext<'_>,
        before: Before,
        residual: Option<usize>,
        bias: usize,
    ) -> ort::Result<Self> {
        let group: Option<i64> = context.get("group");
        let biased: Option<i64> = context.get("bias");
        Ok(Self {
            shared: shared.clone(),
            matrix: MatrixShape::read(context)?,
            weights: Constant::new(),
            before,
            residual,
            bias: biased.filter(|biased| *biased != 0).map(|_| (Constant::new(), bias)),
            scale: context.get("scale").unwrap_or(1.0),
            group: group.and_then(|group| usize::try_from(group).ok()),
        })
    }
}

impl Kernel for LinearKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl LinearKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = Tensor::<f32>::input(context, 0)?;
        let MatrixShape { inputs, outputs, .. } = self.matrix;
        let width = if matches!(self.before, Before::Activation { gated: true, .. }) { 2 * inputs } else { inputs };
        if x.width() != width {
            return Err(ort::Error::new(format!("rows of {} for a matrix that takes {width}", x.width())));
        }
        let tokens = x.len() / width;
        let mut out = Tensor::<f32>::output_like(context, 0, &x, outputs)?;
        // SAFETY: the weights are an initializer, and used in this call only.
        let weights = unsafe { self.weights.input(context, 1)? };
        let residual = match self.residual {
            Some(index) => Some(Tensor::<f32>::input(context, index)?),
            None => None,
        };
        let start = match &residual {
            Some(residual) if residual.len() != out.len() => {
                return Err(ort::Error::new(format!("a residual of {} for {} outputs", residual.len(), out.len())));
            }
            // It aliases the output: it is only accessed through the output.
            Some(residual) if residual.data == out.data => Start::InPlace,
            // SAFETY: an input of this call, which nobody writes to, because it is not in place.
            Some(residual) => Start::Residual(unsafe { residual.as_slice() }),
            None => Start::Zero,
        };
        let bias = match &mut self.bias {
            // SAFETY: the bias is an initializer, and used in this call only.
            Some((bias, index)) => Some(unsafe { bias.input(context, *index)? }),
            None => None,
        };
        if bias.is_some_and(|bias| bias.len() != outputs) {
            return Err(ort::Error::new(format!("a bias of another length than {outputs} outputs")));
        }
        let row = match &mut self.before {
            Before::Nothing => Row::Plain,
            // SAFETY: the tensors of the norm are initializers, and used in this call only.
            Before::Norm(norm) => Row::Normed(unsafe { norm.input(context, inputs)? }),
            Before::Activation { activation, gated } => Row::Activated { activation: *activation, gated: *gated },
        };
        let scale = self.scale;
        // SAFETY: an input of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, y) = unsafe { (x.as_slice(), out.as_mut_slice()) };
        let matrix = self.matrix.view(weights)?;
        let Shared { level, threads, .. } = self.shared;
        let mut step = self.shared.step();
        let ForwardPass { activations, scratch, adapters, tokens: expected, .. } = &mut *step;
        if self.group.is_some() && tokens != *expected {
            return Err(ort::Error::new(format!("{tokens} rows for {expected} tokens")));
        }
        let shrink = self.group.and_then(|group| adapters.shrink(group, tokens));
        let quantizer = activations.reshape(tokens, inputs);
        let tasks = tokens.min(threads * if tokens <= ROWS_FEW { 1 } else { RANGES_MANY });
        scratch.resize(tasks * inputs, 0.0);
        let input = Input { x, inputs, row, scale, scratch: Rows::new(scratch, inputs) };

        // SAFETY: ranges of rows do not overlap, and each has a row of scratch.
        let prepare = |task: usize| unsafe {
            input.prepare(level, &quantizer, cut(tokens, task, tasks)..cut(tokens, task + 1, tasks), task);
        };
        let shrink_tasks = shrink.as_ref().map_or(0, LoraShrink::tasks);
        let gate = Gate::new(shrink_tasks);
        let ready = || gate.wait();
        let first = |task: usize| {
            let Some(shrink) = &shrink else { return };
            // SAFETY: all rows are quantised, and each first product is computed once.
            gate.task(|| unsafe { shrink.run(level, task, Inputs::Int8(quantizer.filled())) });
        };
        let parts = threads * if tokens <= ROWS_FEW { RANGES_FEW } else { RANGES_MANY };
        let y = Rows::new(y, outputs);
        let multiply = |part: usize| {
            let adapters = shrink.as_ref().map(|shrink| Adapters {
                adapter_rows: &shrink.adapter_rows,
                hidden: shrink.hidden,
                ready: &ready,
                next: &shrink.next,
            });
            // SAFETY: all rows are quantised.
            let mut linear = Linear { matrix, x: unsafe { quantizer.filled() }, start, adapters };
            let columns = linear.range(part, parts);
            if let Some(bias) = bias {
                // SAFETY: ranges of columns do not overlap.
                unsafe { begin_with(&y, tokens, columns.clone(), start, &bias[columns.clone()], scale) };
                linear.start = Start::InPlace;
            }
            // SAFETY: ranges of columns do not overlap, and first products are awaited.
            unsafe { linear.columns(level, columns, y) };
        };
        // First products have the lowest indices, because columns wait for them.
        let compute = |task: usize| if task < shrink_tasks { first(task) } else { multiply(task - shrink_tasks) };
        phases::run(context, threads, &[Phase::new(tasks, &prepare), Phase::new(shrink_tasks + parts, &compute)])
    }
}

/// Fills the columns of all rows with the initial value that `start` says plus `scale * bias`.
///
/// # Safety
/// No other thread uses these cells.
unsafe fn begin_with(y: &Rows<'_>, tokens: usize, columns: Range<usize>, start: Start<'_>, bias: &[f32], scale: f32) {
    for token in 0..tokens {
        // SAFETY: passed on.
        let cells = unsafe { y.cells_mut(token, columns.clone()) };
        match start {
            Start::Zero => cells.iter_mut().zip(bias).for_each(|(cell, bias)| *cell = scale * bias),
            Start::InPlace => cells.iter_mut().zip(bias).for_each(|(cell, bias)| *cell += scale * bias),
            Start::Residual(residual) => {
                let residual = &residual[token * y.width()..][columns.clone()];
                let values = residual.iter().zip(bias).map(|(residual, bias)| scale.mul_add(*bias, *residual));
                cells.iter_mut().zip(values).for_each(|(cell, value)| *cell = value);
            }
        }
    }
}

/// Rows of a node's input.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    inputs: usize,
    row: Row<'a>,
    /// Factor after norm or activation.
    scale: f32,
    /// One scratch row for each task, to norm or activate in.
    scratch: Rows<'a>,
}

/// What is done to a row.
#[derive(Clone, Copy)]
enum Row<'a> {
    Plain,
    Normed(NormOf<'a>),
    Activated { activation: Activation, gated: bool },
}

impl Input<'_> {
    /// Norms or activates rows and quantises them.
    ///
    /// # Safety
    /// No other thread uses the same rows, or row `task` of the scratch.
    unsafe fn prepare(&self, level: Level, quantizer: &Quantizer<'_>, rows: Range<usize>, task: usize) {
        let Self { x, inputs, row, scale, scratch } = *self;
        if scale == 1.0 && matches!(row, Row::Plain) {
            // SAFETY: passed on.
            return unsafe { quantizer.rows(level, x, rows) };
        }
        let fill = |index: usize, out: &mut [f32]| {
            match row {
                Row::Plain => out.copy_from_slice(&x[index * inputs..][..inputs]),
                Row::Normed(norm) => norm.row(level, &x[index * inputs..][..inputs], out),
                Row::Activated { activation, gated: true } => {
                    let (gate, value) = x[index * 2 * inputs..][..2 * inputs].split_at(inputs);
                    gated(level, activation, gate, value, out);
                }
                Row::Activated { activation, gated: false } => {
                    activated(level, activation, &x[index * inputs..][..inputs], out);
                }
            }
            if scale != 1.0 {
                out.iter_mut().for_each(|out| *out *= scale);
            }
        };
        // SAFETY: passed on.
        unsafe { quantizer.rows_with(level, scratch.row_mut(task), rows, fill) };
    }
}
