//! A PEFT adapter laid out for the operators that apply it.
//!
//! One [`Layout`] a fused projection: beside 32-bit weights every number as it is, beside quantised ones in
//! 8 bits. Ranks may differ from module to module and layer to layer.

use std::{io, ops::Range};

use slm_kernels::lora::{self, FactorError, Layout, Pair};

use crate::{
    anonymous::Anonymous,
    config::ModelConfig,
    graph::{Group, Precision},
    peft::{Adapter, Module},
};

/// An adapter ready to be used beside a graph.
///
/// Its matrices are one piece of memory of their own, which goes back to the system with it: adapters come and go for as
/// long as a worker lives, and an allocator would keep what they leave in pieces.
#[derive(Debug, Default)]
pub struct PackedAdapter {
    groups: Vec<Option<Place>>,
    /// None for an adapter that changes nothing.
    memory: Option<Anonymous>,
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
        let (Place { layout, memory }, all) = (self.groups.get(index)?.as_ref()?, self.memory.as_ref()?);
        Some(layout.adapter(&all[memory.clone()]))
    }

    /// Memory that the matrices take.
    pub fn bytes(&self) -> u64 {
        self.groups.iter().flatten().map(|place| place.memory.len() as u64).sum()
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
    #[error("{bytes} bytes of memory for its matrices: {source}")]
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
    let mut bytes = 0;
    let mut place = |(layer, group)| {
        let layout = layout(adapter, config, layer, group, precision)?;
        let begin = bytes;
        bytes += layout.bytes();
        Some(Place { layout, memory: begin..bytes })
    };
    let groups: Vec<_> = groups(config.layers).map(&mut place).collect();

    let mut memory = Anonymous::zeroed(bytes).map_err(|source| PackError::Memory { bytes, source })?;
    let mut room = Room::default();
    for ((layer, group), place) in self::groups(config.layers).zip(&groups) {
        if let Some(Place { layout, memory: range }) = place {
            pack_group((adapter, scale), (layer, group), layout, &mut room, &mut memory[range.clone()])?;
        }
    }
    Ok(PackedAdapter { groups, memory: Some(memory) })
}

/// Those of all layers, by [`Group::index`].
fn groups(layers: usize) -> impl Iterator<Item = (usize, Group)> {
    (0..layers).flat_map(|layer| Group::ALL.into_iter().map(move |group| (layer, group)))
}

/// `None` where the adapter changes nothing.
fn layout(adapter: &Adapter, config: &ModelConfig, layer: usize, group: Group, precision: Precision) -> Option<Layout> {
    let (mut modules, mut columns_before) = (Vec::new(), 0);
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(pair) = adapter.pairs.get(&(layer, module)) {
            modules.push(lora::Module { rank: pair.rank, column_begin: columns_before, columns });
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
