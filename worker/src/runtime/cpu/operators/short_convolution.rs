//! `ShortConvolution(x, weights, bias) -> y`: a gated short convolution over each sequence's tokens and its state.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::SHORT_CONVOLUTION;
use slm_kernels::{Rows, phases::Phase, states};

use super::{Shared, missing, rows_like, states::Parts};
use crate::runtime::cpu::{
    phases::{self, caught},
    tensor::{Constant, Tensor},
};

pub(super) struct ShortConvolution {
    pub(super) shared: Shared,
}

impl Operator for ShortConvolution {
    type Kernel<'attr> = ShortConvolutionKernel;

    fn name(&self) -> &str {
        SHORT_CONVOLUTION
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::Float32;
        let required = [Float32; 2].map(OperatorInput::required);
        required.into_iter().chain([OperatorInput::optional(Float32)])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let number = super::states::numbers(context);
        let kernel = ShortConvolutionKernel {
            layer: number("layer")?,
            width: number("width")?,
            kernel: number("kernel")?,
            weights: Constant::new(),
            bias: match number("bias")? {
                0 => None,
                _ => Some(Constant::new()),
            },
            shared: self.shared.clone(),
        };
        let floats = kernel.kernel.saturating_sub(1) * kernel.width;
        super::states::check(&self.shared, kernel.layer, floats)?;
        Ok(kernel)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let width: i64 = context.attr("width")?;
        match context.inputs().first().and_then(|x| rows_like(x, 1, width)) {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

pub(super) struct ShortConvolutionKernel {
    shared: Shared,
    layer: usize,
    width: usize,
    kernel: usize,
    weights: Constant<f32>,
    bias: Option<Constant<f32>>,
}

impl Kernel for ShortConvolutionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl ShortConvolutionKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = Tensor::<f32>::input(context, 0)?;
        let (width, kernel) = (self.width, self.kernel);
        let mut step = self.shared.step();
        let tokens = step.tokens;
        if x.shape() != [tokens as i64, 3 * width as i64] {
            return Err(ort::Error::new(format!("{:?} for {tokens} tokens of 3 x {width}", x.shape())));
        }
        let mut out = Tensor::<f32>::output_like(context, 0, &x, width)?;
        // SAFETY: initializers, used in this call only.
        let weights = unsafe { self.weights.input(context, 1)? };
        let bias = match &mut self.bias {
            // SAFETY: as above.
            Some(bias) => unsafe { bias.input(context, 2)? },
            None => &[],
        };
        // SAFETY: an input of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, out) = unsafe { (x.as_slice(), out.as_mut_slice()) };
        let Shared { level, threads, .. } = self.shared;
        let (spans, states) = step.states.layer(self.layer).ok_or_else(|| missing("layer"))?;
        let of = states::ShortConvolution { weights, bias, width, kernel };
        let out = Rows::new(out, width);
        let parts = Parts::new(spans, (tokens, width), threads);
        let convolve = |task: usize| {
            parts.of(task, |span, columns| {
                // SAFETY: parts do not overlap.
                unsafe { of.columns(level, span, columns, x, (states, out)) };
            });
        };
        phases::run(context, threads, &[Phase::new(parts.tasks(), &convolve)])
    }
}
