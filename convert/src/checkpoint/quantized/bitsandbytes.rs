//! `bitsandbytes`: NF4 and FP4 (QLoRA), and LLM.int8.
//!
//! | kind | formula |
//! |---|---|
//! | NF4, FP4 | `quant_map[quant] * absmax`, one maximum for each block of the flattened matrix, first weight in the high nibble |
//! | nested maxima | `absmax = nested_quant_map[quant] * nested_absmax + nested_offset` |
//! | LLM.int8 | `quant * SCB * (1 / 127)`, one `SCB` for each row |

use serde_json::{Map, Value};

use super::levels::{Levels, even_groups};
use super::parts::Parts;
use super::values::floats;
use super::{Method, PackedWeight};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::shards::Part;
use crate::fields;

/// Types that packed bytes may be stored as (`bnb_4bit_quant_storage`).
const STORAGE: [&str; 4] = ["U8", "F16", "BF16", "F32"];
/// Names of the settings of a weight, by its kind.
const STATES: [&str; 2] = ["weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4"];
/// Real settings have less than 200 bytes.
const STATE_BYTES_MAX: usize = 1 << 16;
/// Factor of scales; the package multiplies, too.
const INVERSE_127: f32 = 1.0 / 127.0;

#[derive(Debug)]
pub(super) struct BitsAndBytes;

impl Method for BitsAndBytes {
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        shape: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError> {
        if parts.has("SCB") || parts.weight_type() == "I8" {
            return Ok(Some(Box::new(EightBits::read(parts, shape)?)));
        }
        if parts.has("weight.absmax") || parts.weight_type() == "U8" {
            return Ok(Some(Box::new(FourBits::read(parts, shape)?)));
        }
        Ok(None)
    }
}

/// A matrix of NF4 or FP4.
#[derive(Debug)]
struct FourBits {
    count: usize,
    /// Two weights to a byte.
    weight: Part,
    /// Sixteen values.
    map: Part,
    absmax: Part,
    /// Weights with one maximum.
    block: usize,
    nested: Option<Nested>,
}

/// Maxima that are quantised to bytes themselves.
#[derive(Debug)]
struct Nested {
    /// 256 values.
    map: Part,
    absmax: Part,
    /// Maxima with one maximum.
    block: usize,
    offset: f32,
}

impl FourBits {
    fn read(parts: &mut Parts<'_>, [outputs, inputs]: [usize; 2]) -> Result<Self, CheckpointError> {
        let count = outputs.saturating_mul(inputs);
        let weight = parts.get("weight")?.typed(&STORAGE)?;
        let (bytes, expected) = (weight.bytes().len(), count.div_ceil(2));
        if bytes != expected {
            return Err(weight.bad(format!("has {bytes} bytes; {outputs} x {inputs} weights of 4 bits are {expected}")));
        }
        let map = parts.get("weight.quant_map")?.typed(&["F32"])?.shaped(&[&[16]], "4 bits")?;
        let (part, state) = state(parts)?;
        let wrong = |key: &str| part.bad(format!("has no usable `{key}`: {}", fields::shown(&state[key])));
        let size = |key: &str| state[key].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let block = size("blocksize").ok_or_else(|| wrong("blocksize"))?;
        if state["shape"] != serde_json::json!([outputs, inputs]) {
            let found = fields::shown(&state["shape"]);
            return Err(part.bad(format!("is for shape {found}; the configuration makes it [{outputs}, {inputs}]")));
        }
        let blocks = count.div_ceil(block);
        let absmax = parts.get("weight.absmax")?.shaped(&[&[blocks]], &format!("blocks of {block} weights"))?;
        let nested = if absmax.dtype() == "U8" {
            let block = size("nested_blocksize").ok_or_else(|| wrong("nested_blocksize"))?;
            let offset = state["nested_offset"].as_f64().ok_or_else(|| wrong("nested_offset"))? as f32;
            let map = parts.get("weight.nested_quant_map")?.typed(&["F32"])?.shaped(&[&[256]], "8 bits")?;
            let why = format!("blocks of {block} maxima");
            let absmax = parts.get("weight.nested_absmax")?.typed(&["F32"])?;
            let absmax = absmax.shaped(&[&[blocks.div_ceil(block)]], &why)?;
            Some(Nested { map, absmax, block, offset })
        } else {
            None
        };
        let absmax = if nested.is_some() { absmax } else { absmax.typed(&["F32"])? };
        Ok(Self { count, weight, map, absmax, block, nested })
    }

    fn maxima(&self) -> Vec<f32> {
        let Some(nested) = &self.nested else { return floats(&self.absmax) };
        let (map, maxima) = (floats(&nested.map), floats(&nested.absmax));
        let of = |(index, quant): (usize, &u8)| map[usize::from(*quant)] * maxima[index / nested.block] + nested.offset;
        self.absmax.bytes().iter().enumerate().map(of).collect()
    }
}

/// Settings of a weight, as JSON in a tensor of bytes.
fn state(parts: &mut Parts<'_>) -> Result<(Part, Value), CheckpointError> {
    let name = STATES.into_iter().find(|name| parts.has(name)).unwrap_or(STATES[0]);
    let part = parts.get(name)?.typed(&["U8"])?;
    if part.bytes().len() > STATE_BYTES_MAX {
        return Err(part.bad(format!("has {} bytes; settings have {STATE_BYTES_MAX} at most", part.bytes().len())));
    }
    let state = serde_json::from_slice::<Map<String, Value>>(part.bytes());
    let state = state.map_err(|error| part.bad(format!("is not a JSON object: {error}")))?;
    Ok((part, Value::Object(state)))
}

impl PackedWeight for FourBits {
    fn bits(&self) -> u8 {
        4
    }

    fn values(&self) -> Vec<f32> {
        let (map, maxima) = (floats(&self.map), self.maxima());
        let nibbles = self.weight.bytes().iter().flat_map(|byte| [byte >> 4, byte & 15]).take(self.count);
        nibbles.enumerate().map(|(index, quant)| map[usize::from(quant)] * maxima[index / self.block]).collect()
    }
}

/// A matrix of LLM.int8.
#[derive(Debug)]
struct EightBits {
    outputs: usize,
    inputs: usize,
    weight: Part,
    scale: Part,
}

impl EightBits {
    fn read(parts: &mut Parts<'_>, [outputs, inputs]: [usize; 2]) -> Result<Self, CheckpointError> {
        let weight = parts.get("weight")?.typed(&["I8"])?.shaped(&[&[outputs, inputs]], "the configuration")?;
        let scale = parts.get("SCB")?.typed(&["F32"])?.shaped(&[&[outputs]], "one scale a row")?;
        let format = parts.find("weight_format");
        if let Some(format) = format.filter(|part| part.bytes().first().is_some_and(|format| *format != 0)) {
            let problem = "is not 0: an order of rows for one GPU; load and save the model with a newer bitsandbytes";
            return Err(format.bad(problem));
        }
        Ok(Self { outputs, inputs, weight, scale })
    }
}

impl PackedWeight for EightBits {
    fn bits(&self) -> u8 {
        8
    }

    fn values(&self) -> Vec<f32> {
        let rows = self.weight.bytes().chunks(self.inputs.max(1)).zip(floats(&self.scale));
        let weight = |quant: u8, scale: f32| f32::from(quant.cast_signed()) * scale * INVERSE_127;
        rows.flat_map(|(row, scale)| row.iter().map(move |quant| weight(*quant, scale))).collect()
    }

    fn levels(&self) -> Option<Levels> {
        Some(Levels {
            outputs: self.outputs,
            inputs: self.inputs,
            levels: self.weight.bytes().iter().map(|quant| i16::from(quant.cast_signed())).collect(),
            scales: floats(&self.scale).into_iter().map(|scale| scale * INVERSE_127).collect(),
            groups: even_groups(self.inputs, self.inputs),
        })
    }
}
