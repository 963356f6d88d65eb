//! A PEFT adapter laid out for the operators that apply it.
//!
//! One [`PackedGroup`] a fused projection. All A matrices of the group stand one under the other, so one pass over the
//! input gives every part's hidden values; each module's B, multiplied by its scaling and tiled as the kernels read it,
//! adds to its own columns of the fused output. Ranks may differ from module to module and layer to layer.

use half::{f16, slice::HalfFloatSliceExt};
use slm_kernels::lora::{self, Part};

use crate::{
    config::ModelConfig,
    graph::{Group, Precision},
    peft::{Adapter, LoraPair},
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
    let (mut a, mut b, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rank, mut column) = (0, 0);
    let inputs = group.inputs(config);
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(pair) = adapter.pairs.get(&(layer, module)) {
            let part = Part { rank_begin: rank, rank: pair.rank, column_begin: column, columns, b_begin: b.len() };
            a.extend_from_slice(&pair.a);
            tile(&part, pair, scale, &mut b);
            if precision != Precision::F32
                && let Some(value) = too_large(&a[rank * inputs..]).or_else(|| too_large(&b[part.b_begin..]))
            {
                return Err(OutOfRange { layer, module: module.name().into(), value });
            }
            parts.push(part);
            rank += pair.rank;
        }
        column += columns;
    }
    if parts.is_empty() {
        return Ok(None);
    }
    let matrices = match precision {
        Precision::F32 => Matrices::F32 { a, b },
        Precision::Int4 | Precision::Int8 => Matrices::F16 { a: narrowed(&a), b: narrowed(&b) },
    };
    Ok(Some(PackedGroup { rank, inputs, outputs: column, matrices, parts }))
}

/// Appends B of `pair`, scaled, as [`Part::tiled`] lays it out, but tile by tile: a division for each element would cost
/// more than all else that is done to an adapter.
fn tile(part: &Part, pair: &LoraPair, scale: f32, b: &mut Vec<f32>) {
    b.resize(part.b_begin + part.b_elements(), 0.0);
    let tile = TILE_COLUMNS * pair.rank;
    // PEFT stores B as [columns, rank].
    for (tile, columns) in b[part.b_begin..].chunks_exact_mut(tile).zip(pair.b.chunks(tile)) {
        for (column, values) in columns.chunks_exact(pair.rank).enumerate() {
            for (row, value) in tile.chunks_exact_mut(TILE_COLUMNS).zip(values) {
                row[column] = value * pair.scaling * scale;
            }
        }
    }
}

/// The first value that a 16-bit float does not hold. Looks at many at once, as there hardly ever is one.
fn too_large(values: &[f32]) -> Option<f32> {
    let beyond = |value: &f32| value.abs() > f16::MAX.to_f32_const();
    let any = values.iter().fold(false, |any, value| any | beyond(value));
    if any { values.iter().copied().find(beyond) } else { None }
}

/// As 16-bit floats, converted many at a time.
fn narrowed(values: &[f32]) -> Vec<f16> {
    let mut narrow = vec![f16::ZERO; values.len()];
    narrow.convert_from_f32_slice(values);
    narrow
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(rank: usize, columns: usize) -> LoraPair {
        let b = (0..columns * rank).map(|i| i as f32 * 0.37 - 9.0).collect();
        LoraPair { rank, scaling: 1.7, a: Vec::new(), b }
    }

    /// The kernels say what the layout is.
    #[test]
    fn tiles_are_those_of_the_kernels() {
        for (rank, columns) in [(1, 16), (16, 576), (5, 30), (3, 7), (64, 17)] {
            let pair = pair(rank, columns);
            let part = Part { rank_begin: 0, rank, column_begin: 0, columns, b_begin: 3 };
            let mut b = vec![1.0; part.b_begin];
            tile(&part, &pair, 0.5, &mut b);
            let expected = part.tiled(|r, n| pair.b[n * rank + r] * pair.scaling * 0.5);
            assert_eq!(
                (&b[..3], &b[3..]),
                ([1.0; 3].as_slice(), expected.as_slice()),
                "rank {rank}, {columns} columns"
            );
        }
    }

    #[test]
    fn what_16_bits_do_not_hold_is_found() {
        let mut values = vec![65504.0, -65504.0, 0.0, 1.0, 2.0];
        assert_eq!(too_large(&values), None);
        values.push(-65505.0);
        assert_eq!(too_large(&values), Some(-65505.0));
    }
}
