//! Packed adapters: PEFT adapters in the layout of the operators that apply them.
//!
//! One [`Layout`] for each fused projection: 32-bit floats beside 32-bit weights, 8 bits beside quantised ones. Ranks
//! may differ between modules and layers.

mod packed_file;

use std::{
    collections::BTreeMap,
    io,
    ops::{Deref, Range},
};

use memmap2::Mmap;
use slm_kernels::lora::{self, FactorError, Layout, Pair};

use crate::{
    anonymous::Anonymous,
    architecture::{Architecture, Linear, Place, Projection},
    graph::Precision,
    peft::Adapter,
};

pub use packed_file::Key;

/// A packed adapter, ready to be applied.
///
/// Its matrices are one mapping of their own, which is returned to the system as a whole: adapters come and go during
/// the life of a worker, and an allocator would fragment.
#[derive(Debug, Default)]
pub struct PackedAdapter {
    /// Digest of the adapter; see [`Adapter::digest`].
    pub digest: String,
    /// Largest rank; see [`Adapter::rank_max`].
    pub rank_max: usize,
    /// Target modules; see [`Adapter::target_modules`].
    pub target_modules: Vec<String>,
    ranks: Ranks,
    projections: Vec<Option<PackedProjection>>,
    memory: Memory,
}

/// Rank of each pair.
type Ranks = BTreeMap<Place, usize>;

/// Memory of the matrices.
#[derive(Debug, Default)]
enum Memory {
    /// No matrices.
    #[default]
    None,
    /// Anonymous memory, packed by this process.
    Anonymous(Anonymous),
    /// A packed file, from offset `begin`.
    Mapped { map: Mmap, begin: usize },
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Anonymous(memory) => memory,
            Self::Mapped { map, begin } => &map[*begin..],
        }
    }
}

/// Layout and byte range of a fused projection's matrices.
#[derive(Debug)]
struct PackedProjection {
    layout: Layout,
    memory: Range<usize>,
}

impl PackedAdapter {
    /// The adapter for the projection with that [`Projection::index`]; `None` if it does not change the
    /// projection.
    pub fn projection(&self, index: usize) -> Option<lora::Adapter<'_>> {
        let PackedProjection { layout, memory } = self.projections.get(index)?.as_ref()?;
        Some(layout.adapter(&self.memory[memory.clone()]))
    }

    /// Whether the matrices are mapped from a packed file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.memory, Memory::Mapped { .. })
    }

    /// Bytes of the matrices.
    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }
}

/// Reason why an adapter cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The scaling is out of range.
    #[error(
        "layer {layer}, {module}: the scaling is {factor}, beyond what a 32-bit float holds with the weights; use a \
         smaller scale or alpha"
    )]
    OutOfRange {
        /// First such layer.
        layer: usize,
        /// First such projection in the layer.
        module: String,
        /// Scaling of the adapter times the scale it is loaded with.
        factor: f32,
    },
    /// The system has no memory for the matrices.
    #[error("{bytes} bytes of memory for its matrices: {source}; give the worker more, or load fewer adapters")]
    Memory {
        /// Requested bytes.
        bytes: usize,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// Packs `adapter` for a base served at `precision`. `scale` multiplies the adapter's own scaling.
///
/// # Errors
/// The scaling is out of range, or there is no memory.
pub fn pack(
    adapter: &Adapter,
    base: &Architecture,
    precision: Precision,
    scale: f32,
) -> Result<PackedAdapter, PackError> {
    let ranks = adapter.pairs.iter().map(|(&place, pair)| (place, pair.rank)).collect();
    let (projections, bytes) = places(&ranks, base, precision);
    let mut memory = Anonymous::zeroed(bytes).map_err(|source| PackError::Memory { bytes, source })?;
    let mut room = Room::default();
    for ((layer, projection), place) in base.projections().zip(&projections) {
        if let Some(PackedProjection { layout, memory: range }) = place {
            pack_projection(
                (adapter, scale),
                base,
                (layer, projection),
                layout,
                &mut room,
                &mut memory[range.clone()],
            )?;
        }
    }
    Ok(PackedAdapter {
        digest: adapter.digest.clone(),
        rank_max: adapter.rank_max,
        target_modules: adapter.target_modules.clone(),
        ranks,
        projections,
        memory: Memory::Anonymous(memory),
    })
}

/// Layout of each projection's matrices, one after another, and the total bytes.
fn places(ranks: &Ranks, base: &Architecture, precision: Precision) -> (Vec<Option<PackedProjection>>, usize) {
    let mut bytes = 0;
    let place = |(layer, projection)| {
        let layout = layout(ranks, base, layer, projection, precision)?;
        let begin = bytes;
        bytes += layout.bytes();
        Some(PackedProjection { layout, memory: begin..bytes })
    };
    (base.projections().map(place).collect(), bytes)
}

/// `None` if the adapter does not change the projection.
fn layout(
    ranks: &Ranks,
    base: &Architecture,
    layer: usize,
    projection: Projection,
    precision: Precision,
) -> Option<Layout> {
    let (mut modules, mut columns_before) = (Vec::new(), 0);
    let (first, linears) = (base.first(layer, projection), base.fused(layer, projection));
    for (index, linear) in linears.iter().enumerate() {
        let columns = linear.outputs;
        if let Some(&rank) = ranks.get(&(layer, first + index)) {
            modules.push(lora::Module { rank, column_begin: columns_before, columns });
        }
        columns_before += columns;
    }
    let layout = match precision {
        Precision::F32 | Precision::F16 => Layout::in_32_bits,
        Precision::Int4 | Precision::Int8 => Layout::in_8_bits,
    };
    (!modules.is_empty()).then(|| layout(linears.first().map_or(0, |linear| linear.inputs), columns_before, &modules))
}

/// Scratch for a projection's matrices as f32, reused.
type Room = Vec<[Vec<f32>; 2]>;

fn pack_projection(
    (adapter, scale): (&Adapter, f32),
    base: &Architecture,
    (layer, projection): (usize, Projection),
    layout: &Layout,
    room: &mut Room,
    memory: &mut [u8],
) -> Result<(), PackError> {
    let (first, linears) = (base.first(layer, projection), base.fused(layer, projection));
    room.resize_with(room.len().max(linears.len()), Default::default);
    let mut pairs = Vec::with_capacity(linears.len());
    for ((index, linear), [a, b]) in linears.iter().enumerate().zip(room) {
        let Some(pair) = adapter.pairs.get(&(layer, first + index)) else { continue };
        pairs.push((linear, Pair { a: pair.a.values_in(a), b: pair.b.values_in(b), factor: pair.scaling * scale }));
    }
    let (linears, pairs): (Vec<&Linear>, Vec<Pair<'_>>) = pairs.into_iter().unzip();
    layout.pack(&pairs, memory).map_err(|FactorError { pair }| PackError::OutOfRange {
        layer,
        module: linears[pair].short_name().into(),
        factor: pairs[pair].factor,
    })
}
