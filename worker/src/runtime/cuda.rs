//! Memory of an NVIDIA GPU, by its driver.
#![allow(unsafe_code)] // Calls of the driver; the blocks say why they are sound.

use std::{ffi::c_void, sync::Arc};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::{
    binding::MemoryInfo,
    device::{Device, DeviceError},
    provider::ProviderError,
};

/// Oldest driver that CUDA 13 runs on, as `cuDriverGetVersion` counts: 1000 times the major version.
const CUDA_VERSION_MIN: i32 = 13_000;

/// A GPU. Its context is the primary one, which ONNX Runtime uses, too.
#[derive(Debug)]
pub(super) struct Cuda {
    context: Arc<CudaContext>,
    index: usize,
    name: String,
}

impl Cuda {
    /// GPU `index` of those that this process sees.
    pub(super) fn open(index: usize) -> Result<Self, ProviderError> {
        // SAFETY: loading the driver's library runs its initialisers, which any CUDA program runs.
        if !unsafe { sys::is_culib_present() } {
            return Err(ProviderError::NoDriver);
        }
        let failed =
            |call: &'static str| move |error: DriverError| ProviderError::Driver { call, error: message(error) };
        result::init().map_err(failed("cuInit"))?;
        let mut version = 0;
        // SAFETY: the out pointer is valid.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
        if version < CUDA_VERSION_MIN {
            return Err(ProviderError::OldDriver { found: format!("{}.{}", version / 1000, version % 1000 / 10) });
        }
        let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
        let devices = usize::try_from(count).unwrap_or(0);
        if index >= devices {
            return Err(ProviderError::NoDevice { index, devices });
        }
        let context = CudaContext::new(index).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let name = context.name().map_err(failed("cuDeviceGetName"))?;
        Ok(Self { context, index, name })
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(DriverError) -> DeviceError {
        let device = self.name.clone();
        move |error| DeviceError::Failed { device, call, error: message(error) }
    }

    /// Calls of the driver need the context on their thread.
    fn enter(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(self.failed("cuCtxSetCurrent"))
    }

    /// Free and all bytes.
    fn memory(&self) -> (usize, usize) {
        self.enter().ok().and_then(|()| result::mem_get_info().ok()).unwrap_or((0, 0))
    }
}

impl Device for Cuda {
    fn allocate(&self, bytes: usize, what: &'static str) -> Result<usize, DeviceError> {
        self.enter()?;
        // SAFETY: the size is not zero; the memory is written below before anybody reads it.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(|_| {
            let (free, total) = self.memory();
            DeviceError::Memory { device: self.name.clone(), what, bytes, free, total }
        })?;
        // SAFETY: allocated just now with that size.
        unsafe { result::memset_d8_sync(address, 0, bytes) }.map_err(self.failed("cuMemsetD8"))?;
        Ok(address as usize)
    }

    unsafe fn free(&self, address: usize, _bytes: usize) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise. At the end of a process the driver may be gone, and the memory with it.
            let _ = unsafe { result::free_sync(address as u64) };
        }
    }

    unsafe fn write(&self, address: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_htod_sync(address as u64, bytes) }.map_err(self.failed("cuMemcpyHtoD"))
    }

    unsafe fn read(&self, address: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtoh_sync(bytes, address as u64) }.map_err(self.failed("cuMemcpyDtoH"))
    }

    fn memory_info(&self) -> ort::Result<MemoryInfo> {
        MemoryInfo::of(c"Cuda", self.index)
    }

    unsafe fn pin(&self, address: usize, bytes: usize) -> Option<Box<dyn Send>> {
        self.enter().ok()?;
        let host = std::ptr::with_exposed_provenance_mut::<c_void>(address);
        // SAFETY: host memory of that size, which outlives the guard (the caller's promise).
        unsafe { sys::cuMemHostRegister_v2(host, bytes, 0) }.result().ok()?;
        Some(Box::new(Pinned { context: self.context.clone(), address }))
    }

    fn free_bytes(&self) -> u64 {
        self.memory().0 as u64
    }
}

/// Host memory whose pages stay where they are.
struct Pinned {
    context: Arc<CudaContext>,
    address: usize,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            let host = std::ptr::with_exposed_provenance_mut::<c_void>(self.address);
            // SAFETY: registered when this was made.
            let _ = unsafe { sys::cuMemHostUnregister(host) };
        }
    }
}

fn message(error: DriverError) -> String {
    let text = error.error_string().ok().map(|text| text.to_string_lossy().into_owned());
    text.unwrap_or_else(|| format!("{error:?}"))
}
