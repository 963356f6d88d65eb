//! `gptq`: AutoGPTQ and GPTQModel, with or without activation order.
//!
//! | part | shape | content |
//! |---|---|---|
//! | `qweight` | `[inputs * bits / 32, outputs]` | a stream of bits down each column, lowest first |
//! | `qzeros` | `[groups, outputs * bits / 32]` | zero points, a stream along each row; minus one except in `gptq_v2` |
//! | `scales` | `[groups, outputs]` | |
//! | `g_idx` | `[inputs]` | group of each input; absent: groups one after the other |
//!
//! Formula: `scales * (quant - zero)`. A zero point that was stored minus one is within its bits again after the addition.

use super::levels::{Levels, even_groups, transposed};
use super::parts::Parts;
use super::values::{FLOATS, field, floats, words, words_for};
use super::{Method, PackedWeight};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::shards::Part;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const BITS: [usize; 4] = [2, 3, 4, 8];

#[derive(Debug)]
pub(super) struct Gptq {
    bits: usize,
    /// Inputs of a group; `None` for all.
    group: Option<usize>,
    /// Whether zero points are stored minus one.
    minus_one: bool,
}

impl Gptq {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        let bits = fields.size("bits")?;
        if !BITS.contains(&bits) {
            return Err(fields.unsupported("bits", "2, 3, 4, 8"));
        }
        // Some files have the older name.
        let key = if fields.has("checkpoint_format") { "checkpoint_format" } else { "format" };
        let minus_one = match fields.opt_text(key)?.unwrap_or("gptq") {
            "gptq" => true,
            "gptq_v2" => false,
            _ => return Err(fields.unsupported(key, "gptq, gptq_v2")),
        };
        fields.only_flag("is_marlin_format", false)?;
        if fields.get("dynamic").is_some_and(|dynamic| dynamic.as_object().is_none_or(|of| !of.is_empty())) {
            return Err(fields.unsupported("dynamic", "one setting for all modules"));
        }
        Ok(Self { bits, group: group_size(fields, "group_size")?, minus_one })
    }
}

/// Inputs of a group; -1 stands for all.
pub(super) fn group_size(fields: &Fields<'_>, key: &str) -> Result<Option<usize>, ConfigError> {
    match fields.opt_number(key)? {
        None => Ok(None),
        Some(-1.0) => Ok(None),
        Some(_) => match fields.size(key)? {
            0 => Err(fields.wrong(key, "a number of inputs, or -1 for all")),
            size => Ok(Some(size)),
        },
    }
}

impl Method for Gptq {
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError> {
        if parts.has("weight") {
            return Ok(None);
        }
        let (bits, size) = (self.bits, self.group.unwrap_or(inputs).max(1));
        let quants = parts.get("qweight")?.typed(&["I32"])?;
        if !inputs.saturating_mul(bits).is_multiple_of(32) {
            return Err(quants.bad(format!("cannot hold {inputs} inputs of {bits} bits in whole words")));
        }
        let quants = quants.shaped(&[&[inputs * bits / 32, outputs]], &format!("{bits} bits"))?;
        let groups = whole_groups(&quants, inputs, size)?;
        let why = format!("groups of {size} inputs");
        let zeros = parts.get("qzeros")?.typed(&["I32"])?.shaped(&[&[groups, words_for(outputs, bits)]], &why)?;
        let scales = parts.get("scales")?.typed(&FLOATS)?.shaped(&[&[groups, outputs]], &why)?;
        let of = match parts.find("g_idx") {
            Some(part) => listed_groups(part, inputs, groups)?,
            None => even_groups(inputs, size),
        };
        zero_bias(parts, outputs)?;
        let minus_one = self.minus_one;
        Ok(Some(Box::new(Weight { outputs, inputs, bits, quants, zeros, scales, of, minus_one })))
    }
}

/// Number of groups; an error unless they divide the inputs.
pub(super) fn whole_groups(part: &Part, inputs: usize, size: usize) -> Result<usize, CheckpointError> {
    if inputs.is_multiple_of(size) {
        return Ok(inputs / size);
    }
    Err(part.bad(format!("is for {inputs} inputs, which do not divide into groups of {size}")))
}

/// Group of each input, as the file lists it.
pub(super) fn listed_groups(part: Part, inputs: usize, groups: usize) -> Result<Vec<u32>, CheckpointError> {
    let part = part.typed(&["I32"])?.shaped(&[&[inputs]], "one group for each input")?;
    let of = words(&part);
    match of.iter().position(|group| *group as usize >= groups) {
        Some(input) => {
            let group = of[input].cast_signed();
            Err(part.bad(format!("puts input {input} into group {group} of {groups}")))
        }
        None => Ok(of),
    }
}

/// Takes a bias of zeros, which older packages add to layers that have none.
fn zero_bias(parts: &mut Parts<'_>, outputs: usize) -> Result<(), CheckpointError> {
    let Some(bias) = parts.peek("bias") else { return Ok(()) };
    if bias.shape() == [outputs] && bias.bytes().iter().all(|byte| *byte == 0) {
        parts.find("bias");
    }
    Ok(())
}

#[derive(Debug)]
struct Weight {
    outputs: usize,
    inputs: usize,
    bits: usize,
    quants: Part,
    zeros: Part,
    scales: Part,
    /// Group of each input.
    of: Vec<u32>,
    minus_one: bool,
}

impl Weight {
    fn read(&self) -> Levels {
        let (quants, zeros) = (words(&self.quants), words(&self.zeros));
        let (across, top) = (words_for(self.outputs, self.bits), (1 << self.bits) - 1);
        let zero = |group: usize, output: usize| {
            let stored = field(|word| zeros[group * across + word], output, self.bits);
            if self.minus_one { (stored + 1) & top } else { stored }
        };
        let mut levels = Vec::with_capacity(self.outputs * self.inputs);
        for output in 0..self.outputs {
            let zeros: Vec<i16> = (0..self.scales.shape()[0]).map(|group| zero(group, output)).collect();
            let word = |at: usize| quants[at * self.outputs + output];
            let level = |(input, group): (usize, &u32)| field(word, input, self.bits) - zeros[*group as usize];
            levels.extend(self.of.iter().enumerate().map(level));
        }
        let scales = transposed(&floats(&self.scales), self.outputs);
        Levels { outputs: self.outputs, inputs: self.inputs, levels, scales, groups: self.of.clone() }
    }
}

impl PackedWeight for Weight {
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
