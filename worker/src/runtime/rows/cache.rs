//! Memory of keys and values: a row for each sequence.
#![allow(unsafe_code)] // Memory of the device; the block says who else uses it.

use std::{ffi::CString, sync::Arc};

use slm_convert::{
    architecture::{Architecture, Attention},
    graph::{Flavour, Form, rows::cache_names},
};

use super::bank::element_bytes;
use crate::runtime::{
    backend::{Geometry, SessionError},
    device::{Device, DeviceError, Memory},
};

/// Keys, or values, of all sequences in one layer.
pub(super) struct Side {
    /// Names of the graph's input and output.
    pub(super) names: [CString; 2],
    /// `[rows, heads, positions, width]`.
    pub(super) memory: Memory,
    /// What a run gives, `[rows, heads, tokens, width]`, where the graph does not write it into the memory itself.
    pub(super) fresh: Option<Memory>,
    pub(super) heads: usize,
    pub(super) width: usize,
}

/// Keys and values of all layers.
pub(super) struct Cache {
    pub(super) sides: Vec<Side>,
    element: usize,
    positions: usize,
}

/// New tokens of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    /// Row of the cache.
    pub(super) row: usize,
    /// Row of the run.
    pub(super) in_run: usize,
    /// Tokens before.
    pub(super) past: usize,
    /// New ones.
    pub(super) count: usize,
}

impl Cache {
    /// For runs of at most `tokens_max` tokens, padding included.
    pub(super) fn new(
        device: &Arc<dyn Device>,
        model: &Architecture,
        flavour: Flavour,
        geometry: &Geometry,
        tokens_max: usize,
    ) -> Result<Self, SessionError> {
        let element = element_bytes(flavour.activations);
        let mut sides = Vec::new();
        for (index, layer) in model.layers.iter().enumerate() {
            let Some(&Attention { kv_heads: heads, head_dim: width, .. }) = layer.attention() else { continue };
            let position = heads * width * element;
            for [takes, gives] in cache_names(flavour.form, index) {
                let names = [c_string(takes)?, c_string(gives)?];
                let memory = Memory::zeroed(device, geometry.pages * geometry.page * position, "keys and values")?;
                let fresh = match flavour.form {
                    Form::Delta => Some(Memory::zeroed(device, tokens_max * position, "new keys and values")?),
                    Form::Paged | Form::States | Form::Gqa | Form::Standard => None,
                };
                sides.push(Side { names, memory, fresh, heads, width });
            }
        }
        Ok(Self { sides, element, positions: geometry.page })
    }

    /// Copies what a run of so many `tokens` a row gave to where the next one looks for it, padding left out.
    pub(super) fn append(&self, tokens: usize, appended: Appended) -> Result<(), DeviceError> {
        let Appended { row, in_run, past, count } = appended;
        for Side { memory, fresh, heads, width, .. } in &self.sides {
            let (Some(fresh), bytes) = (fresh, width * self.element) else { continue };
            for head in 0..*heads {
                let from = (in_run * heads + head) * tokens * bytes;
                let to = ((row * heads + head) * self.positions + past) * bytes;
                // SAFETY: the run has ended, and nobody else has this memory.
                unsafe { memory.copy(to, fresh, from, count * bytes)? };
            }
        }
        Ok(())
    }
}

/// A name for ONNX Runtime.
pub(super) fn c_string(name: String) -> ort::Result<CString> {
    CString::new(name).map_err(|error| ort::Error::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::device::Host;

    #[test]
    fn new_tokens_go_behind_those_before_and_padding_goes_nowhere() {
        let device: Arc<dyn Device> = Arc::new(Host { selects: true });
        let memory = |bytes| Memory::zeroed(&device, bytes, "a test").unwrap();
        let (heads, width, positions, tokens) = (2, 1, 5, 3);
        let side = Side {
            names: Default::default(),
            memory: memory(2 * heads * positions * width),
            fresh: Some(memory(heads * tokens * width)),
            heads,
            width,
        };
        let cache = Cache { sides: vec![side], element: 1, positions };
        let mut rows = [0; 20];
        // SAFETY: the memory is this test's.
        unsafe { cache.sides[0].fresh.as_ref().unwrap().write(0, &[1, 2, 9, 3, 4, 9]).unwrap() };
        cache.append(tokens, Appended { row: 1, in_run: 0, past: 2, count: 2 }).unwrap();
        // SAFETY: as above.
        unsafe { cache.sides[0].memory.read(0, &mut rows).unwrap() };
        assert_eq!(rows, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 4, 0]);
    }
}
