//! Tensors of a running node, by raw pointer.
#![allow(unsafe_code)] // Tensor data comes as raw pointers; every block says what bounds it.

use std::{marker::PhantomData, ptr, slice};

use ort::{AsPointer, operator::ComputeContext};

/// Bound on the dimensions of our tensors.
const RANK_MAX: usize = 3;

/// Address and shape of a tensor.
pub(in crate::runtime) struct Tensor<T> {
    pub(in crate::runtime) data: *mut T,
    dims: [i64; RANK_MAX],
    rank: usize,
}

impl<T> Tensor<T> {
    /// Number of elements.
    pub(in crate::runtime) fn len(&self) -> usize {
        self.shape().iter().product::<i64>() as usize
    }

    pub(in crate::runtime) fn shape(&self) -> &[i64] {
        &self.dims[..self.rank]
    }

    /// Size of the last dimension.
    pub(in crate::runtime) fn width(&self) -> usize {
        self.shape().last().map_or(1, |&width| width as usize)
    }

    /// Input `index`, whose element type the operator declared.
    pub(in crate::runtime) fn input(context: &ComputeContext, index: usize) -> ort::Result<Self> {
        let value = input(context, index)?;
        let api = ort::api();
        let (mut info, mut rank, mut dims) = (ptr::null_mut(), 0, [0; RANK_MAX]);
        // SAFETY: the value is an input of the running call; out pointers are valid, `dims` for as many as are read;
        // `info` is released before the end.
        unsafe {
            ort::Error::result_from_status((api.GetTensorTypeAndShape)(value, &mut info))?;
            let counted = ort::Error::result_from_status((api.GetDimensionsCount)(info, &mut rank));
            let read = (api.GetDimensions)(info, dims.as_mut_ptr(), rank.min(RANK_MAX));
            (api.ReleaseTensorTypeAndShapeInfo)(info);
            counted.and(ort::Error::result_from_status(read))?;
            if rank > RANK_MAX {
                return Err(ort::Error::new(format!("input {index} has {rank} dimensions")));
            }
            Ok(Self { data: data_of(value.cast_mut())?, dims, rank })
        }
    }

    /// Creates output `index` with the shape of `like`, but with rows of `width`.
    pub(in crate::runtime) fn output_like<U>(
        context: &ComputeContext,
        index: usize,
        like: &Tensor<U>,
        width: usize,
    ) -> ort::Result<Self> {
        let Tensor { mut dims, rank, .. } = *like;
        if let Some(last) = dims[..rank].last_mut() {
            *last = width as i64;
        }
        Self::output(context, index, dims, rank)
    }

    /// Creates output `index` with the shape of `like` and one more dimension of `width`.
    pub(in crate::runtime) fn output_behind<U>(
        context: &ComputeContext,
        index: usize,
        like: &Tensor<U>,
        width: usize,
    ) -> ort::Result<Self> {
        let Tensor { mut dims, rank, .. } = *like;
        let Some(last) = dims.get_mut(rank) else {
            return Err(ort::Error::new(format!("no room for a dimension behind {rank}")));
        };
        *last = width as i64;
        Self::output(context, index, dims, rank + 1)
    }

    fn output(context: &ComputeContext, index: usize, dims: [i64; RANK_MAX], rank: usize) -> ort::Result<Self> {
        let mut value = ptr::null_mut();
        // SAFETY: the context is that of the running call; the runtime copies the shape.
        unsafe {
            let context = context.ptr().cast_mut();
            let status = (ort::api().KernelContext_GetOutput)(context, index, dims.as_ptr(), rank, &mut value);
            ort::Error::result_from_status(status)?;
            Ok(Self { data: data_of(value)?, dims, rank })
        }
    }

    /// The elements, to read.
    ///
    /// # Safety
    /// The tensor is not written while the slice lives, and the slice does not outlive the running call.
    pub(in crate::runtime) unsafe fn as_slice<'a>(&self) -> &'a [T] {
        if self.len() == 0 {
            return &[];
        }
        // SAFETY: the runtime gave `len` elements; the rest is the caller's promise.
        unsafe { slice::from_raw_parts(self.data, self.len()) }
    }

    /// The elements, to write.
    ///
    /// # Safety
    /// The tensor is not used otherwise while the slice lives, and the slice does not outlive the running call.
    pub(in crate::runtime) unsafe fn as_mut_slice<'a>(&mut self) -> &'a mut [T] {
        if self.len() == 0 {
            return &mut [];
        }
        // SAFETY: the runtime gave `len` elements; the rest is the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.data, self.len()) }
    }
}

/// A constant input: an initializer. Its shape is queried once, since a query costs as much as the rest of a small
/// node's overhead.
pub(in crate::runtime) struct Constant<T> {
    address: usize,
    len: usize,
    element: PhantomData<fn() -> T>,
}

impl<T> Constant<T> {
    pub(in crate::runtime) fn new() -> Self {
        Self { address: 0, len: 0, element: PhantomData }
    }

    /// Input `index`, whose element type the operator declared.
    ///
    /// # Safety
    /// The input is an initializer of the graph, and the slice does not outlive the running call.
    pub(in crate::runtime) unsafe fn input<'a>(
        &mut self,
        context: &ComputeContext,
        index: usize,
    ) -> ort::Result<&'a [T]> {
        // SAFETY: an input of the running call.
        let data: *mut T = unsafe { data_of(input(context, index)?.cast_mut())? };
        if data.addr() != self.address {
            let tensor = Tensor::<T>::input(context, index)?;
            self.len = tensor.len();
            self.address = data.addr();
        }
        if self.len == 0 {
            return Ok(&[]);
        }
        // SAFETY: initializers neither move nor change; this one has `len` elements.
        Ok(unsafe { slice::from_raw_parts(data, self.len) })
    }
}

fn input(context: &ComputeContext, index: usize) -> ort::Result<*const ort_sys::OrtValue> {
    let mut value = ptr::null();
    // SAFETY: the context is that of the running call; the out pointer is valid.
    unsafe { ort::Error::result_from_status((ort::api().KernelContext_GetInput)(context.ptr(), index, &mut value))? };
    if value.is_null() { Err(ort::Error::new(format!("input {index} is missing"))) } else { Ok(value) }
}

/// # Safety
/// `value` must be a live tensor.
unsafe fn data_of<T>(value: *mut ort_sys::OrtValue) -> ort::Result<*mut T> {
    let mut data = ptr::null_mut();
    // SAFETY: the caller's promise; the out pointer is valid.
    unsafe { ort::Error::result_from_status((ort::api().GetTensorMutableData)(value, &mut data))? };
    Ok(data.cast())
}
