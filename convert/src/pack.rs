//! A PEFT adapter laid out for the operators that apply it.
//!
//! One [`Layout`] a fused projection: beside 32-bit weights every number as it is, beside quantised ones in
//! 8 bits. Ranks may differ from module to module and layer to layer.

mod kept;

use std::{
    collections::BTreeMap,
    io,
    ops::{Deref, Range},
};

use memmap2::Mmap;
use slm_kernels::lora::{self, FactorError, Layout, Pair};

use crate::{
    anonymous::Anonymous,
    config::ModelConfig,
    graph::{Group, Precision},
    peft::{Adapter, Module},
};

pub use kept::Key;

/// An adapter ready to be used beside a graph.
///
/// Its matrices are one piece of memory of their own, which goes back to the system with it: adapters come and go for as
/// long as a worker lives, and an allocator would keep what they leave in pieces.
#[derive(Debug, Default)]
pub struct PackedAdapter {
    /// As [`Adapter::digest`].
    pub digest: String,
    /// As [`Adapter::rank_max`].
    pub rank_max: usize,
    /// As [`Adapter::target_modules`].
    pub target_modules: Vec<String>,
    ranks: Ranks,
    groups: Vec<Option<Place>>,
    memory: Memory,
}

/// Of each pair.
type Ranks = BTreeMap<(usize, Module), usize>;

/// Where the matrices of all groups are.
#[derive(Debug, Default)]
enum Memory {
    /// There are none.
    #[default]
    None,
    /// Packed here.
    Anonymous(Anonymous),
    /// Kept in a file, from there on.
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

/// Where the matrices of a group are.
#[derive(Debug)]
struct Place {
    layout: Layout,
    memory: Range<usize>,
}

impl PackedAdapter {
    /// What changes the group of that [`Group::index`]; `None` where the adapter changes nothing.
    pub fn group(&self, index: usize) -> Option<lora::Adapter<'_>> {
        let Place { layout, memory } = self.groups.get(index)?.as_ref()?;
        Some(layout.adapter(&self.memory[memory.clone()]))
    }

    /// Whether its matrices are in a file that was kept, not in memory of their own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.memory, Memory::Mapped { .. })
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }
}

/// Why an adapter cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its scale is beyond what it can be computed with.
    #[error(
        "layer {layer}, {module}: the scaling is {factor}, beyond what a 32-bit float holds with the weights; use a \
         smaller scale or alpha"
    )]
    OutOfRange {
        /// First layer where that is so.
        layer: usize,
        /// First projection of the layer where that is so.
        module: String,
        /// Scaling of the adapter times the scale it is loaded with.
        factor: f32,
    },
    /// The system has no memory for it.
    #[error("{bytes} bytes of memory for its matrices: {source}; give the worker more, or load fewer adapters")]
    Memory {
        /// Asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Lays `adapter` out for a base served at `precision`. `scale` multiplies the adapter's own scaling.
///
/// # Errors
/// The scale is out of range, or there is no memory.
pub fn pack(
    adapter: &Adapter,
    config: &ModelConfig,
    precision: Precision,
    scale: f32,
) -> Result<PackedAdapter, PackError> {
    let ranks = adapter.pairs.iter().map(|(&place, pair)| (place, pair.rank)).collect();
    let (groups, bytes) = places(&ranks, config, precision);
    let mut memory = Anonymous::zeroed(bytes).map_err(|source| PackError::Memory { bytes, source })?;
    let mut room = Room::default();
    for ((layer, group), place) in self::groups(config.layers).zip(&groups) {
        if let Some(Place { layout, memory: range }) = place {
            pack_group((adapter, scale), (layer, group), layout, &mut room, &mut memory[range.clone()])?;
        }
    }
    Ok(PackedAdapter {
        digest: adapter.digest.clone(),
        rank_max: adapter.rank_max,
        target_modules: adapter.target_modules.clone(),
        ranks,
        groups,
        memory: Memory::Anonymous(memory),
    })
}

/// Where the matrices of each group go, one behind the other, and the bytes of all.
fn places(ranks: &Ranks, config: &ModelConfig, precision: Precision) -> (Vec<Option<Place>>, usize) {
    let mut bytes = 0;
    let place = |(layer, group)| {
        let layout = layout(ranks, config, layer, group, precision)?;
        let begin = bytes;
        bytes += layout.bytes();
        Some(Place { layout, memory: begin..bytes })
    };
    (groups(config.layers).map(place).collect(), bytes)
}

/// Those of all layers, by [`Group::index`].
fn groups(layers: usize) -> impl Iterator<Item = (usize, Group)> {
    (0..layers).flat_map(|layer| Group::ALL.into_iter().map(move |group| (layer, group)))
}

/// `None` where the adapter changes nothing.
fn layout(ranks: &Ranks, config: &ModelConfig, layer: usize, group: Group, precision: Precision) -> Option<Layout> {
    let (mut modules, mut columns_before) = (Vec::new(), 0);
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(&rank) = ranks.get(&(layer, module)) {
            modules.push(lora::Module { rank, column_begin: columns_before, columns });
        }
        columns_before += columns;
    }
    let layout = match precision {
        Precision::F32 => Layout::in_32_bits,
        Precision::Int4 | Precision::Int8 => Layout::in_8_bits,
    };
    (!modules.is_empty()).then(|| layout(group.inputs(config), columns_before, &modules))
}

/// Matrices of a group as f32: memory that is kept from group to group.
type Room = Vec<[Vec<f32>; 2]>;

fn pack_group(
    (adapter, scale): (&Adapter, f32),
    (layer, group): (usize, Group),
    layout: &Layout,
    room: &mut Room,
    memory: &mut [u8],
) -> Result<(), PackError> {
    let modules = group.modules();
    room.resize_with(room.len().max(modules.len()), Default::default);
    let mut pairs = Vec::with_capacity(modules.len());
    for (&module, [a, b]) in modules.iter().zip(room) {
        let Some(pair) = adapter.pairs.get(&(layer, module)) else { continue };
        pairs.push((module, Pair { a: pair.a.values_in(a), b: pair.b.values_in(b), factor: pair.scaling * scale }));
    }
    let (modules, pairs): (Vec<Module>, Vec<Pair<'_>>) = pairs.into_iter().unzip();
    layout.pack(&pairs, memory).map_err(|FactorError { pair }| PackError::OutOfRange {
        layer,
        module: modules[pair].name().into(),
        factor: pairs[pair].factor,
    })
}
