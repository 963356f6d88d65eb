//! Pages of keys and values.
#![allow(unsafe_code)] // Addresses into borrowed memory; the plan and `Attention` check tables and sizes.

use std::marker::PhantomData;

use half::f16;

use super::Shape;
use crate::simd::WIDTH;

/// Positions in a page.
pub const PAGE: usize = 32;

const _: () = assert!(PAGE.is_multiple_of(WIDTH));

/// The pages of one layer: memory of the caller, written by several threads at disjoint positions.
///
/// A page is [`Shape::page_elements`] successive elements and may be copied as a whole. In it, for each of `kv_heads`:
/// keys `[PAGE / 16, head_dim, 16]`, sixteen positions side by side, so that a vector holds one score of each; then
/// values `[PAGE, head_dim]`. Memory is read fastest when it begins on a cache line.
#[derive(Clone, Copy)]
pub struct Pages<'a> {
    memory: Memory,
    count: usize,
    shape: Shape,
    borrow: PhantomData<&'a mut [f32]>,
}

/// The first element.
#[derive(Clone, Copy)]
pub(super) enum Memory {
    F32(*mut f32),
    F16(*mut f16),
}

// SAFETY: a view of exclusively borrowed elements; the functions that write through it say who may write where.
unsafe impl Send for Pages<'_> {}
// SAFETY: as above.
unsafe impl Sync for Pages<'_> {}

impl<'a> Pages<'a> {
    /// `memory` as pages; a remainder at its end is unused.
    pub fn f32(shape: Shape, memory: &'a mut [f32]) -> Self {
        // SAFETY: borrowed exclusively for as long.
        unsafe { Self::from_raw_f32(shape, memory.as_mut_ptr(), memory.len() / shape.page_elements()) }
    }

    /// `memory` as pages; a remainder at its end is unused. Keys and values are rounded to the nearest f16.
    pub fn f16(shape: Shape, memory: &'a mut [f16]) -> Self {
        // SAFETY: borrowed exclusively for as long.
        unsafe { Self::from_raw_f16(shape, memory.as_mut_ptr(), memory.len() / shape.page_elements()) }
    }

    /// `count` pages at `memory`.
    ///
    /// # Safety
    /// They are initialised memory, and for `'a` nobody else writes to those that a step names.
    pub unsafe fn from_raw_f32(shape: Shape, memory: *mut f32, count: usize) -> Self {
        Self { memory: Memory::F32(memory), count, shape, borrow: PhantomData }
    }

    /// As [`Pages::from_raw_f32`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn from_raw_f16(shape: Shape, memory: *mut f16, count: usize) -> Self {
        Self { memory: Memory::F16(memory), count, shape, borrow: PhantomData }
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Head shape of the pages.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

/// One head's keys and values of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, E> {
    /// The head's part of page 0.
    first: *mut E,
    page_elements: usize,
    head_dim: usize,
    table: &'a [u32],
}

impl<'a, E> Head<'a, E> {
    /// # Safety
    /// `memory` holds all pages that `table` names.
    #[inline(always)]
    pub(super) unsafe fn new(memory: *mut E, shape: &Shape, kv_head: usize, table: &'a [u32]) -> Self {
        let page_elements = shape.page_elements();
        // SAFETY: within the first page.
        let first = unsafe { memory.add(kv_head * 2 * PAGE * shape.head_dim) };
        Self { first, page_elements, head_dim: shape.head_dim, table }
    }

    #[inline(always)]
    unsafe fn page(&self, position: usize) -> *mut E {
        // SAFETY: the table covers the position and memory what it names, by the caller's promise.
        unsafe { self.first.add(*self.table.get_unchecked(position / PAGE) as usize * self.page_elements) }
    }

    /// The first float of the key at `position`; each next one is `WIDTH` elements further.
    ///
    /// # Safety
    /// The table covers the position.
    #[inline(always)]
    pub(super) unsafe fn key(&self, position: usize) -> *mut E {
        let at = position % PAGE;
        // SAFETY: within the head's keys of the page.
        unsafe { self.page(position).add(at / WIDTH * WIDTH * self.head_dim + at % WIDTH) }
    }

    /// The value at `position`; those of the rest of the page follow.
    ///
    /// # Safety
    /// The table covers the position.
    #[inline(always)]
    pub(super) unsafe fn value(&self, position: usize) -> *mut E {
        // SAFETY: within the head's values of the page.
        unsafe { self.page(position).add((PAGE + position % PAGE) * self.head_dim) }
    }

    /// Start of the next head's keys in the page, or the end of the page.
    ///
    /// # Safety
    /// The table covers the position.
    #[inline(always)]
    pub(super) unsafe fn next_head(&self, position: usize) -> *const E {
        // SAFETY: a page of the table.
        unsafe { self.page(position).wrapping_add(2 * PAGE * self.head_dim) }
    }
}
