//! Memory of an NVIDIA GPU, by its driver.
#![allow(unsafe_code)] // Calls of the driver; the blocks say why they are sound.

mod bank_add;
mod compile;

pub(super) use bank_add::domain;
pub(super) use compile::available as check_compiler;

use std::{
    ffi::c_void,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::{
    driver::{CudaContext, CudaFunction, DriverError, LaunchConfig, PushKernelArg as _, result, sys},
    nvrtc::Ptx,
};

use super::{
    binding::MemoryInfo,
    device::{Device, DeviceError, Memory},
    provider::ProviderError,
    top::{TOP, TopRows},
};

/// Oldest driver that CUDA 13 runs on, as `cuDriverGetVersion` counts: 1000 times the major version.
const CUDA_VERSION_MIN: i32 = 13_000;

/// Threads of a row in the kernel that selects the largest logits.
const TOP_THREADS: u32 = 1024;

/// A GPU. Its context is the primary one, which ONNX Runtime uses, too.
#[derive(Debug)]
pub(super) struct Cuda {
    context: Arc<CudaContext>,
    index: usize,
    name: String,
    top: CudaFunction,
    bank_add: Module,
}

/// A module that is loaded as long as the process runs.
#[derive(Debug)]
struct Module(sys::CUmodule);

// SAFETY: a handle; any thread may use it in its context.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// Number of GPUs that this process sees.
fn count() -> Result<usize, ProviderError> {
    // SAFETY: loading the driver's library runs its initialisers, which any CUDA program runs.
    if !unsafe { sys::is_culib_present() } {
        return Err(ProviderError::NoDriver);
    }
    result::init().map_err(|error| match error.0 {
        sys::cudaError_enum::CUDA_ERROR_NO_DEVICE => ProviderError::NoDevice { index: 0, devices: 0 },
        _ => failed("cuInit")(error),
    })?;
    let mut version = 0;
    // SAFETY: the out pointer is valid.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
    if version < CUDA_VERSION_MIN {
        return Err(ProviderError::OldDriver { found: format!("{}.{}", version / 1000, version % 1000 / 10) });
    }
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The primary context of GPU `index` of those that this process sees.
fn context(index: usize) -> Result<Arc<CudaContext>, ProviderError> {
    let devices = count()?;
    if index >= devices {
        return Err(ProviderError::NoDevice { index, devices });
    }
    CudaContext::new(index).map_err(failed("cuDevicePrimaryCtxRetain"))
}

fn failed(call: &'static str) -> impl FnOnce(DriverError) -> ProviderError {
    move |error| ProviderError::Driver { call, error: message(error) }
}

/// Name and bytes of memory of each GPU that this process sees; an error instead of none.
pub(super) fn devices() -> Result<Vec<(String, u64)>, ProviderError> {
    let _alone = alone();
    let devices = count()?;
    if devices == 0 {
        return Err(ProviderError::NoDevice { index: 0, devices });
    }
    let of = |index| {
        let device = result::device::get(index).map_err(failed("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(failed("cuDeviceGetName"))?;
        // SAFETY: a device of the driver.
        let bytes = unsafe { result::device::total_mem(device) }.map_err(failed("cuDeviceTotalMem"))?;
        Ok((name, bytes as u64))
    };
    (0..devices as i32).map(of).collect()
}

/// Free bytes of GPU `index`.
pub(super) fn free_bytes(index: usize) -> Result<u64, ProviderError> {
    let _alone = alone();
    let _context = context(index)?;
    let (free, _) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
    Ok(free as u64)
}

impl Cuda {
    /// GPU `index` of those that this process sees, with its kernels.
    pub(super) fn open(index: usize) -> Result<Self, ProviderError> {
        let _alone = alone();
        let context = context(index)?;
        let name = context.name().map_err(failed("cuDeviceGetName"))?;
        let capability = context.compute_capability().map_err(failed("cuDeviceGetAttribute"))?;
        let top = Ptx::from_binary(compile::compiled(compile::TOP, capability)?);
        let module = context.load_module(top).map_err(failed("cuModuleLoadData"))?;
        let top = module.load_function("top").map_err(failed("cuModuleGetFunction"))?;
        let code = compile::compiled(compile::BANK_ADD, capability)?;
        // SAFETY: machine code for this GPU, whose context is that of this thread.
        let bank_add = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let bank_add = Module(bank_add.map_err(failed("cuModuleLoadData"))?);
        Ok(Self { context, index, name, top, bank_add })
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(DriverError) -> DeviceError {
        let device = self.name.clone();
        move |error| DeviceError::Failed { device, call, error: message(error) }
    }

    /// Calls of the driver need the context on their thread, and wait for the capture of a graph.
    fn enter(&self) -> Result<MutexGuard<'static, ()>, DeviceError> {
        let alone = alone();
        self.context.bind_to_thread().map_err(self.failed("cuCtxSetCurrent"))?;
        Ok(alone)
    }
}

impl Device for Cuda {
    fn allocate(&self, bytes: usize, what: &'static str) -> Result<usize, DeviceError> {
        let _alone = self.enter()?;
        // SAFETY: the size is not zero; the memory is written below before anybody reads it.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|_| {
            let (free, total) = result::mem_get_info().unwrap_or((0, 0));
            DeviceError::Memory { device: self.name.clone(), what, bytes, free, total }
        })?;
        // SAFETY: allocated just now with that size.
        unsafe { result::memset_d8_sync(address, 0, bytes) }.map_err(self.failed("cuMemsetD8"))?;
        Ok(address as usize)
    }

    unsafe fn free(&self, address: usize, _bytes: usize) {
        if let Ok(_alone) = self.enter() {
            // SAFETY: the caller's promise. At the end of a process the driver may be gone, and the memory with it.
            let _ = unsafe { result::free_sync(address as u64) };
        }
    }

    unsafe fn write(&self, address: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let _alone = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_sync(address as u64, bytes) }.map_err(self.failed("cuMemcpyHtoD"))
    }

    unsafe fn read(&self, address: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let _alone = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtoh_sync(bytes, address as u64) }.map_err(self.failed("cuMemcpyDtoH"))
    }

    unsafe fn copy(&self, to: usize, from: usize, bytes: usize) -> Result<(), DeviceError> {
        let _alone = self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_sync(to as u64, from as u64, bytes) }.map_err(self.failed("cuMemcpyDtoD"))
    }

    fn memory_info(&self) -> ort::Result<MemoryInfo> {
        MemoryInfo::of(c"Cuda", self.index)
    }

    unsafe fn pin(&self, address: usize, bytes: usize) -> Option<Box<dyn Send>> {
        let _alone = self.enter().ok()?;
        let host = std::ptr::with_exposed_provenance_mut::<c_void>(address);
        // SAFETY: host memory of that size, which outlives the guard (the caller's promise).
        unsafe { sys::cuMemHostRegister_v2(host, bytes, 0) }.result().ok()?;
        Some(Box::new(Pinned { context: self.context.clone(), address }))
    }

    fn exclusive(&self) -> Option<MutexGuard<'static, ()>> {
        Some(alone())
    }

    unsafe fn top(
        &self,
        logits: usize,
        vocab: usize,
        temperatures: &[f32],
        work: &Memory,
    ) -> Result<TopRows, DeviceError> {
        let (rows, width, float) = (temperatures.len(), TOP.min(vocab), size_of::<f32>());
        // Temperatures, then what comes back: tokens, logits and sums.
        let results = rows * (2 * width + 2);
        let address = |offset: usize| work.address(offset * float, 0) as u64;
        let (ids, values, sums) = (rows, rows + rows * width, rows + 2 * rows * width);
        // SAFETY: nobody else uses the memory (the caller's promise).
        unsafe { work.write(0, bytemuck::cast_slice(temperatures))? };
        let launch =
            LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (TOP_THREADS, 1, 1), shared_mem_bytes: 0 };
        let arguments =
            (logits as u64, address(0), vocab as u32, width as u32, address(ids), address(values), address(sums));
        let stream = self.context.default_stream();
        let mut call = stream.launch_builder(&self.top);
        call.arg(&arguments.0).arg(&arguments.1).arg(&arguments.2).arg(&arguments.3);
        call.arg(&arguments.4).arg(&arguments.5).arg(&arguments.6);
        let launched = {
            let _alone = self.enter()?;
            // SAFETY: the kernel's parameters in its order; the logits are the caller's promise, and the results fit the memory.
            unsafe { call.launch(launch) }.map(drop)
        };
        launched.map_err(self.failed("cuLaunchKernel"))?;
        let mut back = vec![0_u32; results];
        // SAFETY: as above; the copy waits for the kernel, which is on the same stream.
        unsafe { work.read(rows * float, bytemuck::cast_slice_mut(&mut back))? };
        let floats = |part: &[u32]| part.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<_>>();
        let (tokens, rest) = back.split_at(rows * width);
        let (logits, sums) = rest.split_at(rows * width);
        let sums = floats(sums);
        Ok(TopRows {
            ids: tokens.to_vec(),
            logits: floats(logits),
            log_sum_exp: sums.iter().copied().step_by(2).collect(),
            total: sums.iter().copied().skip(1).step_by(2).collect(),
            width,
        })
    }
}

/// Host memory whose pages stay where they are.
struct Pinned {
    context: Arc<CudaContext>,
    address: usize,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _alone = alone();
        if self.context.bind_to_thread().is_ok() {
            let host = std::ptr::with_exposed_provenance_mut::<c_void>(self.address);
            // SAFETY: registered when this was made.
            let _ = unsafe { sys::cuMemHostUnregister(host) };
        }
    }
}

/// One call of the driver, or one capture of a graph, at a time in this process.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(error: DriverError) -> String {
    let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    text.unwrap_or_else(|| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::top::work_bytes;

    /// Rows of many kinds: random ones, equal logits, few tokens, infinity and NaN.
    #[test]
    #[ignore = "needs an NVIDIA GPU"]
    fn a_gpu_selects_the_logits_that_the_host_selects() {
        let device: Arc<dyn Device> = Arc::new(Cuda::open(0).unwrap());
        for vocab in [50, 64, 1000, 49_152, 151_936] {
            let noise = |i: usize| ((i * 7919 + 13) % 100_003) as f32 / 5000.0 - 10.0;
            let mut rows: Vec<Vec<f32>> =
                (0..4).map(|row| (0..vocab).map(|i| noise(i * (row + 1))).collect()).collect();
            rows.push((0..vocab).map(|i| (i % 3) as f32).collect());
            rows.push(vec![-1.0; vocab]);
            let mut wrong = rows[0].clone();
            wrong[vocab / 2] = f32::NAN;
            rows.push(wrong);
            let logits: Vec<f32> = rows.concat();
            let temperatures: Vec<f32> = (0..rows.len()).map(|row| 0.5 + row as f32 * 0.25).collect();
            let memory = Memory::zeroed(&device, size_of_val(logits.as_slice()), "a test").unwrap();
            let work = Memory::zeroed(&device, work_bytes(rows.len()), "a test").unwrap();
            // SAFETY: the memory is this test's.
            let top = unsafe {
                memory.write(0, bytemuck::cast_slice(&logits)).unwrap();
                device.top(memory.address(0, 0), vocab, &temperatures, &work).unwrap()
            };
            let expected = TopRows::of(&logits, vocab, &temperatures);
            for row in 0..rows.len() {
                let (ours, expected) = (top.row(row).unwrap(), expected.row(row).unwrap());
                assert_eq!(ours.log_sum_exp.is_nan(), expected.log_sum_exp.is_nan(), "{vocab}, row {row}");
                if expected.log_sum_exp.is_nan() {
                    continue;
                }
                assert_eq!((ours.ids, ours.logits), (expected.ids, expected.logits), "{vocab}, row {row}");
                assert!((ours.log_sum_exp - expected.log_sum_exp).abs() < 1e-3, "{vocab}, row {row}");
                assert!((ours.total / expected.total - 1.0).abs() < 1e-3, "{vocab}, row {row}");
            }
        }
    }
}
