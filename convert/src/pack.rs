//! A PEFT adapter laid out for the operators that apply it.
//!
//! One [`lora::PackedAdapter`] a fused projection: beside 32-bit weights every number as it is, beside quantised ones in
//! 8 bits. Ranks may differ from module to module and layer to layer.

use slm_kernels::lora::{self, Module};

use crate::{
    config::ModelConfig,
    graph::{Group, Precision},
    peft::Adapter,
};

/// An adapter ready to be used beside a graph.
#[derive(Debug)]
pub struct PackedAdapter {
    /// One entry a group of the model, by [`Group::index`]; `None` where the adapter changes nothing.
    pub groups: Vec<Option<lora::PackedAdapter>>,
    /// Memory that the matrices take.
    pub bytes: u64,
}

/// The adapter's scale is beyond what it can be computed with.
#[derive(Debug, thiserror::Error)]
#[error(
    "layer {layer}, {module}: the scaling is {factor}, beyond what a 32-bit float holds with the weights; use a smaller \
     scale or alpha"
)]
pub struct OutOfRange {
    layer: usize,
    module: String,
    factor: f32,
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
    let bytes = groups.iter().flatten().map(|group| group.bytes() as u64).sum();
    Ok(PackedAdapter { groups, bytes })
}

fn pack_group(
    adapter: &Adapter,
    config: &ModelConfig,
    layer: usize,
    group: Group,
    precision: Precision,
    scale: f32,
) -> Result<Option<lora::PackedAdapter>, OutOfRange> {
    let (mut pairs, mut column_begin) = (Vec::new(), 0);
    for &module in group.modules() {
        let columns = module.dimensions(config).1;
        if let Some(pair) = adapter.pairs.get(&(layer, module)) {
            let (a, b, factor) = (pair.a.values(), pair.b.values(), pair.scaling * scale);
            // All are looked at together, many an instruction.
            if !b.iter().fold(true, |finite, weight| finite & (weight * factor).is_finite()) {
                return Err(OutOfRange { layer, module: module.name().into(), factor });
            }
            pairs.push((pair.rank, a, b, factor, column_begin..column_begin + columns));
        }
        column_begin += columns;
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let modules: Vec<_> = pairs
        .iter()
        .map(|(rank, a, b, factor, columns)| Module {
            rank: *rank,
            a,
            b,
            factor: *factor,
            column_begin: columns.start,
            columns: columns.len(),
        })
        .collect();
    let pack = match precision {
        Precision::F32 => lora::PackedAdapter::in_32_bits,
        Precision::Int4 | Precision::Int8 => lora::PackedAdapter::in_8_bits,
    };
    Ok(Some(pack(group.inputs(config), column_begin, &modules)))
}
