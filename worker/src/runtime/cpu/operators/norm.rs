//! Norm of rows, as an attribute of a node: its kind, its epsilon and its tensors.
#![allow(unsafe_code)] // Tensors are initializers, read by address; every block says what bounds it.

use ort::operator::{ComputeContext, KernelContext};
use slm_kernels::{
    Level,
    rowwise::{layer_norm, rms_norm},
};

use super::missing;
use crate::runtime::cpu::tensor::Constant;

/// Norm of a node.
pub(super) struct Norm {
    kind: Kind,
    epsilon: f32,
    gain: Constant<f32>,
    /// Index of the gain's input.
    at: usize,
}

enum Kind {
    Rms,
    /// With its bias, whose input follows the gain's.
    Layer(Option<Constant<f32>>),
}

/// Norm with its tensors.
#[derive(Clone, Copy)]
pub(super) struct NormOf<'a> {
    layer: bool,
    epsilon: f32,
    gain: &'a [f32],
    bias: &'a [f32],
}

impl Norm {
    /// The norm that the attributes describe, if they do. Its gain is input `at`.
    pub(super) fn read(context: &KernelContext<'_>, at: usize) -> ort::Result<Option<Self>> {
        let Some(kind) = context.get::<String>("norm") else { return Ok(None) };
        let biased: Option<i64> = context.get("norm_bias");
        let kind = match kind.as_str() {
            "rms" => Kind::Rms,
            "layer" => Kind::Layer(biased.filter(|biased| *biased != 0).map(|_| Constant::new())),
            other => return Err(ort::Error::new(format!("the norm `{other}` is not known; convert the model anew"))),
        };
        let epsilon = context.get("epsilon").ok_or_else(|| missing("epsilon"))?;
        Ok(Some(Self { kind, epsilon, gain: Constant::new(), at }))
    }

    /// With its tensors, of `width` floats.
    ///
    /// # Safety
    /// The tensors are initializers of the graph, and the result does not outlive the running call.
    pub(super) unsafe fn input<'a>(&mut self, context: &ComputeContext, width: usize) -> ort::Result<NormOf<'a>> {
        let Self { kind, epsilon, gain, at } = self;
        // SAFETY: passed on.
        let gain = unsafe { gain.input(context, *at)? };
        let (layer, bias) = match kind {
            Kind::Rms => (false, &[][..]),
            Kind::Layer(None) => (true, &[][..]),
            // SAFETY: passed on.
            Kind::Layer(Some(bias)) => (true, unsafe { bias.input(context, *at + 1)? }),
        };
        if gain.len() != width || !(bias.is_empty() || bias.len() == width) {
            return Err(ort::Error::new(format!("{} gains for rows of {width}", gain.len())));
        }
        Ok(NormOf { layer, epsilon: *epsilon, gain, bias })
    }
}

impl NormOf<'_> {
    /// `out = norm(x)`.
    pub(super) fn row(&self, level: Level, x: &[f32], out: &mut [f32]) {
        if self.layer {
            layer_norm(level, x, self.gain, self.bias, self.epsilon, out);
        } else {
            rms_norm(level, x, self.gain, self.epsilon, out);
        }
    }
}
