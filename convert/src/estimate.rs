//! What a checkpoint would become, without converting it.

use std::collections::BTreeMap;

use crate::{
    checkpoint::Checkpoint,
    graph::Precision,
    quantize::{Bits, format_of},
};

/// Size of a model and of its weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// Weights of the model; those of a tied head once.
    pub parameters: u64,
    /// Bytes of the converted weights: a step for one sequence reads all of them, but of a table that is not the head's
    /// only some rows.
    pub weight_bytes: u64,
    /// Bytes of the embedding, where it is not the head.
    pub embedding_bytes: u64,
    /// Number of tensors by their type in the file.
    pub types: BTreeMap<String, usize>,
}

impl Estimate {
    /// Estimates the conversion of `checkpoint` to `precision`.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, precision: Precision) -> Self {
        let architecture = checkpoint.architecture();
        let [embedding, head] = [&architecture.embedding, &architecture.head.name].map(|name| name.weight());
        let mut estimate = Self { parameters: 0, weight_bytes: 0, embedding_bytes: 0, types: BTreeMap::new() };
        for tensor in architecture.tensors() {
            let values: usize = tensor.shape.iter().product();
            let bytes = match (precision, tensor.shape.as_slice()) {
                (Precision::Int4 | Precision::Int8, [outputs, inputs]) => {
                    let wide = precision == Precision::Int8 || tensor.name == embedding || tensor.name == head;
                    let bits = if wide { Bits::Eight } else { Bits::Four };
                    format_of(checkpoint, &tensor.name, bits).packed_len(*inputs, *outputs)
                }
                _ => values * size_of::<f32>(),
            };
            estimate.parameters += values as u64;
            estimate.weight_bytes += bytes as u64;
            if tensor.name == embedding && !architecture.head.tied {
                estimate.embedding_bytes = bytes as u64;
            }
            *estimate.types.entry(checkpoint.type_name(&tensor.name)).or_default() += 1;
        }
        // In F32 a tied head is a matrix of its own, in the order in which it is multiplied.
        if precision == Precision::F32 && architecture.head.tied {
            estimate.embedding_bytes = (architecture.vocab_size * architecture.hidden_size * size_of::<f32>()) as u64;
            estimate.weight_bytes += estimate.embedding_bytes;
        }
        estimate
    }
}
