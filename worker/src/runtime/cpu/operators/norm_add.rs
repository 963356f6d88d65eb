//! `NormAdd(x, residual, gain, norm_bias) -> y`: the residual plus `scale` times the norm of `x`, for norms after a block.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::NORM_ADD;
use slm_kernels::{
    Rows,
    phases::{Phase, cut},
};

use super::{ForwardPass, Shared, missing, norm::Norm};
use crate::runtime::cpu::{
    phases::{self, caught},
    tensor::Tensor,
};

/// Rows that one thread norms faster than a hand-over takes.
const ROWS_ALONE: usize = 8;

pub(super) struct NormAdd {
    pub(super) shared: Shared,
}

impl Operator for NormAdd {
    type Kernel<'attr> = NormAddKernel;

    fn name(&self) -> &str {
        NORM_ADD
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let required = [TensorElementType::Float32; 3].map(OperatorInput::required);
        required.into_iter().chain([OperatorInput::optional(TensorElementType::Float32)])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let norm = Norm::read(context, 2)?.ok_or_else(|| missing("norm"))?;
        let scale = context.get("scale").ok_or_else(|| missing("scale"))?;
        Ok(NormAddKernel { shared: self.shared.clone(), norm, scale })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        match context.inputs().get(1) {
            Some(residual) => context.set_output(0, residual),
            None => Ok(()),
        }
    }
}

pub(super) struct NormAddKernel {
    shared: Shared,
    norm: Norm,
    scale: f32,
}

impl Kernel for NormAddKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl NormAddKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (x, residual) = (Tensor::<f32>::input(context, 0)?, Tensor::<f32>::input(context, 1)?);
        let width = x.width();
        if x.shape() != residual.shape() {
            return Err(ort::Error::new(format!("a residual of {:?} for {:?}", residual.shape(), x.shape())));
        }
        let mut out = Tensor::<f32>::output_like(context, 0, &x, width)?;
        // SAFETY: the tensors of the norm are initializers, and used in this call only.
        let norm = unsafe { self.norm.input(context, width)? };
        // SAFETY: inputs of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, residual, out) = unsafe { (x.as_slice(), residual.as_slice(), out.as_mut_slice()) };
        let rows = x.len().checked_div(width).unwrap_or(0);
        let (Shared { level, threads, .. }, scale) = (&self.shared, self.scale);
        let tasks = if rows <= ROWS_ALONE { 1 } else { *threads };
        let mut step = self.shared.step();
        let ForwardPass { scratch, .. } = &mut *step;
        scratch.resize(tasks * width, 0.0);
        let (scratch, out) = (Rows::new(scratch, width), Rows::new(out, width));
        let add = |task: usize| {
            // SAFETY: each task has a row of the scratch.
            let normed = unsafe { scratch.row_mut(task) };
            for row in cut(rows, task, tasks)..cut(rows, task + 1, tasks) {
                norm.row(*level, &x[row * width..][..width], normed);
                // SAFETY: ranges of rows do not overlap.
                let out = unsafe { out.row_mut(row) };
                for ((out, residual), normed) in out.iter_mut().zip(&residual[row * width..]).zip(normed.iter()) {
                    *out = scale.mul_add(*normed, *residual);
                }
            }
        };
        phases::run(context, *threads, &[Phase::new(tasks, &add)])
    }
}
