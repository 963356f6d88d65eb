//! `DeltaRule(x, weights, rates, steps, gain) -> y`: the gated delta rule over each sequence's tokens and its state.
//!
//! Two phases over all threads: queries, keys and values are convolved; then each head of each sequence goes through its tokens.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::DELTA_RULE;
use slm_kernels::{Rows, phases::Phase, states};

use super::{ForwardPass, Shared, missing, rows_like, states::Parts};
use crate::runtime::cpu::{
    phases::{self, caught},
    tensor::{Constant, Tensor},
};

pub(super) struct DeltaRule {
    pub(super) shared: Shared,
}

impl Operator for DeltaRule {
    type Kernel<'attr> = DeltaRuleKernel;

    fn name(&self) -> &str {
        DELTA_RULE
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32; 5].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let number = super::states::numbers(context);
        let kernel = DeltaRuleKernel {
            layer: number("layer")?,
            heads: [number("key_heads")?, number("value_heads")?],
            dims: [number("key_dim")?, number("value_dim")?],
            kernel: number("kernel")?,
            epsilon: context.get("epsilon").ok_or_else(|| missing("epsilon"))?,
            tensors: [Constant::new(), Constant::new(), Constant::new(), Constant::new()],
            shared: self.shared.clone(),
        };
        super::states::check(&self.shared, kernel.layer, kernel.of([&[]; 4]).state_floats())?;
        Ok(kernel)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let (heads, dim): (i64, i64) = (context.attr("value_heads")?, context.attr("value_dim")?);
        match context.inputs().first().and_then(|x| rows_like(x, 1, heads * dim)) {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

pub(super) struct DeltaRuleKernel {
    shared: Shared,
    layer: usize,
    /// Of keys and of values.
    heads: [usize; 2],
    /// Their widths.
    dims: [usize; 2],
    kernel: usize,
    epsilon: f32,
    /// Weights, rates, steps and gains.
    tensors: [Constant<f32>; 4],
}

impl Kernel for DeltaRuleKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl DeltaRuleKernel {
    fn of<'a>(&self, [weights, rates, steps, gain]: [&'a [f32]; 4]) -> states::DeltaRule<'a> {
        let Self { heads: [key_heads, value_heads], dims: [key_dim, value_dim], kernel, epsilon, .. } = *self;
        states::DeltaRule { weights, rates, steps, gain, epsilon, key_heads, value_heads, key_dim, value_dim, kernel }
    }

    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = Tensor::<f32>::input(context, 0)?;
        let mut tensors: [&[f32]; 4] = [&[]; 4];
        for (index, (tensor, constant)) in tensors.iter_mut().zip(&mut self.tensors).enumerate() {
            // SAFETY: initializers, used in this call only.
            *tensor = unsafe { constant.input(context, 1 + index)? };
        }
        let of = self.of(tensors);
        let mut step = self.shared.step();
        let ForwardPass { states, scratch, tokens, .. } = &mut *step;
        let tokens = *tokens;
        if x.shape() != [tokens as i64, of.input_width() as i64] {
            return Err(ort::Error::new(format!("{:?} for {tokens} tokens of {}", x.shape(), of.input_width())));
        }
        let mut out = Tensor::<f32>::output_like(context, 0, &x, of.value_width())?;
        // SAFETY: an input of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, out) = unsafe { (x.as_slice(), out.as_mut_slice()) };
        let Shared { level, threads, .. } = self.shared;
        let (spans, states) = states.layer(self.layer).ok_or_else(|| missing("layer"))?;
        scratch.resize(tokens * of.channels(), 0.0);
        let (mixed, out) = (Rows::new(scratch, of.channels()), Rows::new(out, of.value_width()));
        let parts = Parts::new(spans, (tokens, of.channels()), threads);
        let convolve = |task: usize| {
            parts.of(task, |span, columns| {
                // SAFETY: parts do not overlap.
                unsafe { of.convolve(level, span, columns, x, (states, mixed)) };
            });
        };
        let heads = of.value_heads;
        let head = |task: usize| {
            // SAFETY: everything is convolved, and a task is one head of one sequence.
            unsafe { of.head(level, (spans[task / heads], task % heads), x, mixed, (states, out)) };
        };
        let phases = [Phase::new(parts.tasks(), &convolve), Phase::new(spans.len() * heads, &head)];
        phases::run(context, threads, &phases)
    }
}
