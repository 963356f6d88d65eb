//! Zero-copy binding of inputs and outputs.
//!
//! `ort`'s own binding clones borrowed tensors, but tensors of a step must be used in place. These few calls use the
//! raw API.
#![allow(unsafe_code)] // The raw API of ONNX Runtime is C; every block says why its call is sound.

use std::{
    ffi::{CStr, c_void},
    ptr::{self, NonNull},
};

use ort::AsPointer;

/// Bound on the dimensions of bound tensors.
const DIMS_MAX: usize = 4;

/// An element type that tensors may have.
pub(super) trait Element: Copy {
    const TYPE: ort_sys::ONNXTensorElementDataType;
}

impl Element for f32 {
    const TYPE: ort_sys::ONNXTensorElementDataType =
        ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
impl Element for i32 {
    const TYPE: ort_sys::ONNXTensorElementDataType =
        ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
}
impl Element for half::f16 {
    const TYPE: ort_sys::ONNXTensorElementDataType =
        ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
}
impl Element for bool {
    const TYPE: ort_sys::ONNXTensorElementDataType =
        ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
}
impl Element for i64 {
    const TYPE: ort_sys::ONNXTensorElementDataType =
        ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

/// A buffer of fixed size and address, for tensor views.
pub(super) struct Buffer<T> {
    data: NonNull<[T]>,
}

// SAFETY: a Buffer owns its memory as a Box does; it is only ever used through the session that holds it.
unsafe impl<T: Send> Send for Buffer<T> {}

impl<T: Element + Clone> Buffer<T> {
    /// A buffer of `len` elements of one value.
    pub(super) fn filled(len: usize, value: T) -> Self {
        let data = vec![value; len].into_boxed_slice();
        // SAFETY: Box::into_raw never gives null.
        Self { data: unsafe { NonNull::new_unchecked(Box::into_raw(data)) } }
    }
}

impl<T: Element> Buffer<T> {
    /// A tensor of `shape` over the buffer's beginning. It must not outlive the buffer.
    pub(super) fn view<const RANK: usize>(&self, shape: [usize; RANK]) -> ort::Result<Value> {
        let len: usize = shape.iter().product();
        if len > self.data.len() {
            return Err(ort::Error::new(format!("view of {len} elements in {}", self.data.len())));
        }
        // SAFETY: the range lies within the buffer (checked above), whose memory neither moves nor shrinks.
        unsafe { Value::over::<T>(&MemoryInfo::cpu()?, self.data.as_ptr().cast(), &shape) }
    }

    /// Address of the memory.
    pub(super) fn address(&self) -> usize {
        self.data.as_ptr().cast::<T>().expose_provenance()
    }

    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: the memory is initialised, and nobody writes to it while the session is borrowed.
        unsafe { self.data.as_ref() }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive; the runtime writes only during `run`, which borrows too.
        unsafe { self.data.as_mut() }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // SAFETY: made by Box::into_raw in `filled`, dropped once.
        drop(unsafe { Box::from_raw(self.data.as_ptr()) });
    }
}

/// Where memory is, for ONNX Runtime.
pub(super) struct MemoryInfo(*mut ort_sys::OrtMemoryInfo);

// SAFETY: a description that nobody changes.
unsafe impl Send for MemoryInfo {}

impl MemoryInfo {
    /// Memory of the host.
    pub(super) fn cpu() -> ort::Result<Self> {
        Self::of(c"Cpu", 0)
    }

    /// Memory of device `index` of the kind that ONNX Runtime calls by that name.
    pub(super) fn of(name: &CStr, index: usize) -> ort::Result<Self> {
        let mut info = ptr::null_mut();
        // SAFETY: name and out pointer are valid; the result is owned by the guard.
        unsafe {
            let status = (ort::api().CreateMemoryInfo)(
                name.as_ptr(),
                ort_sys::OrtAllocatorType::OrtDeviceAllocator,
                index as i32,
                ort_sys::OrtMemType::OrtMemTypeDefault,
                &mut info,
            );
            ort::Error::result_from_status(status)?;
        }
        Ok(Self(info))
    }
}

impl Drop for MemoryInfo {
    fn drop(&mut self) {
        // SAFETY: made by CreateMemoryInfo and released once.
        unsafe { (ort::api().ReleaseMemoryInfo)(self.0) }
    }
}

/// A tensor over borrowed memory.
pub(super) struct Value(NonNull<ort_sys::OrtValue>);

impl Value {
    /// A tensor of `shape` over the memory at `data`.
    ///
    /// # Safety
    /// There are as many elements, in the memory of that description, and they outlive the value and whatever it is bound to.
    pub(super) unsafe fn over<T: Element>(
        memory: &MemoryInfo,
        data: *mut c_void,
        shape: &[usize],
    ) -> ort::Result<Self> {
        let mut dims = [0; DIMS_MAX];
        let Some(dims) = dims.get_mut(..shape.len()) else {
            return Err(ort::Error::new(format!("{} dimensions", shape.len())));
        };
        dims.iter_mut().zip(shape).for_each(|(dim, &size)| *dim = size as i64);
        let bytes = shape.iter().product::<usize>() * size_of::<T>();
        let mut value = ptr::null_mut();
        // SAFETY: the caller's promise; the runtime copies shape and memory info.
        unsafe {
            let status = (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.0,
                data,
                bytes,
                dims.as_ptr(),
                dims.len(),
                T::TYPE,
                &mut value,
            );
            ort::Error::result_from_status(status)?;
        }
        NonNull::new(value).map(Self).ok_or_else(|| ort::Error::new("no tensor was made"))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: made by CreateTensorWithDataAsOrtValue and released once.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) }
    }
}

/// Tensors bound to a session's inputs and outputs.
pub(super) struct Binding {
    binding: NonNull<ort_sys::OrtIoBinding>,
}

// SAFETY: a binding is a map from names to tensors with no tie to a thread; it is used through `&mut` only.
unsafe impl Send for Binding {}

impl Binding {
    pub(super) fn new(session: &ort::session::Session) -> ort::Result<Self> {
        let mut binding = ptr::null_mut();
        // SAFETY: the session is alive; the binding is dropped before it (field order in `DecoderSession`).
        let status = unsafe { (ort::api().CreateIoBinding)(session.ptr().cast_mut(), &mut binding) };
        // SAFETY: the status was just returned and is consumed here.
        unsafe { ort::Error::result_from_status(status)? };
        NonNull::new(binding).map(|binding| Self { binding }).ok_or_else(|| ort::Error::new("no binding was made"))
    }

    /// Binds input `name` to `value`. The runtime references the tensor, but not its memory.
    pub(super) fn input(&mut self, name: &CStr, value: &Value) -> ort::Result<()> {
        // SAFETY: all three are alive for the call.
        unsafe {
            let status = (ort::api().BindInput)(self.binding.as_ptr(), name.as_ptr(), value.0.as_ptr());
            ort::Error::result_from_status(status)
        }
    }

    /// Binds output `name` to `value`.
    pub(super) fn output(&mut self, name: &CStr, value: &Value) -> ort::Result<()> {
        // SAFETY: all three are alive for the call.
        unsafe {
            let status = (ort::api().BindOutput)(self.binding.as_ptr(), name.as_ptr(), value.0.as_ptr());
            ort::Error::result_from_status(status)
        }
    }

    /// Runs the session on the bound tensors.
    pub(super) fn run(
        &mut self,
        session: &mut ort::session::Session,
        options: Option<&ort::session::RunOptions>,
    ) -> ort::Result<()> {
        let options = options.map_or(ptr::null(), AsPointer::ptr);
        // SAFETY: session and binding are alive and borrowed exclusively, the bound memory is owned by the caller,
        // which is borrowed exclusively too; null run options are the defaults.
        unsafe {
            let status = (ort::api().RunWithBinding)(session.ptr().cast_mut(), options, self.binding.as_ptr());
            ort::Error::result_from_status(status)
        }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: made by CreateIoBinding and released once.
        unsafe { (ort::api().ReleaseIoBinding)(self.binding.as_ptr()) }
    }
}
