//! What a checkpoint would become, without converting it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    architecture::{Architecture, Experts, TensorSpec},
    checkpoint::Checkpoint,
    graph::Precision,
    quantize::{Bits, format_of},
};

/// Size of a model and of its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Weights of the model; those of a tied head once.
    pub parameters: u64,
    /// Bytes of the converted weights.
    pub weight_bytes: u64,
    /// Of these, the bytes that a step for one sequence does not read: tables of which it takes a row, and experts that
    /// its token does not use.
    pub unread_bytes: u64,
    /// Number of tensors by their type in the file.
    pub types: BTreeMap<String, usize>,
}

impl Estimate {
    /// Estimates the conversion of `checkpoint` to `precision`.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, precision: Precision) -> Self {
        let architecture = checkpoint.architecture();
        let (tables, routers) = (tables(architecture), routers(architecture));
        let mut estimate = Self { parameters: 0, weight_bytes: 0, unread_bytes: 0, types: BTreeMap::new() };
        let mut expert_bytes = 0;
        for tensor in architecture.tensors() {
            let bytes = match (precision, tensor.shape.as_slice()) {
                (Precision::Int4 | Precision::Int8, &[outputs, inputs]) if !routers.contains(&tensor.name) => {
                    format_of(checkpoint, &tensor.name, bits(architecture, &tensor, precision))
                        .packed_len(inputs, outputs)
                }
                _ => tensor.shape.iter().product::<usize>() * size_of::<f32>(),
            };
            estimate.parameters += tensor.shape.iter().product::<usize>() as u64;
            estimate.weight_bytes += bytes as u64;
            if tables.contains(&tensor.name) {
                estimate.unread_bytes += bytes as u64;
            }
            if tensor.stack.is_some() {
                expert_bytes += bytes as u64;
            }
            *estimate.types.entry(checkpoint.type_name(&tensor.name)).or_default() += 1;
        }
        estimate.unread_bytes += unused(architecture, expert_bytes);
        // In F32 a tied head is a matrix of its own, in the order in which it is multiplied.
        if precision == Precision::F32 && architecture.head.tied {
            let table = (architecture.vocab_size * architecture.hidden_size * size_of::<f32>()) as u64;
            estimate.unread_bytes += table;
            estimate.weight_bytes += table;
        }
        estimate
    }
}

fn bits(architecture: &Architecture, tensor: &TensorSpec, precision: Precision) -> Bits {
    let wide = [&architecture.embedding, &architecture.head.name].iter().any(|name| tensor.name == name.weight());
    if wide || precision == Precision::Int8 { Bits::Eight } else { Bits::Four }
}

/// Tables that are no head.
fn tables(architecture: &Architecture) -> BTreeSet<String> {
    let embedding = (!architecture.head.tied).then_some(&architecture.embedding);
    let inputs = architecture.layer_inputs.as_ref().map(|inputs| &inputs.embedding);
    embedding.into_iter().chain(inputs).map(|name| name.weight()).collect()
}

/// Matrices that stay in 32-bit floats.
fn routers(architecture: &Architecture) -> BTreeSet<String> {
    let layers = architecture.layers.iter().enumerate();
    let router = |index: usize, of: &Experts| of.router.within(&architecture.layer_prefix(index)).weight();
    layers.filter_map(|(index, layer)| Some(router(index, layer.feed_forward.experts.as_ref()?))).collect()
}

/// Of the `bytes` of all experts, those that one token does not use. Experts of a model are of one size.
fn unused(architecture: &Architecture, bytes: u64) -> u64 {
    let experts = || architecture.layers.iter().filter_map(|layer| layer.feed_forward.experts.as_ref());
    let [count, used] = [experts().map(|of| of.count).sum::<usize>(), experts().map(|of| of.used).sum()];
    if count == 0 { 0 } else { bytes / count as u64 * (count - used) as u64 }
}
