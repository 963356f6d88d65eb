//! A PEFT adapter laid out for the operators that apply it.
//!
//! One [`PackedGroup`] a fused projection. All A matrices of the group stand one under the other, so one pass over the
//! input gives every part's hidden values; each module's B, multiplied by its scaling and tiled as the kernels read it,
//! adds to its own columns of the fused output. Ranks may differ from module to module and layer to layer.

use half::f16;
use slm_kernels::lora::{self, Part};

use crate::{
    config::ModelConfig,
    graph::{Group, Precision},
    peft::{Adapter, Matrix, narrow},
};

/// Columns of a tile of B.
const TILE_COLUMNS: usize = 16;

/// An adapter ready to be used beside a graph.
#[derive(Debug)]
pub struct PackedAdapter {
    /// One entry a group of the model, by [`Group::index`]; `None` where the adapter changes nothing.
    pub groups: Vec<Option<PackedGroup>>,
    /// Memory that the matrices take.
    pub bytes: u64,
}

/// The adapter's share of one fused projection.
#[derive(Debug)]
pub struct PackedGroup {
    /// Rows of A: the ranks of all parts together.
    pub rank: usize,
    /// Columns of A, the inputs of the projection.
    pub inputs: usize,
    /// Outputs of the projection.
    pub outputs: usize,
    /// A `[rank, inputs]`, then B of each part, tiled.
    pub matrices: Matrices,
    /// Where each module's B stands and what it adds to.
    pub parts: Vec<Part>,
}

/// A and B, in the element type that fits the base's precision.
#[derive(Debug)]
pub enum Matrices {
    /// Beside 32-bit weights: exact.
    F32 {
        /// `[rank, inputs]`.
        a: Vec<f32>,
        /// All parts' B.
        b: Vec<f32>,
    },
    /// Beside quantised weights: half the bytes, and far finer than the weights it adds to.
    F16 {
        /// `[rank, inputs]`.
        a: Vec<f16>,
        /// All parts' B.
        b: Vec<f16>,
    },
}

impl PackedGroup {
    /// As the kernels take it.
    pub fn adapter(&self) -> lora::Adapter<'_> {
        let matrices = match &self.matrices {
            Matrices::F32 { a, b } => lora::Matrices::F32 { a, b },
            Matrices::F16 { a, b } => lora::Matrices::F16 { a, b },
        };
        let Self { rank, inputs, outputs, ref parts, .. } = *self;
        lora::Adapter { rank, inputs, outputs, matrices, parts }
    }
}

impl Matrices {
    fn empty(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32 { a: Vec::new(), b: Vec::new() },
            Precision::Int4 | Precision::Int8 => Self::F16 { a: Vec::new(), b: Vec::new() },
        }
    }

    fn b_elements(&self) -> usize {
        match self {
            Self::F32 { b, .. } => b.len(),
            Self::F16 { b, .. } => b.len(),
        }
    }

    /// Puts a module's matrices below those that are there.
    ///
    /// # Errors
    /// A value that the element type does not hold.
    fn push(&mut self, module_a: &Matrix, module_b: &[f32]) -> Result<(), f32> {
        match self {
            Self::F32 { a, b } => {
                module_a.widen(a);
                b.extend_from_slice(module_b);
                Ok(())
            }
            Self::F16 { a, b } => {
                module_a.narrow(a)?;
                narrow(module_b, b)
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32 { a, b } => (a.len() + b.len()) * size_of::<f32>(),
            Self::F16 { a, b } => (a.len() + b.len()) * size_of::<f16>(),
        }
    }
}

/// The adapter does not fit into the element type it would be stored as.
#[derive(Debug, thiserror::Error)]
#[error(
    "layer {layer}, {module}: a weight times the scaling is {value}, beyond what a 16-bit float holds (65504); \
     serve the base with precision F32 or retrain with a smaller scale"
)]
pub struct OutOfRange {
    layer: usize,
    module: String,
    value: f32,
}

/// Lays `adapter` out for a base served at `precision`. `scale` multiplies the adapter's own scaling.
pub fn pack(
    adapter: &Adapter,
    config: &ModelConfig,
    precision: Precision,
    scale: f32,
) -> Result<PackedAdapter, OutOfRange> {
    let mut groups = Vec::with_capacity(config.layers * Group::ALL.len());
    for layer in 0..config.layers {
        for group in Group::ALL {
            groups.push(pack_group(adapter, config, layer, group, precision, scale)?);
        }
    }
    let bytes = groups.iter().flatten().map(|g| g.matrices.bytes() as u64).sum();
    Ok(PackedAdapter { groups, bytes })
}

fn pack_group(
    adapter: &Adapter,
    config: &ModelConfig,
    layer: usize,
    group: Group,
    precision: Precision,
    scale: f32,
) -> Result<Option<PackedGroup>, OutOfRange> {
    let (mut matrices, mut parts) = (Matrices::empty(precision), Vec::new());
    let (mut rank, mut column) = (0, 0);
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(pair) = adapter.pairs.get(&(layer, module)) {
            let b_begin = matrices.b_elements();
            let part = Part { rank_begin: rank, rank: pair.rank, column_begin: column, columns, b_begin };
            let b = tiled(&part, &pair.b.values(), |b| b * pair.scaling * scale);
            matrices.push(&pair.a, &b).map_err(|value| OutOfRange { layer, module: module.name().into(), value })?;
            parts.push(part);
            rank += pair.rank;
        }
        column += columns;
    }
    if parts.is_empty() {
        return Ok(None);
    }
    Ok(Some(PackedGroup { rank, inputs: group.inputs(config), outputs: column, matrices, parts }))
}

/// B as [`Part::tiled`] lays it out, but tile by tile: a division for each element would cost more than all else that is
/// done to an adapter. PEFT stores B as `[columns, rank]`.
fn tiled(part: &Part, b: &[f32], scaled: impl Fn(f32) -> f32) -> Vec<f32> {
    let mut tiled = vec![0.0; part.b_elements()];
    let tile = TILE_COLUMNS * part.rank;
    for (tile, columns) in tiled.chunks_exact_mut(tile).zip(b.chunks(tile)) {
        for (column, values) in columns.chunks_exact(part.rank).enumerate() {
            for (row, value) in tile.chunks_exact_mut(TILE_COLUMNS).zip(values) {
                row[column] = scaled(*value);
            }
        }
    }
    tiled
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernels say what the layout is.
    #[test]
    fn tiles_are_those_of_the_kernels() {
        for (rank, columns) in [(1, 16), (16, 576), (5, 30), (3, 7), (64, 17)] {
            let b: Vec<f32> = (0..columns * rank).map(|i| i as f32 * 0.37 - 9.0).collect();
            let part = Part { rank_begin: 0, rank, column_begin: 0, columns, b_begin: 0 };
            let expected = part.tiled(|r, n| b[n * rank + r] * 1.7);
            assert_eq!(tiled(&part, &b, |b| b * 1.7), expected, "rank {rank}, {columns} columns");
        }
    }
}
