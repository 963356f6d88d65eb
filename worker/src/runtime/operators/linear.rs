//! `NormLinear` and `LinearAdd`: a packed matrix, what comes before and after it, and the adapters of the rows.
//!
//! Three passes, each over all threads: the input's rows are normed or gated and quantised; the first halves of the
//! adapters are computed; then ranges of columns are multiplied, each with the second halves and the residual while it
//! is near.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::{LINEAR_ADD, NORM_LINEAR};
use slm_kernels::{
    Activations, Adapters, Linear, Rows, Start,
    rowwise::{rms_norm, silu_gate},
};

use super::{Matrix, Scratch, Shared, missing, rows_like};
use crate::runtime::tensor::Tensor;

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

const INPUTS: [TensorElementType; 4] =
    [TensorElementType::Float32, TensorElementType::Uint8, TensorElementType::Int32, TensorElementType::Float32];

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
        LinearKernel::read(&self.shared, context, Before::Norm { epsilon })
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

    const INPLACES: &[(u32, u32)] = &[(3, 0)];

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
        let before = if gated == 0 { Before::Nothing } else { Before::Gate };
        LinearKernel::read(&self.shared, context, before)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        match context.inputs().get(3) {
            Some(residual) => context.set_output(0, residual),
            None => Ok(()),
        }
    }
}

/// What is done to a row before it meets the matrix.
#[derive(Clone, Copy)]
enum Before {
    /// Its norm, with the gains of the fourth input.
    Norm {
        epsilon: f32,
    },
    /// `silu` of its first half times its second.
    Gate,
    Nothing,
}

pub(super) struct LinearKernel {
    shared: Shared,
    matrix: Matrix,
    before: Before,
    /// The group of the model that it is; a head is none.
    group: Option<usize>,
}

impl LinearKernel {
    fn read(shared: &Shared, context: &KernelContext<'_>, before: Before) -> ort::Result<Self> {
        let group: Option<i64> = context.get("group");
        let group = group.and_then(|group| usize::try_from(group).ok());
        Ok(Self { shared: shared.clone(), matrix: Matrix::read(context)?, before, group })
    }
}

impl Kernel for LinearKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = Tensor::<f32>::input(context, 0)?;
        let weights = Tensor::<u8>::input(context, 1)?;
        let rows = Tensor::<i32>::input(context, 2)?;
        let fourth = Tensor::<f32>::input(context, 3)?;
        let Matrix { inputs, outputs, .. } = self.matrix;
        let width = if matches!(self.before, Before::Gate) { 2 * inputs } else { inputs };
        if x.width() != width {
            return Err(ort::Error::new(format!("rows of {} for a matrix that takes {width}", x.width())));
        }
        let tokens = x.len() / width;
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = outputs as i64;
        }
        let mut out = Tensor::<f32>::output(context, 0, shape)?;
        let in_place = out.data == fourth.data;
        // SAFETY: inputs of this call, which nobody writes to but for the residual in place, and its output, which
        // nobody else touches meanwhile. A residual in place is only used through the output.
        let (x, weights, rows, fourth, y) = unsafe {
            let fourth = if in_place { &[] } else { fourth.as_slice() };
            (x.as_slice(), weights.as_slice(), rows.as_slice(), fourth, out.as_mut_slice())
        };
        let weights = self.matrix.view(weights)?;
        let Shared { level, threads, .. } = self.shared;

        let mut scratch = self.shared.scratch();
        let Scratch { activations, prepared, sharing } = &mut *scratch;
        let input = Input { x, gains: fourth, tokens };
        let x = self.prepare(context, input, weights.format().block(), prepared, activations)?;
        let group = self.group.filter(|_| rows.iter().any(|&slot| slot >= 0));
        let halfway = match group {
            Some(group) => {
                sharing.gather(&self.shared.table, group, rows, tokens / rows.len());
                sharing.halfway(context, level, threads, group, x)?
            }
            None => None,
        };
        let adapters = halfway.as_ref().map(|half| Adapters { shares: &half.shares, hidden: half.hidden });
        let start = match self.before {
            Before::Norm { .. } => Start::Zero,
            Before::Gate | Before::Nothing if in_place => Start::InPlace,
            Before::Gate | Before::Nothing => Start::Residual(fourth),
        };
        let linear = Linear { weights, x: activations, start, adapters };
        let y = Rows::new(y, outputs);
        let parts = threads * if tokens <= ROWS_FEW { RANGES_FEW } else { RANGES_MANY };
        // SAFETY: ranges of columns do not overlap, and the hidden rows are done.
        let range = |part: usize| unsafe { linear.columns(level, linear.range(part, parts), y) };
        if threads == 1 {
            (0..parts).for_each(range);
        } else {
            context.par_for(parts, parts, range)?;
        }
        drop(halfway);
        sharing.release();
        Ok(())
    }
}

/// What a node's rows are made of.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    gains: &'a [f32],
    tokens: usize,
}

impl LinearKernel {
    /// Norms or gates all rows and quantises them for blocks of `block`; gives what was quantised.
    fn prepare<'a>(
        &self,
        context: &ComputeContext,
        Input { x, gains, tokens }: Input<'a>,
        block: usize,
        prepared: &'a mut Vec<f32>,
        activations: &mut Activations,
    ) -> ort::Result<&'a [f32]> {
        let inputs = self.matrix.inputs;
        let Shared { level, threads, .. } = self.shared;
        let quantizer = activations.reshape(tokens, inputs, block);
        let panels = quantizer.panels();
        let each = |panel: &(dyn Fn(usize) + Send + Sync)| {
            if threads == 1 || panels == 1 {
                (0..panels).for_each(panel);
                return Ok(());
            }
            context.par_for(panels, panels, panel)
        };
        if matches!(self.before, Before::Nothing) {
            // SAFETY: a panel is one call's.
            each(&|panel| unsafe { quantizer.panel(level, x, panel) })?;
            return Ok(x);
        }
        prepared.resize(tokens * inputs, 0.0);
        let rows = Rows::new(prepared, inputs);
        each(&|panel| {
            let fill = |row: usize, out: &mut [f32]| match self.before {
                Before::Norm { epsilon } => rms_norm(level, &x[row * inputs..][..inputs], gains, epsilon, out),
                Before::Gate => {
                    let (gate, value) = x[row * 2 * inputs..][..2 * inputs].split_at(inputs);
                    silu_gate(level, gate, value, out);
                }
                Before::Nothing => {}
            };
            // SAFETY: a panel, and its rows of `prepared`, are one call's.
            unsafe { quantizer.panel_with(level, rows, panel, fill) };
        })?;
        Ok(prepared)
    }
}
