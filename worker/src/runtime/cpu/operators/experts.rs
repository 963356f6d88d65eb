//! `Experts(x, router, up, down, residual, gain, norm_bias) -> y`: a feed-forward block with experts.
//!
//! Two hand-overs to all threads: rows are normed and routed; then they are sorted by expert, and each expert's matrices
//! multiply those that are its own.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};
use slm_convert::graph::EXPERTS;
use slm_kernels::{
    Format, Rows,
    experts::{self, Stack},
    phases::{Phase, cut},
    rowwise::Activation,
};

use super::{ForwardPass, Shared, activation_by_name, missing, norm::Norm, rows_like};
use crate::runtime::cpu::{
    phases::{self, caught},
    tensor::{Constant, Tensor},
};

/// Tasks for each thread, so that others can take over from a delayed thread.
const TASKS: usize = 4;

pub(super) struct Experts {
    pub(super) shared: Shared,
}

impl Operator for Experts {
    type Kernel<'attr> = ExpertsKernel;

    fn name(&self) -> &str {
        EXPERTS
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Uint8};
        let required = [Float32, Float32, Uint8, Uint8].map(OperatorInput::required);
        required.into_iter().chain([Float32; 3].map(OperatorInput::optional))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let size = |name: &str| {
            let size: Option<i64> = context.get(name);
            size.and_then(|size| usize::try_from(size).ok()).ok_or_else(|| missing(name))
        };
        let text = |name: &str| context.get::<String>(name).ok_or_else(|| missing(name));
        let flag = |name: &str| context.get::<i64>(name).is_some_and(|flag| flag != 0);
        let (inputs, between, outputs, gated) = (size("inputs")?, size("size")?, size("outputs")?, flag("gated"));
        let up = if gated { 2 * between } else { between };
        Ok(ExpertsKernel {
            shared: self.shared.clone(),
            used: size("used")?,
            normalized: flag("normalized"),
            router: Constant::new(),
            up: Matrices::read(&text("up_format")?, [inputs, up])?,
            down: Matrices::read(&text("down_format")?, [between, outputs])?,
            activation: activation_by_name(&text("activation")?)?,
            gated,
            residual: flag("residual"),
            scale: context.get("scale").unwrap_or(1.0),
            norm: Norm::read(context, 5)?,
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let outputs: i64 = context.attr("outputs")?;
        match context.inputs().first().and_then(|x| rows_like(x, x.tensor_shape()?.len() - 1, outputs)) {
            Some(y) => context.set_output(0, &y),
            None => Ok(()),
        }
    }
}

/// Attributes and bytes of the matrices of all experts.
struct Matrices {
    /// `None` for floats.
    format: Option<Format>,
    shape: [usize; 2],
    bytes: Constant<u8>,
}

impl Matrices {
    fn read(format: &str, shape: [usize; 2]) -> ort::Result<Self> {
        let unknown = || ort::Error::new(format!("weights of the format `{format}` are not known; convert anew"));
        let format = if format == "f32" { None } else { Some(Format::by_name(format).ok_or_else(unknown)?) };
        Ok(Self { format, shape, bytes: Constant::new() })
    }

    /// The matrices, which are input `index`.
    ///
    /// # Safety
    /// The input is an initializer of the graph, and the result does not outlive the running call.
    unsafe fn input<'a>(&mut self, context: &ComputeContext, index: usize, count: usize) -> ort::Result<Stack<'a>> {
        // SAFETY: passed on.
        let bytes = unsafe { self.bytes.input(context, index)? };
        match self.format {
            Some(format) => Stack::packed(format, count, self.shape, bytes).map_err(ort::Error::wrap),
            None => {
                let floats = bytemuck::try_cast_slice(bytes);
                let floats = floats.map_err(|error| ort::Error::new(format!("weights of experts: {error}")))?;
                Stack::f32(count, self.shape, floats).map_err(ort::Error::wrap)
            }
        }
    }
}

pub(super) struct ExpertsKernel {
    shared: Shared,
    used: usize,
    normalized: bool,
    router: Constant<f32>,
    up: Matrices,
    down: Matrices,
    activation: Activation,
    gated: bool,
    /// Whether there is a residual.
    residual: bool,
    /// Factor of the result.
    scale: f32,
    norm: Option<Norm>,
}

impl Kernel for ExpertsKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        caught(|| self.compute_node(context))
    }
}

impl ExpertsKernel {
    fn compute_node(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let x = Tensor::<f32>::input(context, 0)?;
        let ([inputs, _], [_, outputs]) = (self.up.shape, self.down.shape);
        if x.width() != inputs {
            return Err(ort::Error::new(format!("rows of {} for experts that take {inputs}", x.width())));
        }
        let mut out = Tensor::<f32>::output_like(context, 0, &x, outputs)?;
        let residual = if self.residual { Some(Tensor::<f32>::input(context, 4)?) } else { None };
        if residual.as_ref().is_some_and(|residual| residual.len() != out.len()) {
            return Err(ort::Error::new(format!("a residual of another length than {} outputs", out.len())));
        }
        // SAFETY: initializers, used in this call only.
        let (block, norm) = unsafe { (self.block(context)?, self.norm(context)?) };
        // SAFETY: inputs of this call, which nobody writes to, and its output, which nobody else touches meanwhile.
        let (x, out) = unsafe { (x.as_slice(), out.as_mut_slice()) };
        // SAFETY: as above.
        let residual = residual.map(|residual| unsafe { residual.as_slice() });
        let tokens = x.len() / inputs;
        let (Shared { level, threads, .. }, scale) = (&self.shared, self.scale);
        let mut step = self.shared.step();
        let ForwardPass { experts: buffers, .. } = &mut *step;

        let tasks = tokens.min(threads * TASKS);
        let part = |task: usize, items: usize| cut(items, task, tasks)..cut(items, task + 1, tasks);
        let routing = buffers.route(block, tokens);
        let fill = |token: usize, row: &mut [f32]| {
            let x = &x[token * inputs..][..inputs];
            match &norm {
                Some(norm) => norm.row(*level, x, row),
                None => row.copy_from_slice(x),
            }
        };
        // SAFETY: ranges of tokens do not overlap.
        let route = |task: usize| unsafe { routing.tokens(*level, part(task, tokens), fill) };
        phases::run(context, *threads, &[Phase::new(tasks, &route)])?;

        let grouped = buffers.group(block, *threads);
        let (visits, products, out) = (grouped.visits(), grouped.products(), Rows::new(out, outputs));
        // SAFETY: ranges of visits do not overlap, nor do tasks; each phase begins when the one before is done.
        let gather = |task: usize| unsafe { grouped.gather(*level, part(task, visits)) };
        // SAFETY: as above.
        let up = |task: usize| unsafe { grouped.up(*level, task) };
        // SAFETY: as above.
        let activate = |task: usize| unsafe { grouped.activate(*level, part(task, visits)) };
        // SAFETY: as above.
        let down = |task: usize| unsafe { grouped.down(*level, task) };
        let add = |task: usize| {
            for token in part(task, tokens) {
                // SAFETY: ranges of tokens do not overlap.
                let out = unsafe { out.row_mut(token) };
                match residual {
                    Some(residual) => out.copy_from_slice(&residual[token * outputs..][..outputs]),
                    None => out.fill(0.0),
                }
                // SAFETY: all products are computed.
                unsafe { grouped.add(*level, token, scale, out) };
            }
        };
        let phases = [
            Phase::new(tasks, &gather),
            Phase::new(products, &up),
            Phase::new(tasks, &activate),
            Phase::new(products, &down),
            Phase::new(tasks, &add),
        ];
        phases::run(context, *threads, &phases)
    }

    /// # Safety
    /// The result does not outlive the running call.
    unsafe fn block<'a>(&mut self, context: &ComputeContext) -> ort::Result<experts::Experts<'a>> {
        let [inputs, _] = self.up.shape;
        // SAFETY: initializers of the graph; the rest is passed on.
        unsafe {
            let router = self.router.input(context, 1)?;
            let count = router.len() / inputs.max(1);
            Ok(experts::Experts {
                router,
                used: self.used,
                normalized: self.normalized,
                up: self.up.input(context, 2, count)?,
                down: self.down.input(context, 3, count)?,
                activation: self.activation,
                gated: self.gated,
            })
        }
    }

    /// # Safety
    /// The result does not outlive the running call.
    unsafe fn norm<'a>(&mut self, context: &ComputeContext) -> ort::Result<Option<super::norm::NormOf<'a>>> {
        let [inputs, _] = self.up.shape;
        match &mut self.norm {
            // SAFETY: initializers of the graph; the rest is passed on.
            Some(norm) => unsafe { norm.input(context, inputs).map(Some) },
            None => Ok(None),
        }
    }
}
