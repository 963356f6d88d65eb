//! `NormLinear` and `LinearAdd`: a packed matrix, what comes before and after it, and the adapters of the rows.
//!
//! Two phases over all threads. The input's rows are normed or gated and quantised. Then come the first halves of what
//! the adapters make of them, and ranges of columns, each with the residual and then the second halves while it is near;
//! nobody waits for first halves before its own columns are multiplied.
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

use super::{Matrix, Shared, Step, missing, rows_like};
use crate::runtime::{
    phases::{self, caught},
    sharing::Halfway,
    tensor::{Constant, Tensor},
};

/// Rows up to which weights are what takes the time: few ranges then, for each costs a hand-over.
const ROWS_FEW: usize = 8;
/// Ranges of columns a thread, so that one that was held up can be helped.
const RANGES_FEW: usize = 2;
const RANGES_MANY: usize = 8;

/// `x` to the norm of it, times the matrix.
pub(super) struct NormLinear {
    pub(super) shared: Shared,
}

/// The residual plus `x`, gated or not, times the matrix.
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

/// What is done to a row before it meets the matrix.
#[derive(Clone, Copy)]
enum Before {
    /// Its norm, with the gains of the third input.
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
    /// The group of the model that it is; a head is none.
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
            // A residual in place is only used through the output.
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
        let Step { activations, scratch, sharing, plan, .. } = &mut *step;
        if self.group.is_some() && tokens != plan.tokens() {
            return Err(ort::Error::new(format!("{tokens} rows for {} tokens", plan.tokens())));
        }
        let halfway = self.group.and_then(|group| sharing.halfway(group, tokens));
        let quantizer = activations.reshape(tokens, inputs);
        let tasks = tokens.min(threads * if tokens <= ROWS_FEW { 1 } else { RANGES_MANY });
        scratch.resize(tasks * inputs, 0.0);
        let input = Input { x, gains, inputs, before: self.before, scratch: Rows::new(scratch, inputs) };

        // SAFETY: ranges of rows do not overlap, and each has a row of scratch.
        let prepare = |task: usize| unsafe {
            input.prepare(level, &quantizer, cut(tokens, task, tasks)..cut(tokens, task + 1, tasks), task);
        };
        let halves = halfway.as_ref().map_or(0, Halfway::tasks);
        let gate = Gate::new(halves);
        let ready = || gate.wait();
        let first = |task: usize| {
            let Some(halfway) = &halfway else { return };
            // SAFETY: all rows are quantised, and first halves are computed once each.
            gate.task(|| unsafe { halfway.first(level, task, Inputs::Int8(quantizer.filled())) });
        };
        let parts = threads * if tokens <= ROWS_FEW { RANGES_FEW } else { RANGES_MANY };
        let y = Rows::new(y, outputs);
        let multiply = |part: usize| {
            let adapters = halfway.as_ref().map(|half| Adapters {
                shares: &half.shares,
                hidden: half.hidden,
                ready: &ready,
                next: &half.next,
            });
            // SAFETY: all rows are quantised.
            let linear = Linear { weights, x: unsafe { quantizer.filled() }, start, adapters };
            // SAFETY: ranges of columns do not overlap, and first halves are waited for.
            unsafe { linear.columns(level, linear.range(part, parts), y) };
        };
        // First halves come first: columns wait for them.
        let compute = |task: usize| if task < halves { first(task) } else { multiply(task - halves) };
        phases::run(context, threads, &[Phase::new(tasks, &prepare), Phase::new(halves + parts, &compute)])
    }
}

/// What a node's rows are made of.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    gains: &'a [f32],
    inputs: usize,
    before: Option<Before>,
    /// A row for each task, to norm or gate in.
    scratch: Rows<'a>,
}

impl Input<'_> {
    /// Norms or gates some rows and quantises them.
    ///
    /// # Safety
    /// Nobody else uses the same rows, or row `task` of the scratch.
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
