//! `Embedding(ids, weights) -> x`: rows of the packed matrix that a tied head shares.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::EMBEDDING;

use super::{MatrixShape, rows_like};
use crate::runtime::cpu::{
    phases::caught,
    tensor::{Constant, Tensor},
};

pub(super) struct Embedding;

impl Operator for Embedding {
    type Kernel<'attr> = EmbeddingKernel;

    fn name(&self) -> &str {
        EMBEDDING
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Int64, TensorElementType::Uint8].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        Ok(EmbeddingKernel { matrix: MatrixShape::read(context)?, weights: Constant::new() })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs: i64 = context.attr("inputs")?;
        match context.inputs().first().and_then(|ids| rows_like(ids, usize::MAX, inputs)) {
            Some(x) => context.set_output(0, &x),
            None => Ok(()),
        }
    }
}

pub(super) struct EmbeddingKernel {
    matrix: MatrixShape,
    weights: Constant<u8>,
}

impl Kernel for EmbeddingKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl EmbeddingKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let ids = Tensor::<i64>::input(context, 0)?;
        let MatrixShape { inputs, outputs, .. } = self.matrix;
        let mut out = Tensor::<f32>::output_behind(context, 0, &ids, inputs)?;
        // SAFETY: inputs of this call, which nobody writes to, the weights an initializer, and its output, which nobody
        // else touches.
        let (ids, weights, out) = unsafe { (ids.as_slice(), self.weights.input(context, 1)?, out.as_mut_slice()) };
        let weights = self.matrix.view(weights)?;
        for (&id, row) in ids.iter().zip(out.chunks_exact_mut(inputs)) {
            let column = usize::try_from(id).ok().filter(|&id| id < outputs);
            let column = column.ok_or_else(|| ort::Error::new(format!("token {id} of a vocabulary of {outputs}")))?;
            weights.column(column, row);
        }
        Ok(())
    }
}
