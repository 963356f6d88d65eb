//! `LoraAdd(y, x) -> y`: adds the adapters' outputs for `x` to the rows of a projection.
//!
//! The output aliases `y`; without adapters the node costs one lookup.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::{ops::Range, ptr};

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::LORA_ADD;
use slm_kernels::{Rows, lora, phases::Phase};

use super::{Shared, missing};
use crate::runtime::cpu::{
    phases::{self, caught},
    tensor::Tensor,
};

/// Columns that the widest kernel computes at once.
const COLUMN_GRAIN: usize = 32;

pub(super) struct LoraAdd {
    pub(super) shared: Shared,
}

impl Operator for LoraAdd {
    type Kernel<'attr> = LoraAddKernel;

    const INPLACES: &[(u32, u32)] = &[(0, 0)];

    fn name(&self) -> &str {
        LORA_ADD
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32; 2].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let group: i64 = context.get("group").ok_or_else(|| missing("group"))?;
        Ok(LoraAddKernel { shared: self.shared.clone(), group: group as usize })
    }

    /// A known shape lets the planner reuse the memory of `y`.
    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        match context.inputs().first() {
            Some(y) => context.set_output(0, y),
            None => Ok(()),
        }
    }
}

pub(super) struct LoraAddKernel {
    shared: Shared,
    group: usize,
}

impl Kernel for LoraAddKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl LoraAddKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let (y, x) = (Tensor::<f32>::input(context, 0)?, Tensor::<f32>::input(context, 1)?);
        let mut out = Tensor::<f32>::output_like(context, 0, &y, y.width())?;
        if out.data != y.data {
            // SAFETY: both tensors have `y.len()` floats and the runtime gave two buffers.
            unsafe { ptr::copy_nonoverlapping(y.data, out.data, y.len()) };
        }
        let Shared { level, threads, .. } = self.shared;
        let outputs = out.width();
        // SAFETY: an input of this call, which nobody writes to.
        let x = unsafe { x.as_slice() };
        // SAFETY: the output of this call, which nobody else touches meanwhile; `y` is not used any more.
        let y = Rows::new(unsafe { out.as_mut_slice() }, outputs);

        let mut step = self.shared.step();
        if y.len() != step.tokens {
            return Err(ort::Error::new(format!("{} rows for {} tokens", y.len(), step.tokens)));
        }
        let Some(shrink) = step.adapters.shrink(self.group, y.len()) else { return Ok(()) };
        // SAFETY: each task once, and nobody reads the hidden rows before all are done.
        let first = |task: usize| unsafe { shrink.run(level, task, lora::Inputs::F32(x)) };
        let second = |part: usize| {
            for rows in &shrink.adapter_rows {
                let columns = part_of(outputs, part, threads);
                // SAFETY: parts of columns do not overlap, no row has two adapters, and the first products are done.
                unsafe { lora::add_columns(level, rows, columns, shrink.hidden, y) };
            }
        };
        let phases = [Phase::new(shrink.tasks(), &first), Phase::new(threads, &second)];
        phases::run(context, threads, &phases)
    }
}

/// Range `part` of `parts` of the columns.
fn part_of(columns: usize, part: usize, parts: usize) -> Range<usize> {
    let cut = |part: usize| (columns.div_ceil(COLUMN_GRAIN) * part / parts * COLUMN_GRAIN).min(columns);
    cut(part)..cut(part + 1)
}

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn parts_cover_every_column_once() {
        for (columns, parts) in [(0, 2), (3, 2), (960, 2), (961, 7)] {
            let mut next = 0;
            for part in 0..parts {
                let range = part_of(columns, part, parts);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, columns);
        }
    }
}
