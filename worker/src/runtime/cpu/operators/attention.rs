//! `Attention(qkv, q_gain, k_gain, bias) -> y`: paged attention of each new token over its sequence, itself included.
//!
//! Phases over all threads: append the new tokens' keys and values, then compute the plan's items, then apply gates.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::num::NonZeroUsize;

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::{graph::ATTENTION, rope::RotaryTables};
use slm_kernels::{
    Rows,
    attention::{self, QkNorm, RelativeBias, Rotary, Stored},
    phases::{Phase, cut},
};

use super::{Shared, missing, rows_like};
use crate::runtime::cpu::{
    forward_pass::Attended,
    phases::{self, caught},
    tensor::{Constant, Tensor},
};

/// Tokens that one thread appends faster than a hand-over takes.
const APPEND_ALONE: usize = 4;

pub(super) struct Attention {
    pub(super) shared: Shared,
}

impl Operator for Attention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &str {
        ATTENTION
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let required = [OperatorInput::required(TensorElementType::Float32)];
        required.into_iter().chain([TensorElementType::Float32; 3].map(OperatorInput::optional))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let number = |name: &str| -> ort::Result<usize> {
            let number: Option<i64> = context.get(name);
            number.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| missing(name))
        };
        let window: Option<i64> = context.get("window");
        let rope: Option<i64> = context.get("rope");
        let flag = |name: &str| context.get::<i64>(name).is_some_and(|flag| flag != 0);
        let norm = match flag("qk_norm") {
            true => Some(Norm {
                q: Constant::new(),
                k: Constant::new(),
                epsilon: context.get("epsilon").ok_or_else(|| missing("epsilon"))?,
                whole_token: flag("norm_span_token"),
                after_rotary: flag("norm_after_rotary"),
            }),
            false => None,
        };
        let heads = [number("heads")?, number("kv_heads")?, number("head_dim")?];
        let not_of_this_model = || ort::Error::new(format!("heads {heads:?} are not this model's; convert it anew"));
        let kernel = AttentionKernel {
            layer: number("layer")?,
            plan: self.shared.step().plan(heads).ok_or_else(not_of_this_model)?,
            stored: match flag("shared") {
                true => Stored::Nothing,
                false => {
                    Stored::Own { keys_as_values: flag("keys_as_values"), value_norm: context.get("value_epsilon") }
                }
            },
            scale: context.get("scale").ok_or_else(|| missing("scale"))?,
            window: window.and_then(|window| NonZeroUsize::new(usize::try_from(window).ok()?)),
            soft_cap: context.get("softcap"),
            gated: flag("gated"),
            // Behind the gains of norms, if there are any.
            bias: context.get::<i64>("bias_positions").and_then(|positions| {
                let positions = usize::try_from(positions).ok()?;
                Some(Bias { table: Constant::new(), positions, input: if flag("qk_norm") { 3 } else { 1 } })
            }),
            rope: rope.and_then(|rope| usize::try_from(rope).ok()),
            norm,
            shared: self.shared.clone(),
        };
        let mut step = self.shared.step();
        let attended = step.attention(kernel.plan, kernel.layer);
        if !attended.is_some_and(|Attended { plan, pages, .. }| pages.shape() == plan.shape()) {
            return Err(not_of_this_model());
        }
        if kernel.rope.is_some_and(|rope| step.ropes.get(rope).is_none()) {
            return Err(ort::Error::new(format!(
                "layer {} has a rotary embedding that the model has not; convert anew",
                kernel.layer
            )));
        }
        drop(step);
        Ok(kernel)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let (heads, head_dim): (i64, i64) = (context.attr("heads")?, context.attr("head_dim")?);
        match context.inputs().first().and_then(|qkv| rows_like(qkv, 1, heads * head_dim)) {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

pub(super) struct AttentionKernel {
    shared: Shared,
    /// Layer whose pages are used.
    layer: usize,
    /// Index of the plan for the layer's heads.
    plan: usize,
    stored: Stored,
    scale: f32,
    window: Option<NonZeroUsize>,
    soft_cap: Option<f32>,
    /// Whether each query head has a gate.
    gated: bool,
    /// Index of the rotary embedding.
    rope: Option<usize>,
    norm: Option<Norm>,
    bias: Option<Bias>,
}

/// Bias of scores by distance.
struct Bias {
    table: Constant<f32>,
    positions: usize,
    /// Its input.
    input: usize,
}

/// Norms of queries and keys.
struct Norm {
    q: Constant<f32>,
    k: Constant<f32>,
    epsilon: f32,
    whole_token: bool,
    after_rotary: bool,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl AttentionKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let qkv = Tensor::<f32>::input(context, 0)?;
        let norm = match &mut self.norm {
            Some(Norm { q, k, epsilon, whole_token, after_rotary }) => {
                // SAFETY: the gains are initializers, and used in this call only.
                let q = unsafe { q.input(context, 1)? };
                let k = match self.stored {
                    Stored::Nothing => &[][..],
                    // SAFETY: as above.
                    Stored::Own { .. } => unsafe { k.input(context, 2)? },
                };
                let (epsilon, whole_token, after_rotary) = (*epsilon, *whole_token, *after_rotary);
                Some(QkNorm { q, k, epsilon, whole_token, after_rotary })
            }
            None => None,
        };
        let bias = match &mut self.bias {
            Some(Bias { table, positions, input }) => {
                // SAFETY: an initializer, used in this call only.
                let table = unsafe { table.input(context, *input)? };
                Some(RelativeBias { table, positions: *positions })
            }
            None => None,
        };
        let Shared { level, threads, .. } = self.shared;
        let mut step = self.shared.step();
        let Attended { plan, pages, queries, ropes } =
            step.attention(self.plan, self.layer).ok_or_else(|| missing("layer"))?;
        let rotary = match self.rope.and_then(|rope| ropes.get(rope)) {
            Some(RotaryTables { cos, sin, dim, interleaved }) => {
                Rotary { cos, sin, dim: *dim, interleaved: *interleaved }
            }
            None => Rotary { cos: &[], sin: &[], dim: 0, interleaved: false },
        };
        let (shape, tokens) = (*plan.shape(), plan.tokens());
        queries.resize(tokens * shape.queries_width(), 0.0);
        let queries = Rows::new(queries, shape.queries_width());
        let Self { scale, window, soft_cap, stored, gated, .. } = *self;
        let attention =
            attention::Attention { plan, pages, queries, scale, window, soft_cap, norm, stored, gated, bias };
        if qkv.shape() != [tokens as i64, attention.input_width() as i64] {
            return Err(ort::Error::new(format!("{:?} for {tokens} tokens of {shape:?}", qkv.shape())));
        }
        let mut out = Tensor::<f32>::output_like(context, 0, &qkv, shape.queries_width())?;
        // SAFETY: an input of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (qkv, out) = unsafe { (qkv.as_slice(), out.as_mut_slice()) };
        let out = Rows::new(out, shape.queries_width());
        let parts = if tokens <= APPEND_ALONE { 1 } else { threads };
        // SAFETY: parts of the tokens do not overlap, and nothing attends yet.
        let append = |part: usize| unsafe {
            attention.append(level, cut(tokens, part, parts)..cut(tokens, part + 1, parts), qkv, &rotary);
        };
        // SAFETY: all tokens are appended; items are computed once each, and nobody else has the rows of `out`.
        let attend = |item: usize| unsafe { attention.attend(level, item, out) };
        // SAFETY: parts of the tokens do not overlap, and everything is attended to.
        let gate = |part: usize| unsafe {
            attention.gate(level, cut(tokens, part, parts)..cut(tokens, part + 1, parts), qkv, out);
        };
        let phases = [Phase::new(parts, &append), Phase::new(plan.items(), &attend), Phase::new(parts, &gate)];
        phases::run(context, threads, &phases[..if gated { 3 } else { 2 }])
    }
}
