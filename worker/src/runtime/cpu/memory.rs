//! Memory of the KV cache: pages with the same index in every layer.
#![allow(unsafe_code)] // Views of pages are made from addresses; the block says who uses them.

use half::f16;
use slm_convert::graph::Precision;
use slm_kernels::attention::{Pages, Shape};

/// Bytes of a cache line, to which each layer is aligned.
const LINE: usize = 64;

/// Pages of all layers. Memory is allocated by the system on first write.
pub(super) struct KvMemory {
    pages: usize,
    layers: Vec<Option<Layer>>,
}

/// Pages of a layer.
struct Layer {
    shape: Shape,
    elements: Elements,
}

enum Elements {
    F32(Vec<f32>),
    /// f16 values by their bits: zero pages of the system stay untouched.
    F16(Vec<u16>),
}

impl KvMemory {
    /// `pages` pages for each layer with keys and values of its own, whose heads are given: f32 for an F32 model, else f16.
    pub(super) fn new(layers: &[Option<Shape>], pages: usize, precision: Precision) -> Self {
        let layer = |shape: Shape| {
            let elements = shape.page_elements() * pages;
            let elements = match precision {
                Precision::F32 | Precision::F16 => Elements::F32(vec![0.0; elements + LINE / size_of::<f32>()]),
                Precision::Int4 | Precision::Int8 => Elements::F16(vec![0; elements + LINE / size_of::<u16>()]),
            };
            Layer { shape, elements }
        };
        Self { pages, layers: layers.iter().map(|shape| shape.map(layer)).collect() }
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

    /// Writable view of the pages of `layer`; `None` if it has none.
    pub(super) fn layer(&mut self, layer: usize) -> Option<Pages<'_>> {
        let Layer { shape, elements } = self.layers.get_mut(layer)?.as_mut()?;
        // SAFETY: initialised memory of so many pages from the line on where the first begins; borrowed
        // exclusively for as long as the view lives.
        Some(unsafe {
            match elements {
                Elements::F32(elements) => Pages::from_raw_f32(*shape, on_a_line(elements), self.pages),
                Elements::F16(elements) => Pages::from_raw_f16(*shape, on_a_line(elements).cast::<f16>(), self.pages),
            }
        })
    }
}

/// The first element aligned to a line; there are more elements than a line has.
fn on_a_line<T>(elements: &mut [T]) -> *mut T {
    let first = elements.as_mut_ptr();
    first.wrapping_add(first.align_offset(LINE))
}
