//! Tensors of a running node, by address.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::ptr;

use ort::{AsPointer, operator::ComputeContext};

/// Where a tensor's data is, and its shape.
pub(super) struct Tensor<T> {
    pub(super) data: *mut T,
    pub(super) shape: Vec<i64>,
}

impl<T> Tensor<T> {
    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// Size of the last dimension.
    pub(super) fn width(&self) -> usize {
        self.shape.last().map_or(1, |&width| width as usize)
    }

    /// Input `index`, whose element type the operator declared.
    pub(super) fn input(context: &ComputeContext, index: usize) -> ort::Result<Self> {
        let api = ort::api();
        let mut value = ptr::null();
        let mut info = ptr::null_mut();
        let mut rank = 0;
        // SAFETY: the context is that of the running call; out pointers are valid; `info` is released before the end.
        unsafe {
            ort::Error::result_from_status((api.KernelContext_GetInput)(context.ptr(), index, &mut value))?;
            ort::Error::result_from_status((api.GetTensorTypeAndShape)(value, &mut info))?;
            let counted = ort::Error::result_from_status((api.GetDimensionsCount)(info, &mut rank));
            let mut shape = vec![0; rank];
            let read = ort::Error::result_from_status((api.GetDimensions)(info, shape.as_mut_ptr(), rank));
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            counted.and(read)?;
            Ok(Self { data: data_of(value.cast_mut())?, shape })
        }
    }

    /// Output `index`, made now with `shape`.
    pub(super) fn output(context: &ComputeContext, index: usize, shape: Vec<i64>) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: the context is that of the running call; the runtime copies the shape.
        unsafe {
            let status = (ort::api().KernelContext_GetOutput)(
                context.ptr().cast_mut(),
                index,
                shape.as_ptr(),
                shape.len(),
                &mut value,
            );
            ort::Error::result_from_status(status)?;
            Ok(Self { data: data_of(value)?, shape })
        }
    }

    /// The elements, to read.
    ///
    /// # Safety
    /// Nobody writes to the tensor while the slice lives, and it lives no longer than the running call.
    pub(super) unsafe fn as_slice<'a>(&self) -> &'a [T] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the runtime gave `len` elements; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data, self.len()) }
    }

    /// The elements, to write.
    ///
    /// # Safety
    /// Nobody else uses the tensor while the slice lives, and it lives no longer than the running call.
    pub(super) unsafe fn as_mut_slice<'a>(&mut self) -> &'a mut [T] {
        if self.len() == 0 {
            return &mut [];
        }
        // SAFETY: the runtime gave `len` elements; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len()) }
    }
}

/// # Safety
/// `value` must be a live tensor.
unsafe fn data_of<T>(value: *mut ort_sys::OrtValue) -> ort::Result<*mut T> {
    let mut data = ptr::null_mut();
    // SAFETY: the caller's promise; the out pointer is valid.
    unsafe { ort::Error::result_from_status((ort::api().GetTensorMutableData)(value, &mut data))? };
    Ok(data.cast())
}
