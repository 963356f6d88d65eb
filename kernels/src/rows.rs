//! Rows of floats, written by several threads.
#![allow(unsafe_code)] // One address into borrowed floats; bounds are checked.

use std::{marker::PhantomData, ops::Range};

/// Rows of floats of equal length, written by several threads to cells that do not overlap.
///
/// The functions that take it define which thread writes where.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: *mut f32,
    rows: usize,
    width: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view of exclusively borrowed floats; the functions that write through it say who may write where.
unsafe impl Send for Rows<'_> {}
// SAFETY: as above.
unsafe impl Sync for Rows<'_> {}

impl<'a> Rows<'a> {
    /// `data` as rows of `width`; a remainder at its end is unused.
    pub fn new(data: &'a mut [f32], width: usize) -> Self {
        let rows = data.len().checked_div(width).unwrap_or(0);
        Self { data: data.as_mut_ptr(), rows, width, borrow: PhantomData }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Floats of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `index`, to write.
    ///
    /// # Panics
    /// There is no such row.
    ///
    /// # Safety
    /// No other thread uses the row while the slice lives.
    #[allow(clippy::mut_from_ref)] // That is what this type is for; the caller promises.
    pub unsafe fn row_mut(&self, index: usize) -> &mut [f32] {
        // SAFETY: within the borrowed range, checked by `row`; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.row(index), self.width) }
    }

    /// Cells `columns` of row `index`, to write.
    ///
    /// # Panics
    /// There are no such cells.
    ///
    /// # Safety
    /// No other thread uses these cells while the slice lives.
    #[allow(clippy::mut_from_ref)] // That is what this type is for; the caller promises.
    pub unsafe fn cells_mut(&self, index: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns {columns:?} of {}", self.width);
        // SAFETY: within the borrowed range, checked by `row` and above; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.row(index).add(columns.start), columns.len()) }
    }

    /// Row `index`, to read.
    ///
    /// # Safety
    /// No thread writes to the row while the slice lives.
    pub(crate) unsafe fn read(&self, index: usize) -> &[f32] {
        // SAFETY: within the borrowed range, checked by `row`; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.row(index), self.width) }
    }

    pub(crate) fn row(&self, index: usize) -> *mut f32 {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        // SAFETY: within the borrowed range, checked above.
        unsafe { self.data.add(index * self.width) }
    }
}
