//! Memory of the KV cache: pages with the same index in every layer.
#![allow(unsafe_code)] // Views of pages are made from addresses; the block says who uses them.

use half::f16;
use slm_convert::graph::Precision;
use slm_kernels::attention::{Pages, Shape};

/// Bytes of a cache line, to which each layer is aligned.
const LINE: usize = 64;

/// Pages of all layers. Memory is allocated by the system on first write.
pub(super) struct KvMemory {
    shape: Shape,
    pages: usize,
    layers: Layers,
}

enum Layers {
    F32(Vec<Vec<f32>>),
    /// f16 values by their bits: zero pages of the system stay untouched.
    F16(Vec<Vec<u16>>),
}

impl KvMemory {
    /// `pages` pages for each of `layers` layers: f32 for an F32 model, else f16.
    pub(super) fn new(shape: Shape, pages: usize, layers: usize, precision: Precision) -> Self {
        let elements = shape.page_elements() * pages;
        let layers = match precision {
            Precision::F32 | Precision::F16 => {
                Layers::F32((0..layers).map(|_| vec![0.0; elements + LINE / size_of::<f32>()]).collect())
            }
            Precision::Int4 | Precision::Int8 => {
                Layers::F16((0..layers).map(|_| vec![0; elements + LINE / size_of::<u16>()]).collect())
            }
        };
        Self { shape, pages, layers }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Number of pages of a layer.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Bytes of a page's element.
    pub(super) fn element_bytes(precision: Precision) -> usize {
        match precision {
            Precision::F32 | Precision::F16 => size_of::<f32>(),
            Precision::Int4 | Precision::Int8 => size_of::<f16>(),
        }
    }

    /// Writable view of the pages of `layer`.
    pub(super) fn layer(&mut self, layer: usize) -> Option<Pages<'_>> {
        // SAFETY: initialised memory of so many pages from the line on where the first begins; borrowed
        // exclusively for as long as the view lives.
        Some(unsafe {
            match &mut self.layers {
                Layers::F32(layers) => Pages::from_raw_f32(self.shape, on_a_line(layers.get_mut(layer)?), self.pages),
                Layers::F16(layers) => {
                    let first = on_a_line(layers.get_mut(layer)?);
                    Pages::from_raw_f16(self.shape, first.cast::<f16>(), self.pages)
                }
            }
        })
    }
}

/// The first element aligned to a line; there are more elements than a line has.
fn on_a_line<T>(elements: &mut [T]) -> *mut T {
    let first = elements.as_mut_ptr();
    first.wrapping_add(first.align_offset(LINE))
}
