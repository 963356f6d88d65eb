//! Schemes: how the weights of a group of modules are stored.

use crate::checkpoint::CheckpointError;
use crate::checkpoint::quantized::fp8::rectangle;
use crate::checkpoint::quantized::gptq::{group_size, whole_groups};
use crate::checkpoint::shards::Part;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const FORMATS: &str = "pack-quantized, int-quantized, float-quantized, naive-quantized, nvfp4-pack-quantized, \
                       mxfp4-pack-quantized, dense";

#[derive(Debug)]
pub(super) struct Scheme {
    pub(super) format: Format,
    pub(super) bits: usize,
    pub(super) symmetric: bool,
    strategy: Strategy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Whole numbers in words.
    Packed,
    /// Whole numbers in bytes.
    Integers,
    /// 8-bit floats.
    Floats,
    /// 4-bit floats; scales are exponents of two, or floats with a divisor.
    FloatPairs { exponents: bool },
}

/// What shares a scale.
#[derive(Debug, Clone, Copy)]
enum Strategy {
    Tensor,
    Channel,
    Group(usize),
    Block([usize; 2]),
}

impl Scheme {
    /// The scheme of a group; `None` if its weights are plain.
    pub(super) fn read(config: &Fields<'_>, group: &Fields<'_>) -> Result<Option<Self>, ConfigError> {
        let Some(weights) = group.opt_object("weights")? else { return Ok(None) };
        // A group's own format comes first: the common one is then `mixed-precision`.
        let of = if group.opt_text("format")?.is_some() { group } else { config };
        let is_float = match weights.opt_text("type")?.unwrap_or("int") {
            "int" => false,
            "float" => true,
            _ => return Err(weights.unsupported("type", "int, float")),
        };
        let format = match of.opt_text("format")?.ok_or_else(|| of.missing("format"))? {
            "dense" => return Ok(None),
            "pack-quantized" if !is_float => Format::Packed,
            "int-quantized" | "naive-quantized" if !is_float => Format::Integers,
            "float-quantized" | "naive-quantized" if is_float => Format::Floats,
            "nvfp4-pack-quantized" if is_float => Format::FloatPairs { exponents: false },
            "mxfp4-pack-quantized" if is_float => Format::FloatPairs { exponents: true },
            _ => return Err(of.unsupported("format", &format!("{FORMATS}, with weights of their type"))),
        };
        let bits = weights.opt_size("num_bits")?.unwrap_or(8);
        let (known, supported) = match format {
            Format::Packed | Format::Integers => ((2..=8).contains(&bits), "2 to 8"),
            Format::Floats => (bits == 8, "8"),
            Format::FloatPairs { .. } => (bits == 4, "4"),
        };
        if !known {
            return Err(weights.unsupported("num_bits", supported));
        }
        let symmetric = weights.opt_flag("symmetric")?.unwrap_or(true);
        if !symmetric && is_float {
            return Err(weights.unsupported("symmetric", "true"));
        }
        Ok(Some(Self { format, bits, symmetric, strategy: strategy(&weights)? }))
    }

    /// Rows and columns that share a scale.
    pub(super) fn rectangle(&self, [outputs, inputs]: [usize; 2]) -> [usize; 2] {
        match self.strategy {
            Strategy::Tensor => [outputs, inputs],
            Strategy::Channel => [1, inputs],
            Strategy::Group(size) => [1, size],
            Strategy::Block(block) => block,
        }
    }

    /// Checks that a part has one value for each scale.
    pub(super) fn scale(&self, part: Part, [outputs, inputs]: [usize; 2]) -> Result<Part, CheckpointError> {
        match self.strategy {
            Strategy::Tensor => part.shaped(&[&[1], &[], &[1, 1]], "one scale"),
            Strategy::Channel => part.shaped(&[&[outputs, 1], &[outputs]], "one scale a row"),
            Strategy::Group(size) => {
                let groups = whole_groups(&part, inputs, size)?;
                part.shaped(&[&[outputs, groups]], &format!("groups of {size} inputs"))
            }
            Strategy::Block([rows, columns]) => {
                let grid = [outputs.div_ceil(rows), inputs.div_ceil(columns)];
                part.shaped(&[&grid], &format!("blocks of {rows} x {columns}"))
            }
        }
    }
}

fn strategy(weights: &Fields<'_>) -> Result<Strategy, ConfigError> {
    let group = group_size(weights, "group_size")?;
    let named = weights.opt_text("strategy")?;
    // Without a strategy, the size of groups says it.
    match (named, group) {
        (Some("tensor"), _) => Ok(Strategy::Tensor),
        (Some("channel"), _) => Ok(Strategy::Channel),
        (Some("group" | "tensor_group") | None, Some(size)) => Ok(Strategy::Group(size)),
        (Some("group" | "tensor_group"), None) => Err(weights.missing("group_size")),
        (Some("block"), _) => {
            let key = "block_structure";
            rectangle(weights, key)?.map(Strategy::Block).ok_or_else(|| weights.missing(key))
        }
        (None, None) if weights.get("group_size").is_some() => Ok(Strategy::Channel),
        (None, None) => Ok(Strategy::Tensor),
        (Some(_), _) => Err(weights.unsupported("strategy", "tensor, channel, group, tensor_group, block")),
    }
}
