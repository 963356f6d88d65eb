//! Weights of a linear layer in 4 or 8 bits: taken over exactly where the file holds them so, else rounded.
//!
//! | in the file | asked for 4 bits | asked for 8 bits |
//! |---|---|---|
//! | Q4_0, Q4_1 | as they are | as they are |
//! | Q8_0 | 4 bits with a minimum, blocks of 32 | as they are |
//! | Q5_0, Q5_1, Q5_K, Q6_K | 8 bits: their author gave them more than 4 | 8 bits |
//! | Q4_K, floats | 4 bits with a minimum, blocks of 32 | 8 bits, blocks of 32 |
//!
//! Matrices that are joined into one have one format: that of the widest.

use half::f16;
use slm_kernels::{BLOCK, Block, Format, Packed, SourceError};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Stored},
    gguf::Kind,
    graph::GraphError,
};

/// Width of a quantised weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Four,
    Eight,
}

/// The tensors of these names, all `[outputs, inputs]` with as many inputs, as one matrix with their outputs side by
/// side. The file's own bits come before `bits`, as the table says.
pub(crate) fn quantize(checkpoint: &Checkpoint, names: &[String], bits: Bits) -> Result<Packed, GraphError> {
    let stored: Vec<_> = names.iter().filter_map(|name| checkpoint.stored(name)).collect();
    if let Some(take) = exactly(&stored, bits).filter(|_| stored.len() == names.len()) {
        return taken_over(&stored, take);
    }
    let wide = stored.iter().any(|stored| matches!(stored.kind.quantised_bits(), Some(5 | 6)));
    let bits = if wide { Bits::Eight } else { bits };
    let (data, inputs) = joined(checkpoint, names)?;
    let outputs = data.len() / inputs;
    let (format, round): (_, fn(&[f32]) -> Block) = match bits {
        Bits::Four => (Format::Q4Min32, four_bits),
        Bits::Eight => (Format::Q8Scale32, |weights| Block::in_8_bits(weights, 1.0)),
    };
    Ok(Packed::pack(format, inputs, outputs, |column, index| {
        let row = &data[column * inputs..][..inputs];
        let begin = index * BLOCK;
        round(&row[begin..inputs.min(begin + BLOCK)])
    }))
}

/// Takes bytes of a tensor, its inputs and its outputs.
type TakeOver = fn(&[u8], usize, usize) -> Result<Packed, SourceError>;

/// How the kernels read tensors as they stand in the file, when all are of one type that they know.
fn exactly(stored: &[Stored<'_>], bits: Bits) -> Option<TakeOver> {
    let kind = stored.first()?.kind;
    if stored.iter().any(|stored| stored.kind != kind) {
        return None;
    }
    match (kind, bits) {
        (Kind::Q4_0, _) => Some(Packed::from_q4_0),
        (Kind::Q4_1, _) => Some(Packed::from_q4_1),
        (Kind::Q8_0, Bits::Eight) => Some(Packed::from_q8_0),
        _ => None,
    }
}

fn taken_over(stored: &[Stored<'_>], take: TakeOver) -> Result<Packed, GraphError> {
    let bytes: Vec<u8> = stored.iter().flat_map(|stored| stored.bytes.iter().copied()).collect();
    let outputs = stored.iter().map(|stored| stored.shape[0]).sum();
    let inputs = stored.first().map_or(0, |stored| stored.shape[1]);
    Ok(take(&bytes, inputs, outputs)?)
}

fn joined(checkpoint: &Checkpoint, names: &[String]) -> Result<(Vec<f32>, usize), CheckpointError> {
    let (mut data, mut inputs) = (Vec::new(), 0);
    for name in names {
        let tensor = checkpoint.tensor(name)?;
        inputs = tensor.shape[1];
        data.extend_from_slice(&tensor.data);
    }
    Ok((data, inputs))
}

/// The smallest weight is level 0, the largest level 15.
fn four_bits(weights: &[f32]) -> Block {
    let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // As they will be stored: levels are chosen for what the kernels will multiply with.
    let (offset, scale) = (stored(low), stored((high - low) / 15.0));
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut quants = [0; BLOCK];
    for (quant, weight) in quants.iter_mut().zip(weights) {
        *quant = ((weight - offset) * inverse).round_ties_even().clamp(0.0, 15.0) as u8;
    }
    Block { scale, offset, quants }
}

fn stored(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    #[test]
    fn error_is_within_half_a_step() {
        for n in [32, 31, 1] {
            let weights = wave(n);
            let (four, eight) = (four_bits(&weights), Block::in_8_bits(&weights, 1.0));
            for (i, weight) in weights.iter().enumerate() {
                // The ends are rounded to 16 bits too, and so may be missed by a little.
                let rounding = 2e-3 * 8.0;
                let back = four.scale * f32::from(four.quants[i]) + four.offset;
                assert!((back - weight).abs() <= four.scale / 2.0 + rounding, "{weight} became {back}");
                let back = eight.scale * (f32::from(eight.quants[i]) - 128.0);
                assert!((back - weight).abs() <= eight.scale / 2.0 + rounding, "{weight} became {back}");
            }
        }
    }

    #[test]
    fn equal_weights_stay_what_they_are() {
        let block = four_bits(&[0.25; 32]);
        assert_eq!((block.scale, block.offset, block.quants[0]), (0.0, 0.25, 0));
        assert_eq!((Block::in_8_bits(&[0.0; 32], 1.0).scale, Block::in_8_bits(&[0.0; 32], 1.0).quants[0]), (0.0, 128));
    }
}
