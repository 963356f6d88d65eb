//! Weights that are whole numbers, in words or in bytes.
//!
//! In words, quants and zero points have half of their range added; a row is a stream of bits, lowest first, and so is a
//! column of zero points.

use super::scheme::{Format, Scheme};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::quantized::PackedWeight;
use crate::checkpoint::quantized::gptq::listed_groups;
use crate::checkpoint::quantized::levels::{Levels, even_groups};
use crate::checkpoint::quantized::parts::Parts;
use crate::checkpoint::quantized::values::{FLOATS, field, floats, words, words_for};
use crate::checkpoint::shards::Part;

#[derive(Debug)]
pub(super) struct Integers {
    outputs: usize,
    inputs: usize,
    bits: usize,
    /// I32 for words, I8 for bytes.
    quants: Part,
    /// I32 for words, I8 for bytes; `None` if they are all zero.
    zeros: Option<Part>,
    /// Row-major, one for each rectangle.
    scales: Part,
    /// Rows and columns of a rectangle.
    block: [usize; 2],
    /// Group of each input.
    of: Vec<u32>,
}

/// Reads and checks the parts of a weight.
pub(super) fn read(
    scheme: &Scheme,
    parts: &mut Parts<'_>,
    [outputs, inputs]: [usize; 2],
) -> Result<Integers, CheckpointError> {
    let bits = scheme.bits;
    let quants = if scheme.format == Format::Packed {
        let across = words_for(inputs, bits);
        let quants = parts.get("weight_packed")?.typed(&["I32"])?;
        let quants = quants.shaped(&[&[outputs, across]], &format!("{inputs} inputs of {bits} bits"))?;
        check_shape(parts.get("weight_shape")?, [outputs, inputs])?;
        quants
    } else {
        parts.get("weight")?.typed(&["I8"])?.shaped(&[&[outputs, inputs]], "the configuration")?
    };
    let scales = scheme.scale(parts.get("weight_scale")?.typed(&FLOATS)?, [outputs, inputs])?;
    let block @ [rows, columns] = scheme.rectangle([outputs, inputs]);
    let across = inputs.div_ceil(columns);
    let zeros = if scheme.symmetric {
        // Some versions write it even though it is zero.
        let zeros = parts.find("weight_zero_point");
        if let Some(part) = zeros.filter(|part| part.bytes().iter().any(|byte| *byte != 0)) {
            return Err(part.bad("is not zero, although the weights are symmetric"));
        }
        None
    } else {
        // Only those of rows are packed.
        let types: &[&str] = if rows == 1 { &["I32", "I8"] } else { &["I8"] };
        let zeros = parts.get("weight_zero_point")?.typed(types)?;
        Some(if zeros.dtype() == "I32" {
            let down = words_for(outputs, bits);
            zeros.shaped(&[&[down, across]], &format!("{outputs} outputs of {bits} bits"))?
        } else {
            scheme.scale(zeros, [outputs, inputs])?
        })
    };
    let listed = parts.find("weight_g_idx");
    // A list that begins with -1 was never filled: groups stand one after the other.
    let listed = listed.filter(|part| part.bytes().first_chunk() != Some(&[255; 4]));
    let of = match listed {
        Some(part) if rows == 1 => listed_groups(part, inputs, across)?,
        Some(part) => return Err(part.bad("lists groups, although the scales are not for groups")),
        None => even_groups(inputs, columns),
    };
    Ok(Integers { outputs, inputs, bits, quants, zeros, scales, block, of })
}

/// The shape that a tensor says must be that of the configuration.
fn check_shape(part: Part, shape: [usize; 2]) -> Result<(), CheckpointError> {
    let part = part.typed(&["I64", "I32"])?.shaped(&[&[2]], "rows and columns")?;
    let found: Vec<i64> = match part.dtype() {
        "I64" => part.bytes().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        _ => words(&part).into_iter().map(|word| i64::from(word.cast_signed())).collect(),
    };
    if found == shape.map(|size| size as i64) {
        return Ok(());
    }
    Err(part.bad(format!("is {found:?}; the configuration makes the weight {shape:?}")))
}

impl Integers {
    /// `[outputs, inputs]`, without zero points.
    fn quants(&self) -> Vec<i16> {
        if self.quants.dtype() == "I8" {
            return signed(&self.quants);
        }
        let (words, middle) = (words(&self.quants), 1 << (self.bits - 1));
        let rows = words.chunks(words_for(self.inputs, self.bits).max(1));
        let unpack = |row| (0..self.inputs).map(move |input| unpacked(row, input, self.bits) - middle);
        rows.flat_map(unpack).collect()
    }

    /// One for each rectangle.
    fn zero_points(&self, across: usize) -> Vec<i16> {
        match &self.zeros {
            None => vec![0; self.scales.shape().iter().product()],
            Some(part) if part.dtype() == "I8" => signed(part),
            Some(part) => {
                let (words, middle) = (words(part), 1 << (self.bits - 1));
                let zero = |output: usize, group: usize| {
                    field(|word| words[word * across + group], output, self.bits) - middle
                };
                (0..self.outputs).flat_map(|output| (0..across).map(move |group| zero(output, group))).collect()
            }
        }
    }
}

fn unpacked(words: &[u32], index: usize, bits: usize) -> i16 {
    field(|word| words[word], index, bits)
}

fn signed(part: &Part) -> Vec<i16> {
    part.bytes().iter().map(|byte| i16::from(byte.cast_signed())).collect()
}

impl Integers {
    fn read(&self) -> Levels {
        let [rows, columns] = self.block;
        let across = self.inputs.div_ceil(columns.max(1));
        let (mut levels, zeros, scales) = (self.quants(), self.zero_points(across), floats(&self.scales));
        // A rectangle of several rows becomes one group in each of them.
        let mut spread = Vec::with_capacity(self.outputs * across);
        for (output, row) in levels.chunks_mut(self.inputs.max(1)).enumerate() {
            let first = output / rows.max(1) * across;
            for (level, group) in row.iter_mut().zip(&self.of) {
                *level -= zeros[first + *group as usize];
            }
            spread.extend_from_slice(&scales[first..first + across]);
        }
        Levels { outputs: self.outputs, inputs: self.inputs, levels, scales: spread, groups: self.of.clone() }
    }
}

impl PackedWeight for Integers {
    fn bits(&self) -> u8 {
        self.bits as u8
    }

    fn values(&self) -> Vec<f32> {
        self.read().values()
    }

    fn levels(&self) -> Option<Levels> {
        Some(self.read())
    }
}
