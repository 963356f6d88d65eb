//! `NormLinear` and `LinearAdd`: a packed matrix fused with norm or gate, residual, and the rows' adapters.
//!
//! Two phases over all threads. First, the input's rows are normed or gated, and quantised. Then the adapters' first
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
    rowwise::{rms_norm, silu_gate},
};

use super::{ForwardPass, Matrix, Shared, missing, rows_like};
use crate::runtime::{
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

/// Residual plus `x`, optionally gated, times the matrix.
pub(super) struct LinearAdd {
    pub(super) shared: Shared,
}

const INPUTS: [TensorElementType; 3] =
    [TensorElementType::Float32, TensorElementType::Uint8, TensorElementType::Float32];

impl Operator for NormLinear {
    type Kernel<'attr> = LinearKernel;

    fn name(&self) -> &str {
        NORM_LINEAR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        INPUTS.map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let epsilon: f32 = context.get("epsilon").ok_or_else(|| missing("epsilon"))?;
        LinearKernel::read(&self.shared, context, Some(Before::Norm { epsilon }))
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
        INPUTS.map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let gated: i64 = context.get("gated").ok_or_else(|| missing("gated"))?;
        let before = (gated != 0).then_some(Before::Gate);
        LinearKernel::read(&self.shared, context, before)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        match context.inputs().get(2) {
            Some(residual) => context.set_output(0, residual),
            None => Ok(()),
        }
    }
}

/// Operation on a row before the multiplication.
#[derive(Clone, Copy)]
enum Before {
    /// RMS norm with the gains of the third input.
    Norm { epsilon: f32 },
    /// `silu` of its first half times its second.
    Gate,
}

pub(super) struct LinearKernel {
    shared: Shared,
    matrix: Matrix,
    weights: Constant<u8>,
    gains: Constant<f32>,
    before: Option<Before>,
    /// Index of the fused projection in the model; `None` for the head.
    group: Option<usize>,
}

impl LinearKernel {
    fn read(shared: &Shared, context: &KernelContext<'_>, before: Option<Before>) -> ort::Result<Self> {
        let group: Option<i64> = context.get("group");
        Ok(Self {
            shared: shared.clone(),
            matrix: Matrix::read(context)?,
            weights: Constant::new(),
            gains: Constant::new(),
            before,
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
        let Matrix { inputs, outputs, .. } = self.matrix;
        let width = if matches!(self.before, Some(Before::Gate)) { 2 * inputs } else { inputs };
        if x.width() != width {
            return Err(ort::Error::new(format!("rows of {} for a matrix that takes {width}", x.width())));
        }
        let tokens = x.len() / width;
        let mut out = Tensor::<f32>::output_like(context, 0, &x, outputs)?;
        // SAFETY: the weights are an initializer, and used in this call only.
        let weights = unsafe { self.weights.input(context, 1)? };
        let norm = matches!(self.before, Some(Before::Norm { .. }));
        let (gains, start) = if norm {
            // SAFETY: as above.
            (unsafe { self.gains.input(context, 2)? }, Start::Zero)
        } else {
            let residual = Tensor::<f32>::input(context, 2)?;
            if residual.len() != out.len() {
                return Err(ort::Error::new(format!("a residual of {} for {} outputs", residual.len(), out.len())));
            }
            // If the residual aliases the output, it is only accessed through the output.
            // SAFETY: an input of this call, which nobody writes to unless it is in place.
            let residual = (residual.data != out.data).then(|| unsafe { residual.as_slice() });
            (&[][..], residual.map_or(Start::InPlace, Start::Residual))
        };
        if norm && gains.len() != inputs {
            return Err(ort::Error::new(format!("{} gains for rows of {inputs}", gains.len())));
        }
        // SAFETY: an input of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, y) = unsafe { (x.as_slice(), out.as_mut_slice()) };
        let weights = self.matrix.view(weights)?;
        let Shared { level, threads, .. } = self.shared;
        let mut step = self.shared.step();
        let ForwardPass { activations, scratch, adapters, plan, .. } = &mut *step;
        if self.group.is_some() && tokens != plan.tokens() {
            return Err(ort::Error::new(format!("{tokens} rows for {} tokens", plan.tokens())));
        }
        let shrink = self.group.and_then(|group| adapters.shrink(group, tokens));
        let quantizer = activations.reshape(tokens, inputs);
        let tasks = tokens.min(threads * if tokens <= ROWS_FEW { 1 } else { RANGES_MANY });
        scratch.resize(tasks * inputs, 0.0);
        let input = Input { x, gains, inputs, before: self.before, scratch: Rows::new(scratch, inputs) };

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
            let linear = Linear { weights, x: unsafe { quantizer.filled() }, start, adapters };
            // SAFETY: ranges of columns do not overlap, and first products are awaited.
            unsafe { linear.columns(level, linear.range(part, parts), y) };
        };
        // First products have the lowest indices, because columns wait for them.
        let compute = |task: usize| if task < shrink_tasks { first(task) } else { multiply(task - shrink_tasks) };
        phases::run(context, threads, &[Phase::new(tasks, &prepare), Phase::new(shrink_tasks + parts, &compute)])
    }
}

/// Inputs of a node.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    gains: &'a [f32],
    inputs: usize,
    before: Option<Before>,
    /// One scratch row for each task, to norm or gate in.
    scratch: Rows<'a>,
}

impl Input<'_> {
    /// Norms or gates rows and quantises them.
    ///
    /// # Safety
    /// No other thread uses the same rows, or row `task` of the scratch.
    unsafe fn prepare(&self, level: Level, quantizer: &Quantizer<'_>, rows: Range<usize>, task: usize) {
        let Self { x, gains, inputs, before, scratch } = *self;
        let Some(before) = before else {
            // SAFETY: passed on.
            return unsafe { quantizer.rows(level, x, rows) };
        };
        let fill = |row: usize, out: &mut [f32]| match before {
            Before::Norm { epsilon } => rms_norm(level, &x[row * inputs..][..inputs], gains, epsilon, out),
            Before::Gate => {
                let (gate, value) = x[row * 2 * inputs..][..2 * inputs].split_at(inputs);
                silu_gate(level, gate, value, out);
            }
        };
        // SAFETY: passed on.
        unsafe { quantizer.rows_with(level, scratch.row_mut(task), rows, fill) };
    }
}
