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
    peft::Adapter,
};

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
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(pair) = adapter.pairs.get(&(layer, module)) {
            let part = Part { rank_begin: rank, rank: pair.rank, column_begin: column, columns, b_begin: b.len() };
            a.extend_from_slice(&pair.a);
            // PEFT stores B as [columns, rank].
            b.extend(part.tiled(|r, n| pair.b[n * pair.rank + r] * pair.scaling * scale));
            if precision != Precision::F32 {
                let largest = a.iter().chain(&b).copied().find(|x| x.abs() > f16::MAX.to_f32());
                if let Some(value) = largest {
                    return Err(OutOfRange { layer, module: module.name().into(), value });
                }
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
        Precision::Int4 | Precision::Int8 => {
            let narrow = |v: Vec<f32>| v.into_iter().map(f16::from_f32).collect();
            Matrices::F16 { a: narrow(a), b: narrow(b) }
        }
    };
    Ok(Some(PackedGroup { rank, inputs: group.inputs(config), outputs: column, matrices, parts }))
}
