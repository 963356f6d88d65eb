//! `slm:BankAdd` on a GPU: two kernels on the stream of the run, which a CUDA graph captures as any other.
#![allow(unsafe_code)] // Calls of the driver and raw tensors; the blocks say why they are sound.

use std::{
    ffi::c_void,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cudarc::driver::{CudaContext, result, sys};
use ort::{
    AsPointer,
    operator::{
        ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
        ShapeInferenceContext,
    },
};
use slm_convert::graph::{BANK_ADD, OPERATOR_DOMAIN};

use super::{Cuda, message};
use crate::runtime::{
    backend::SessionError,
    cpu::tensor::Tensor,
    device::{Device, DeviceError, Memory},
    provider::CUDA_NAME,
    rows::bank_add,
};

/// Columns of a block of the first kernel, and threads of a block of the second.
const COLUMNS: u32 = 8;
const THREADS: u32 = 256;

/// What all nodes of a session share.
pub(super) struct Shared {
    context: Arc<CudaContext>,
    shrink: sys::CUfunction,
    expand: sys::CUfunction,
    /// Results of the first kernel: a node uses them before the next overwrites them.
    hidden: Memory,
    hidden_width: usize,
    rank_max: usize,
    /// Whether any row of the run has an adapter.
    adapters: Arc<AtomicBool>,
}

// SAFETY: functions of a module that is never unloaded; any thread may launch them in their context.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// The operator domain of graphs of rows on `gpu`, for runs of at most `tokens` tokens and adapters of at most `rank_max`. Before each
/// run, `adapters` says whether any row has one; else nodes launch nothing.
pub(in crate::runtime) fn domain(
    gpu: &Arc<Cuda>,
    tokens: usize,
    rank_max: usize,
    adapters: Arc<AtomicBool>,
) -> Result<OperatorDomain, SessionError> {
    /// Linear layers that a projection has at most.
    const LINEARS: usize = 3;
    let function = |name: &str| {
        let name = std::ffi::CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded, and never unloaded.
        unsafe { result::module::get_function(gpu.bank_add.0, name) }.map_err(|error| DeviceError::Failed {
            device: gpu.name.clone(),
            call: "cuModuleGetFunction",
            error: message(error),
        })
    };
    let device: Arc<dyn Device> = gpu.clone();
    let hidden_width = LINEARS * rank_max;
    let hidden = Memory::zeroed(&device, tokens * hidden_width * size_of::<f32>(), "products of adapters")?;
    let (context, shrink, expand) = (gpu.context.clone(), function("bank_shrink")?, function("bank_expand")?);
    let shared = Arc::new(Shared { context, shrink, expand, hidden, hidden_width, rank_max, adapters });
    Ok(OperatorDomain::new(OPERATOR_DOMAIN)?.add(CudaBankAdd { shared })?)
}

struct CudaBankAdd {
    shared: Arc<Shared>,
}

impl Operator for CudaBankAdd {
    type Kernel<'attr> = CudaKernel;

    const INPLACES: &[(u32, u32)] = &[(0, 0)];

    fn name(&self) -> &str {
        BANK_ADD
    }

    fn execution_provider_type(&self) -> Option<&str> {
        Some(CUDA_NAME)
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        bank_add::inputs(true)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        bank_add::outputs(true)
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        let ends = bank_add::ends(context)?;
        let end = |index: usize| ends.get(index).copied().unwrap_or(usize::MAX).min(u32::MAX as usize) as u32;
        // An end that no output reaches, where there are fewer linear layers.
        let cut = |index: usize| if index + 1 < ends.len() { end(index) } else { u32::MAX };
        Ok(CudaKernel { shared: self.shared.clone(), linears: ends.len() as u32, cuts: [cut(0), cut(1)] })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        bank_add::infer_shape(context)
    }
}

struct CudaKernel {
    shared: Arc<Shared>,
    linears: u32,
    /// Where the outputs of the first linear layer end, and of the second.
    cuts: [u32; 2],
}

impl Kernel for CudaKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let tensor = |index| Tensor::<u16>::input(context, index);
        let (y, x, a, b) = (tensor(0)?, tensor(1)?, tensor(2)?, tensor(3)?);
        let units = Tensor::<i32>::input(context, 4)?;
        let out = Tensor::<u16>::output_like(context, 0, &y, y.width())?;
        let mut stream = ptr::null_mut::<c_void>();
        // SAFETY: the context is that of the running call; the out pointer is valid.
        unsafe {
            let status = (ort::api().KernelContext_GetGPUComputeStream)(context.ptr(), &mut stream);
            ort::Error::result_from_status(status)?;
        }
        let stream: sys::CUstream = stream.cast();
        let failed = |error| ort::Error::new(format!("BankAdd: {}", message(error)));
        self.shared.context.bind_to_thread().map_err(failed)?;
        let (inputs, outputs) = (x.width(), y.width());
        let tokens = y.len() / outputs.max(1);
        let per_row = tokens / units.shape().first().map_or(1, |&rows| rows.max(1) as usize);
        if tokens * self.shared.hidden_width * size_of::<f32>() > self.shared.hidden.len() {
            return Err(ort::Error::new(format!("BankAdd: {tokens} tokens are more than a run has")));
        }
        let mut to = out.data.addr() as u64;
        if out.data != y.data {
            // SAFETY: two buffers of the running call with as many elements.
            unsafe { result::memcpy_dtod_async(to, y.data.addr() as u64, y.len() * size_of::<u16>(), stream) }
                .map_err(failed)?;
        }
        if !self.shared.adapters.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut hidden = self.shared.hidden.address(0, 0) as u64;
        let [mut x, mut a, mut b] = [x.data, a.data, b.data].map(|data| data.addr() as u64);
        let mut units = units.data.addr() as u64;
        let [mut per_row, mut inputs, mut outputs] = [per_row, inputs, outputs].map(|size| size as u32);
        let (mut linears, [mut first, mut second]) = (self.linears, self.cuts);
        let mut width = self.shared.hidden_width as u32;
        let columns = (self.shared.rank_max as u32 * linears).div_ceil(COLUMNS);
        let parts = outputs.div_ceil(THREADS);
        let mut shrink = [
            at(&mut x),
            at(&mut a),
            at(&mut units),
            at(&mut hidden),
            at(&mut per_row),
            at(&mut inputs),
            at(&mut linears),
            at(&mut width),
        ];
        // SAFETY: the kernel's parameters in its order, over tensors of the running call and memory that the session owns.
        unsafe {
            let grid = (tokens as u32, columns, 1);
            result::launch_kernel(self.shared.shrink, grid, (32 * COLUMNS, 1, 1), 0, stream, &mut shrink)
                .map_err(failed)?;
        }
        let mut expand = [
            at(&mut to),
            at(&mut hidden),
            at(&mut b),
            at(&mut units),
            at(&mut per_row),
            at(&mut outputs),
            at(&mut linears),
            at(&mut width),
            at(&mut first),
            at(&mut second),
        ];
        // SAFETY: as above; the stream runs it after the first.
        unsafe {
            let grid = (tokens as u32, parts, 1);
            result::launch_kernel(self.shared.expand, grid, (THREADS, 1, 1), 0, stream, &mut expand).map_err(failed)
        }
    }
}

/// Where a parameter of a kernel is; the launch copies it.
fn at<T>(parameter: &mut T) -> *mut c_void {
    ptr::from_mut(parameter).cast()
}
