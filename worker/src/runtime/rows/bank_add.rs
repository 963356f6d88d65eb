//! `slm:BankAdd` on the host, for graphs of rows on ONNX Runtime's CPU provider: plain loops, for tests.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use half::f16;
use ort::{
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
        ShapeInferenceContext,
    },
    value::TensorElementType,
};
use slm_convert::graph::{Activations, BANK_ADD, OPERATOR_DOMAIN};

use crate::runtime::cpu::tensor::Tensor;

/// The operator domain of graphs of rows on the host.
pub(in crate::runtime) fn host_domain(activations: Activations) -> ort::Result<OperatorDomain> {
    match activations {
        Activations::F32 => OperatorDomain::new(OPERATOR_DOMAIN)?.add(HostBankAdd { half: false }),
        Activations::F16 => OperatorDomain::new(OPERATOR_DOMAIN)?.add(HostBankAdd { half: true }),
    }
}

/// Inputs of the operator: projection, its input, both matrices of the bank, and units.
pub(in crate::runtime) fn inputs(half: bool) -> [OperatorInput; 5] {
    let float = if half { TensorElementType::Float16 } else { TensorElementType::Float32 };
    [float, float, float, float, TensorElementType::Int32].map(OperatorInput::required)
}

/// Output of the operator: the projection with adapters.
pub(in crate::runtime) fn outputs(half: bool) -> [OperatorOutput; 1] {
    [OperatorOutput::required(if half { TensorElementType::Float16 } else { TensorElementType::Float32 })]
}

/// The output has the shape of the projection, so that the planner reuses its memory.
pub(in crate::runtime) fn infer_shape(context: &mut ShapeInferenceContext) -> ort::Result<()> {
    match context.inputs().first() {
        Some(y) => context.set_output(0, y),
        None => Ok(()),
    }
}

/// Where the outputs of each linear layer end.
pub(in crate::runtime) fn ends(context: &KernelContext<'_>) -> ort::Result<Vec<usize>> {
    let wrong = || ort::Error::new("the node has no attribute `outputs`; convert the model anew");
    let outputs: String = context.get("outputs").ok_or_else(wrong)?;
    let widths = outputs.split(',').map(str::parse::<usize>).collect::<Result<Vec<_>, _>>();
    let add = |end: &mut usize, width: usize| {
        *end += width;
        Some(*end)
    };
    Ok(widths.map_err(|_| wrong())?.into_iter().scan(0, add).collect())
}

struct HostBankAdd {
    half: bool,
}

impl Operator for HostBankAdd {
    type Kernel<'attr> = HostKernel;

    const INPLACES: &[(u32, u32)] = &[(0, 0)];

    fn name(&self) -> &str {
        BANK_ADD
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        inputs(self.half)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        outputs(self.half)
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        Ok(HostKernel { half: self.half, ends: ends(context)? })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        infer_shape(context)
    }
}

struct HostKernel {
    half: bool,
    ends: Vec<usize>,
}

impl Kernel for HostKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        if self.half { self.add::<f16>(context) } else { self.add::<f32>(context) }
    }
}

/// A float of the graph.
trait Float: Copy {
    fn wide(self) -> f32;
    fn narrow(value: f32) -> Self;
}

impl Float for f32 {
    fn wide(self) -> f32 {
        self
    }

    fn narrow(value: f32) -> Self {
        value
    }
}

impl Float for f16 {
    fn wide(self) -> f32 {
        self.to_f32()
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl HostKernel {
    fn add<T: Float>(&self, context: &ComputeContext) -> ort::Result<()> {
        let tensor = |index| Tensor::<T>::input(context, index);
        let (y, x, a, b) = (tensor(0)?, tensor(1)?, tensor(2)?, tensor(3)?);
        let units = Tensor::<i32>::input(context, 4)?;
        let mut out = Tensor::<T>::output_like(context, 0, &y, y.width())?;
        let (inputs, outputs) = (x.width(), y.width());
        // SAFETY: inputs of this call; the output is either another buffer or that of `y`, which is not read after the copy.
        let (x, a, b, units, from, to) =
            unsafe { (x.as_slice(), a.as_slice(), b.as_slice(), units.as_slice(), y.data, out.as_mut_slice()) };
        if from != to.as_mut_ptr() {
            // SAFETY: both have as many elements and do not overlap.
            unsafe { to.as_mut_ptr().copy_from_nonoverlapping(from, to.len()) };
        }
        let rows = units.as_chunks::<2>().0;
        let tokens = (x.len() / inputs.max(1)) / rows.len().max(1);
        let linears = self.ends.len();
        for (token, (x, y)) in x.chunks_exact(inputs).zip(to.chunks_exact_mut(outputs)).enumerate() {
            let [begin, end] = rows[token / tokens].map(|unit| usize::try_from(unit).unwrap_or(0));
            let (rank, first) = (end.saturating_sub(begin), begin * linears);
            let column = |index: usize| &a[(first + index) * inputs..][..inputs];
            let dot = |index| x.iter().zip(column(index)).map(|(x, a)| x.wide() * a.wide()).sum::<f32>();
            let hidden: Vec<f32> = (0..rank * linears).map(dot).collect();
            let mut before = 0;
            for (linear, &end) in self.ends.iter().enumerate() {
                for (output, y) in y.iter_mut().enumerate().take(end).skip(before) {
                    let of = |unit: usize| b[(first + linear * rank + unit) * outputs + output].wide();
                    let sum: f32 = (0..rank).map(|unit| hidden[linear * rank + unit] * of(unit)).sum();
                    *y = T::narrow(y.wide() + sum);
                }
                before = end;
            }
        }
        Ok(())
    }
}
