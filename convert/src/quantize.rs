//! Quantisation of linear layers to 4 or 8 bits: exact where the file has such weights, else rounded.
//!
//! | in the file | requested 4 bits | requested 8 bits |
//! |---|---|---|
//! | GGUF Q4_0, Q4_1, Q5_0, Q4_K, Q5_K, Q6_K | exact | exact |
//! | GGUF Q8_0 | exact in a file that mixes types, else 4 bits with a minimum, blocks of 32 | exact |
//! | GGUF Q5_1 | 8 bits: the author chose more than 4 | 8 bits |
//! | other types of GGUF, floats | 4 bits with a minimum, blocks of 32 | 8 bits, blocks of 32 |
//! | GPTQ, AWQ, whole numbers of compressed-tensors: 2 to 6 bits | exact: 4 bits from -8 to 7, else 6 bits | exact |
//! | the same with 7 or 8 bits, LLM.int8 | 4 bits with a minimum, blocks of 32 | exact, or scales in f16; anew if outside of -128 to 127 |
//! | the same in activation order | 4 bits with a minimum, blocks of 32 | 8 bits, blocks of 32 |
//! | NF4, FP4, FP8 | 4 bits with a minimum, blocks of 32 | 8 bits, blocks of 32 |
//!
//! Matrices that are fused have a part for each format. Where a part would not end with a whole tile, they have one
//! format, which must hold all of them; see [`Stored::fit`].

use std::{array, cell::LazyCell};

use half::f16;
use slm_kernels::{BLOCK, Block, Format, Packed, TILE_COLUMNS};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Fit, Stored},
    graph::GraphError,
};

/// Width of a quantised weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Four,
    Eight,
}

/// Packs the tensors of these names, all `[outputs, inputs]` with equal inputs, as parts of one matrix with their outputs
/// side by side. The file's own bits take precedence over `bits`, as in the table.
pub(crate) fn quantize(checkpoint: &Checkpoint, names: &[String], bits: Bits) -> Result<Vec<Packed>, GraphError> {
    let plans: Vec<_> = names.iter().map(|name| Plan::of(checkpoint, &[name], bits)).collect();
    let mut parts: Vec<(Plan, Vec<&String>)> = Vec::new();
    for (plan, name) in plans.iter().zip(names) {
        match parts.last_mut() {
            Some((last, names)) if last == plan => names.push(name),
            _ => parts.push((*plan, vec![name])),
        }
    }
    let packed = parts.iter().map(|(plan, names)| plan.pack(checkpoint, names)).collect::<Result<Vec<_>, _>>()?;
    let ends_with_a_tile = |packed: &Packed| packed.weights().outputs().is_multiple_of(TILE_COLUMNS);
    if packed.iter().rev().skip(1).all(ends_with_a_tile) {
        return Ok(packed);
    }
    let names: Vec<_> = names.iter().collect();
    Ok(vec![Plan::of(checkpoint, &names, bits).pack(checkpoint, &names)?])
}

/// Packs matrices that need one format, such as those of experts, each of tensors with their outputs side by side; gives
/// their bytes one after the other. The format is that of one matrix of all these tensors.
pub(crate) fn quantize_alike(
    checkpoint: &Checkpoint,
    matrices: &[Vec<String>],
    bits: Bits,
) -> Result<(Format, Vec<u8>), GraphError> {
    let all: Vec<_> = matrices.iter().flatten().collect();
    let plan = Plan::of(checkpoint, &all, bits);
    let mut bytes = Vec::new();
    for matrix in matrices {
        bytes.extend_from_slice(plan.pack(checkpoint, &matrix.iter().collect::<Vec<_>>())?.bytes());
    }
    Ok((plan.format(), bytes))
}

/// Format of the tensor of that name when it is quantised alone.
pub(crate) fn format_of(checkpoint: &Checkpoint, name: &str, bits: Bits) -> Format {
    Plan::of(checkpoint, &[name], bits).format()
}

/// What is done to tensors that become one part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The file's own levels are taken over.
    Held(Format),
    Rounded(Bits),
}

impl Plan {
    fn of(checkpoint: &Checkpoint, names: &[impl AsRef<str>], bits: Bits) -> Self {
        let native = || names.iter().map(|name| checkpoint.native_bits(name.as_ref()));
        let mixes_types = LazyCell::new(|| mixes_types(checkpoint));
        let chosen_wider = |native: Option<u8>| matches!(native, Some(5 | 6)) || native == Some(8) && *mixes_types;
        let bits = if native().any(chosen_wider) { Bits::Eight } else { bits };
        let stored: Option<Vec<_>> = names.iter().map(|name| checkpoint.stored(name.as_ref())).collect();
        match stored.and_then(|stored| held_by(&stored, bits)) {
            Some(format) => Self::Held(format),
            None => Self::Rounded(bits),
        }
    }

    fn format(self) -> Format {
        match self {
            Self::Held(format) => format,
            Self::Rounded(Bits::Four) => Format::Q4Min32,
            Self::Rounded(Bits::Eight) => Format::Q8Scale32,
        }
    }

    fn pack(self, checkpoint: &Checkpoint, names: &[&String]) -> Result<Packed, GraphError> {
        match self {
            Self::Rounded(bits) => rounded(checkpoint, names, bits),
            Self::Held(format) => {
                let stored: Vec<_> = names.iter().filter_map(|name| checkpoint.stored(name)).collect();
                Ok(taken_over(&stored, format))
            }
        }
    }
}

/// Whether some layers of the decoder have fewer bits than others: then each has what its author chose. Of the experts of a
/// layer, which are alike, the first is looked at.
fn mixes_types(checkpoint: &Checkpoint) -> bool {
    let architecture = checkpoint.architecture();
    let linears = architecture.linears().filter_map(|(place, _)| Some(format!("{}.weight", architecture.path(place)?)));
    let experts = architecture.layers.iter().enumerate().flat_map(|(index, layer)| {
        let block = &layer.feed_forward;
        let within = block.experts.as_ref().map(|of| of.expert(0).within(&architecture.layer_prefix(index)));
        let weights =
            move |within| block.up.iter().chain([&block.down]).map(move |of| of.name.within(&within).weight());
        within.into_iter().flat_map(weights)
    });
    let mut bits = linears.chain(experts).filter_map(|name| checkpoint.native_bits(&name));
    let Some(first) = bits.next() else { return false };
    bits.any(|bits| bits != first)
}

/// The smallest format that holds all weights exactly; if there is none, the smallest that holds them nearly. Blocks of
/// GGUF keep theirs, but for 8 bits where fewer are requested.
fn held_by(stored: &[Stored<'_>], bits: Bits) -> Option<Format> {
    let own = stored.first()?.own_format();
    if let Some(own) = own.filter(|own| *own != Format::Q8Scale32 || bits == Bits::Eight)
        && stored.iter().all(|weight| weight.own_format() == Some(own))
    {
        return Some(own);
    }
    let formats: &[Format] = match bits {
        Bits::Four => &[Format::Q4Scale32, Format::Q4Min32, Format::Q6Scale32],
        Bits::Eight => &[Format::Q4Scale32, Format::Q4Min32, Format::Q6Scale32, Format::Q8Scale32],
    };
    let fits = formats.iter().map(|format| (*format, stored.iter().map(|weight| weight.fit(*format)).min()));
    let fits: Vec<_> = fits.collect();
    let with = |least: Fit| fits.iter().find(|(_, fit)| *fit == Some(least)).map(|(format, _)| *format);
    with(Fit::Exactly).or_else(|| with(Fit::Nearly))
}

fn taken_over(stored: &[Stored<'_>], format: Format) -> Packed {
    let rows: Vec<_> = stored.iter().flat_map(|weight| (0..weight.outputs()).map(move |row| (weight, row))).collect();
    let inputs = stored.first().map_or(0, Stored::inputs);
    Packed::pack(format, inputs, rows.len(), |column, index| {
        let (weight, row) = rows[column];
        weight.block(row, index, format)
    })
}

/// Quantises the dequantised tensors.
fn rounded(checkpoint: &Checkpoint, names: &[&String], bits: Bits) -> Result<Packed, GraphError> {
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

fn joined(checkpoint: &Checkpoint, names: &[&String]) -> Result<(Vec<f32>, usize), CheckpointError> {
    let (mut data, mut inputs) = (Vec::new(), 0);
    for name in names {
        let tensor = checkpoint.tensor(name)?;
        inputs = tensor.shape[1];
        data.extend_from_slice(&tensor.data);
    }
    Ok((data, inputs))
}

/// Sums computed in parallel.
const LANES: usize = 4;
/// Candidate scales: each spreads the range of the weights over 14 to 16 levels.
const SCALES: usize = 5;

/// Quantises a block to 4 bits with a minimum, with small errors where weights are large.
///
/// The search begins with sixteen levels from the smallest to the largest weight: exact at the ends, where few weights
/// are, and coarse in between. For each scale around that one, weights get their nearest levels, and the levels the
/// scale and minimum of a least-squares fit. The candidate with the least error wins, measured with scale and minimum
/// as stored. Errors are squared and weighted by magnitude; see [`Candidate::error`].
fn four_bits(weights: &[f32]) -> Block {
    let low = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let high = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Padding is zero, and so has no weight.
    let mut block = [0.0; BLOCK];
    block[..weights.len()].copy_from_slice(weights);
    let mut best = Candidate::new(&block, (high - low) / 15.0, low);
    for index in 0..SCALES {
        let levels = 14.0 + 2.0 * index as f32 / (SCALES - 1) as f32;
        let near = Candidate::new(&block, (high - low) / levels, low);
        let Some((scale, offset)) = least_squares(&block, &near.levels) else { continue };
        let fitted = Candidate::new(&block, scale, offset);
        if fitted.error < best.error {
            best = fitted;
        }
    }
    Block::new(best.scale, best.offset, best.levels.map(|level| level as u8))
}

/// A quantised block and its error.
struct Candidate {
    scale: f32,
    offset: f32,
    levels: [f32; BLOCK],
    /// Sum of squared errors, each times the weight's magnitude. For SmolLM2-135M's head in 4 bits, over five texts,
    /// perplexity grows by 4.0 % with this search and by 5.6 % without; with unweighted squares the search made it
    /// worse.
    error: f32,
}

impl Candidate {
    /// Every weight at the nearest of sixteen levels from `offset` on.
    fn new(weights: &[f32; BLOCK], scale: f32, offset: f32) -> Self {
        // Rounded as stored, so that levels fit what the kernels multiply with.
        let (offset, scale) = (stored(offset), stored(scale));
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const MAGIC: f32 = 12_582_912.0;
        let levels = weights.map(|weight| (((weight - offset) * inverse).clamp(0.0, 15.0) + MAGIC) - MAGIC);
        let [error] = sums(weights, &levels, |weight, level| {
            let off = weight - (scale * level + offset);
            [off * off * weight.abs()]
        });
        Self { scale, offset, levels, error }
    }
}

/// Least-squares scale and minimum for given levels, weighted by magnitude; `None` if all weights that count have one
/// level.
fn least_squares(weights: &[f32; BLOCK], levels: &[f32; BLOCK]) -> Option<(f32, f32)> {
    let [total, level_sum, level_squares, weight_sum, products] = sums(weights, levels, |weight, level| {
        let counts = weight.abs();
        [counts, counts * level, counts * level * level, counts * weight, counts * weight * level]
    });
    let spread = total * level_squares - level_sum * level_sum;
    let scale = (total * products - level_sum * weight_sum) / spread;
    (spread > 0.0 && scale > 0.0).then(|| (scale, (weight_sum - scale * level_sum) / total))
}

/// Sums of `of` over weights and levels, in independent lanes for speed.
#[inline(always)]
fn sums<const N: usize>(weights: &[f32; BLOCK], levels: &[f32; BLOCK], of: impl Fn(f32, f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0; N]; LANES];
    for (weights, levels) in weights.as_chunks::<LANES>().0.iter().zip(levels.as_chunks::<LANES>().0) {
        let terms: [[f32; N]; LANES] = array::from_fn(|lane| of(weights[lane], levels[lane]));
        for (sums, terms) in lanes.iter_mut().zip(terms) {
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term;
            }
        }
    }
    array::from_fn(|n| lanes.iter().map(|sums| sums[n]).sum())
}

fn stored(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

#[cfg(test)]
mod carried;

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i) as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    #[test]
    fn errors_in_8_bits_are_within_half_a_step() {
        for n in [32, 31, 1] {
            let weights = wave(n);
            let eight = Block::in_8_bits(&weights, 1.0);
            for (quant, weight) in eight.quants.iter().zip(&weights) {
                let back = eight.scale * (f32::from(*quant) - 128.0);
                // The ends are rounded to 16 bits too, and may be missed slightly.
                assert!((back - weight).abs() <= eight.scale / 2.0 + 2e-3 * 8.0, "{weight} became {back}");
            }
        }
    }

    #[test]
    fn levels_that_were_searched_for_are_better_than_the_nearest_from_end_to_end() {
        for n in [32, 31, 5] {
            let weights = wave(n);
            let (low, high) = weights.iter().fold((f32::MAX, f32::MIN), |(low, high), &w| (low.min(w), high.max(w)));
            let mut block = [0.0; BLOCK];
            block[..n].copy_from_slice(&weights);
            let plain = Candidate::new(&block, (high - low) / 15.0, low);
            let Block { scale, offset, quants, .. } = four_bits(&weights);
            let off =
                |(quant, weight): (&u8, &f32)| (weight - (scale * f32::from(*quant) + offset)).powi(2) * weight.abs();
            let error: f32 = quants.iter().zip(&weights).map(off).sum();
            assert!(error < plain.error, "{n}: {error}, plain {}", plain.error);
            // No weight is far from its value, even at the ends.
            for (quant, weight) in quants.iter().zip(&weights) {
                assert!((weight - (scale * f32::from(*quant) + offset)).abs() <= scale, "{weight} as {quant}");
            }
        }
    }

    #[test]
    fn levels_that_exist_are_found_again() {
        let weights: Vec<f32> = (0..32).map(|i| 0.125 * (i * 7 % 16) as f32 - 0.5).collect();
        let block = four_bits(&weights);
        assert_eq!((block.scale, block.offset, block.quants[1]), (0.125, -0.5, 7));
    }

    #[test]
    fn equal_weights_stay_what_they_are() {
        let block = four_bits(&[0.25; 32]);
        assert_eq!((block.scale, block.offset, block.quants[0]), (0.0, 0.25, 0));
        assert_eq!((Block::in_8_bits(&[0.0; 32], 1.0).scale, Block::in_8_bits(&[0.0; 32], 1.0).quants[0]), (0.0, 128));
    }

    #[test]
    fn types_without_a_kernel_of_their_own_are_rounded_to_the_bits_that_are_asked_for() {
        let name = "model.layers.0.self_attn.q_proj.weight".to_owned();
        let file = include_bytes!("../tests/fixtures/tiny.gguf");
        let stored = b"blk.0.attn_q.weight";
        let at = file.windows(stored.len()).position(|window| window == stored).unwrap();
        // Behind the name: the number of dimensions, two of them, and the type. Blocks of IQ4_NL are as large as those of Q4_0.
        let kind = at + stored.len() + 4 + 16;
        let dir = tempfile::tempdir().unwrap();
        for (code, bits, format) in [
            (2, Bits::Four, Format::Q4Scale32),
            (20, Bits::Four, Format::Q4Min32),
            (20, Bits::Eight, Format::Q8Scale32),
        ] {
            let mut bytes = file.to_vec();
            bytes[kind] = code;
            let path = dir.path().join("m.gguf");
            std::fs::write(&path, bytes).unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            assert_eq!(checkpoint.native_bits(&name), Some(4));
            let [packed] = quantize(&checkpoint, std::slice::from_ref(&name), bits).unwrap().try_into().unwrap();
            assert_eq!(packed.weights().format(), format, "type {code}");
            let (mut column, weights) = (vec![0.0; 32], checkpoint.tensor(&name).unwrap().data);
            packed.weights().column(0, &mut column);
            let largest = weights[..32].iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
            for (found, weight) in column.iter().zip(&weights) {
                assert!((found - weight).abs() <= largest / 8.0, "type {code}: {found}, {weight}");
            }
        }
    }
}
