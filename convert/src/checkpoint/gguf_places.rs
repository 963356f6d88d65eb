//! Where the tensors of an architecture are in a GGUF file: each on its own; queries, keys and values as rows of one; or the
//! matrices of all experts in one.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::architecture::{Architecture, Attention, Stack, TensorSpec, Transform};
use crate::families::FUSED;
use crate::gguf::{Gguf, TensorType};

/// A tensor of the architecture and its place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) spec: TensorSpec,
    /// Name of the tensor in the file.
    pub(super) name: String,
    /// Its shape.
    pub(super) whole: Vec<usize>,
    /// Its rows, or its matrices, that are the tensor of the architecture.
    rows: Range<usize>,
}

impl Place {
    /// Blocks of the rows; `None` if the file lacks them.
    pub(super) fn stored<'a>(&self, gguf: &'a Gguf) -> Option<(TensorType, &'a [u8])> {
        let (kind, bytes) = gguf.stored(&self.name)?;
        let total = *self.whole.first()?;
        if self.rows == (0..total) {
            return Some((kind, bytes));
        }
        let row = bytes.len().checked_div(total)?;
        // Rows are whole blocks, but for biases of blocks, which nobody makes.
        let whole_rows = row * total == bytes.len() && row % kind.block_bytes() == 0;
        let rows = whole_rows.then(|| self.rows.start * row..self.rows.end * row)?;
        Some((kind, bytes.get(rows)?))
    }
}

/// Places of all tensors, in the order of [`Architecture::tensors`].
pub(super) fn places(architecture: &Architecture, gguf: &Gguf) -> Vec<Place> {
    let fused = fused(architecture, gguf);
    let place = |spec: TensorSpec| {
        if let Some(Stack { shape: [experts, ..], expert, .. }) = spec.stack {
            let whole = std::iter::once(experts).chain(spec.shape.iter().copied()).collect();
            return Place { name: spec.gguf.clone(), spec, whole, rows: expert..expert + 1 };
        }
        let (name, rows, total) = match fused.get(&spec.gguf) {
            Some((name, rows, total)) => (name.clone(), rows.clone(), *total),
            None => {
                let total = spec.shape.first().copied().unwrap_or(0);
                (spec.gguf.clone(), 0..total, total)
            }
        };
        // The convolution of a channel by itself has no dimension of inputs there.
        let behind = if spec.transform == Transform::Convolution { 2 } else { 1 };
        let whole = std::iter::once(total).chain(spec.shape.iter().skip(behind).copied()).collect();
        Place { spec, name, whole, rows }
    };
    architecture.tensors().into_iter().map(place).collect()
}

/// By a tensor's own name: the name, rows and all rows of the tensor that it is a part of.
fn fused(architecture: &Architecture, gguf: &Gguf) -> BTreeMap<String, (String, Range<usize>, usize)> {
    let mut found = BTreeMap::new();
    for (index, layer) in architecture.layers.iter().enumerate() {
        let prefix = architecture.layer_prefix(index).gguf;
        for suffix in ["weight", "bias"] {
            let whole = format!("{prefix}{FUSED}.{suffix}");
            let Some(Attention { qkv: linears, .. }) = layer.attention() else { continue };
            if linears.len() < 2 || gguf.tensor(&whole).is_none() {
                continue;
            }
            let total = linears.iter().map(|linear| linear.outputs).sum();
            let mut begin = 0;
            for linear in linears {
                let rows = begin..begin + linear.outputs;
                begin = rows.end;
                found.insert(format!("{prefix}{}.{suffix}", linear.name.gguf), (whole.clone(), rows, total));
            }
        }
    }
    found
}
