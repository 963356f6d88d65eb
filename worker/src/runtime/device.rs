//! Memory of the device that an execution provider computes on.
#![allow(unsafe_code)] // Memory by address; the blocks say what bounds it and who may touch it.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    sync::{Arc, MutexGuard},
};

use super::{binding::MemoryInfo, top::TopRows};

/// Alignment of allocations, in bytes.
const ALIGNMENT: usize = 256;

/// A device failed, or has too little memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// An allocation failed.
    #[error(
        "{device} has no memory for {what}: {bytes} bytes are needed and {free} of {total} are free; lower \
         spec.runtime.kvCache.bytes, spec.runtime.maxSequences, spec.runtime.contextLength or spec.adapters.slots, or end what else \
         uses the device"
    )]
    Memory {
        /// Name of the device.
        device: String,
        /// What it was for.
        what: &'static str,
        /// Bytes asked for.
        bytes: usize,
        /// Free bytes of the device.
        free: usize,
        /// All bytes of the device.
        total: usize,
    },
    /// The host has no memory.
    #[error(
        "no memory for {what}: {bytes} bytes are needed; give the worker more, or lower spec.runtime.maxSequences, spec.runtime.contextLength or spec.adapters.slots"
    )]
    HostMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes asked for.
        bytes: usize,
    },
    /// A call of the driver failed.
    #[error("{device}: {call}: {error}; see what `nvidia-smi` says on this node")]
    Failed {
        /// Name of the device.
        device: String,
        /// What was called.
        call: &'static str,
        /// Message of the driver.
        error: String,
    },
}

/// A device with memory of its own, or the memory of the host in its place.
pub(super) trait Device: fmt::Debug + Send + Sync {
    /// Address of so many zeroed bytes.
    fn allocate(&self, bytes: usize, what: &'static str) -> Result<usize, DeviceError>;

    /// Frees an allocation.
    ///
    /// # Safety
    /// `allocate` gave that address for so many bytes, and nobody uses them any more.
    unsafe fn free(&self, address: usize, bytes: usize);

    /// Copies to the device. The bytes are there when this returns.
    ///
    /// # Safety
    /// The range lies within an allocation, and nobody else reads or writes it meanwhile.
    unsafe fn write(&self, address: usize, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies from the device.
    ///
    /// # Safety
    /// As for `write`.
    unsafe fn read(&self, address: usize, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies within the device. The bytes are there when this returns.
    ///
    /// # Safety
    /// As for `write`, of both ranges, which do not overlap.
    unsafe fn copy(&self, to: usize, from: usize, bytes: usize) -> Result<(), DeviceError>;

    /// Description of its memory for ONNX Runtime.
    fn memory_info(&self) -> ort::Result<MemoryInfo>;

    /// Makes copies to and from host memory faster, as long as the result lives; `None` where nothing is gained.
    ///
    /// # Safety
    /// The host memory lives longer than the result.
    unsafe fn pin(&self, address: usize, bytes: usize) -> Option<Box<dyn Send>>;

    /// Keeps all other calls away as long as the result lives: the capture of a CUDA graph fails if another thread allocates or
    /// copies meanwhile. `None` where nothing is captured.
    fn exclusive(&self) -> Option<MutexGuard<'static, ()>> {
        None
    }

    /// Whether it is worth selecting logits where they are.
    fn selects(&self) -> bool {
        true
    }

    /// The largest of the f32 logits at an address, rows of `vocab`, one for each temperature. `work` has
    /// [`top::work_bytes`] for so many rows.
    ///
    /// # Safety
    /// The logits lie within an allocation, and nobody writes them or uses `work` meanwhile.
    unsafe fn top(
        &self,
        logits: usize,
        vocab: usize,
        temperatures: &[f32],
        work: &Memory,
    ) -> Result<TopRows, DeviceError>;
}

/// An allocation.
pub(super) struct Memory {
    device: Arc<dyn Device>,
    address: usize,
    bytes: usize,
}

impl Memory {
    /// So many zeroed bytes, for `what`.
    pub(super) fn zeroed(device: &Arc<dyn Device>, bytes: usize, what: &'static str) -> Result<Self, DeviceError> {
        // Tensors without elements have an address, too.
        let bytes = bytes.max(ALIGNMENT);
        Ok(Self { device: device.clone(), address: device.allocate(bytes, what)?, bytes })
    }

    /// Address of its byte `offset`, from which on `bytes` are in it.
    ///
    /// # Panics
    /// They are not.
    pub(super) fn address(&self, offset: usize, bytes: usize) -> usize {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "{offset} + {bytes} of {}", self.bytes);
        self.address + offset
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    /// Nobody reads or writes that range meanwhile.
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let address = self.address(offset, bytes.len());
        // SAFETY: the range lies within the allocation (checked); the rest is the caller's promise.
        unsafe { self.device.write(address, bytes) }
    }

    /// Copies from `offset` to `bytes`.
    ///
    /// # Safety
    /// Nobody writes that range meanwhile.
    pub(super) unsafe fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let address = self.address(offset, bytes.len());
        // SAFETY: as above.
        unsafe { self.device.read(address, bytes) }
    }

    /// Copies `bytes` from byte `from` of `other`, another allocation of the same device, to `offset`.
    ///
    /// # Safety
    /// Nobody reads or writes these ranges meanwhile.
    pub(super) unsafe fn copy(
        &self,
        offset: usize,
        other: &Self,
        from: usize,
        bytes: usize,
    ) -> Result<(), DeviceError> {
        let (to, from) = (self.address(offset, bytes), other.address(from, bytes));
        // SAFETY: both ranges lie within their allocations (checked); the rest is the caller's promise.
        unsafe { self.device.copy(to, from, bytes) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` and freed once; users borrow the memory or are dropped before it.
        unsafe { self.device.free(self.address, self.bytes) }
    }
}

/// The host's memory, for execution providers that compute on it.
#[derive(Debug)]
pub(super) struct Host {
    /// Whether it selects logits, as a GPU does: nothing is gained, but tests go the same way.
    pub(super) selects: bool,
}

impl Device for Host {
    fn allocate(&self, bytes: usize, what: &'static str) -> Result<usize, DeviceError> {
        let failed = || DeviceError::HostMemory { what, bytes };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| failed())?;
        // SAFETY: the size is not zero (`Memory::zeroed`).
        let address = unsafe { alloc_zeroed(layout) };
        if address.is_null() { Err(failed()) } else { Ok(address.expose_provenance()) }
    }

    unsafe fn free(&self, address: usize, bytes: usize) {
        // SAFETY: allocated with this layout.
        unsafe {
            let layout = Layout::from_size_align_unchecked(bytes, ALIGNMENT);
            dealloc(std::ptr::with_exposed_provenance_mut(address), layout);
        }
    }

    unsafe fn write(&self, address: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let to = std::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: the caller's promise; the source is no device memory, so that they do not overlap.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, address: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let from = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: as above.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn copy(&self, to: usize, from: usize, bytes: usize) -> Result<(), DeviceError> {
        let (to, from) =
            (std::ptr::with_exposed_provenance_mut::<u8>(to), std::ptr::with_exposed_provenance::<u8>(from));
        // SAFETY: as above.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    fn memory_info(&self) -> ort::Result<MemoryInfo> {
        MemoryInfo::cpu()
    }

    unsafe fn pin(&self, _: usize, _: usize) -> Option<Box<dyn Send>> {
        None
    }

    fn selects(&self) -> bool {
        self.selects
    }

    unsafe fn top(
        &self,
        logits: usize,
        vocab: usize,
        temperatures: &[f32],
        _: &Memory,
    ) -> Result<TopRows, DeviceError> {
        let from = std::ptr::with_exposed_provenance::<f32>(logits);
        // SAFETY: the caller's promise; the host's allocations are aligned.
        let logits = unsafe { std::slice::from_raw_parts(from, vocab * temperatures.len()) };
        Ok(TopRows::of(logits, vocab, temperatures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zero() {
        let device: Arc<dyn Device> = Arc::new(Host { selects: true });
        let memory = Memory::zeroed(&device, 1000, "a test").unwrap();
        assert!(memory.address(0, 1000).is_multiple_of(ALIGNMENT));
        let mut back = [9; 6];
        // SAFETY: the memory is this test's.
        unsafe {
            memory.write(500, &[1, 2, 3]).unwrap();
            memory.read(499, &mut back).unwrap();
        }
        assert_eq!(back, [0, 1, 2, 3, 0, 0]);
    }

    #[test]
    #[should_panic(expected = "998 + 3 of 1000")]
    fn no_range_ends_beyond_the_memory() {
        let device: Arc<dyn Device> = Arc::new(Host { selects: true });
        Memory::zeroed(&device, 1000, "a test").unwrap().address(998, 3);
    }
}
