//! `compressed-tensors`: what llm-compressor writes. Groups of modules have a scheme each.
//!
//! | format | weights |
//! |---|---|
//! | `pack-quantized` | whole numbers of 2 to 8 bits in words |
//! | `int-quantized`, `naive-quantized` | whole numbers in bytes |
//! | `float-quantized`, `naive-quantized` | 8-bit floats |
//! | `nvfp4-pack-quantized`, `mxfp4-pack-quantized` | pairs of 4-bit floats |
//!
//! Formula: `(quant - zero_point) * scale`; in NVFP4 `quant * (scale / global_scale)`.

mod integers;
mod scheme;

use super::fp8::FLOATS_8;
use super::modules::Modules;
use super::parts::Parts;
use super::scaled::Scaled;
use super::values::FLOATS;
use super::{Method, PackedWeight};
use crate::architecture::Architecture;
use crate::checkpoint::CheckpointError;
use crate::config_error::ConfigError;
use crate::fields::Fields;
use scheme::{Format, Scheme};

#[derive(Debug)]
pub(super) struct CompressedTensors {
    groups: Vec<Group>,
    /// Modules that have no scheme, whatever the groups say.
    ignore: Modules,
    /// Name of the embedding, whose class is another one.
    embedding: String,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Group {
    targets: Modules,
    scheme: Scheme,
}

impl CompressedTensors {
    pub(super) fn read(fields: &Fields<'_>, architecture: &Architecture) -> Result<Self, ConfigError> {
        let key = "transform_config";
        if fields.opt_object(key)?.is_some_and(|transforms| transforms.keys().next().is_some()) {
            return Err(fields.unsupported(key, "none: weights without rotations"));
        }
        if let Some(sparsity) = fields.opt_object("sparsity_config")?
            && sparsity.opt_text("format")?.is_some_and(|format| format != "dense")
        {
            return Err(sparsity.unsupported("format", "dense"));
        }
        let (mut groups, mut notes) = (Vec::new(), Vec::new());
        let key = "config_groups";
        let all = fields.opt_object(key)?.ok_or_else(|| fields.missing(key))?;
        for name in all.keys() {
            let group = all.opt_object(name)?.ok_or_else(|| all.missing(name))?;
            for key in ["input_activations", "output_activations"] {
                if group.has(key) && group.opt_object(key)?.is_some() {
                    notes.push(format!("{} is not used: it does not change weights", group.path(key)));
                }
            }
            if let Some(scheme) = Scheme::read(fields, &group)? {
                groups.push(Group { targets: Modules::read(&group, "targets")?, scheme });
            }
        }
        let key = "kv_cache_scheme";
        if fields.opt_object(key)?.is_some() {
            notes.push(format!("{} is not used: it does not change weights", fields.path(key)));
        }
        let ignore = Modules::read(fields, "ignore")?;
        Ok(Self { groups, ignore, embedding: architecture.embedding.hf.clone(), notes })
    }

    /// The scheme of a module: that of the group with the most specific target.
    fn scheme(&self, module: &str) -> Result<Option<&Scheme>, ConfigError> {
        let class = if module == self.embedding { "Embedding" } else { "Linear" };
        let mut best = None;
        if self.ignore.best(module, class)?.is_some() {
            return Ok(None);
        }
        for group in &self.groups {
            if let Some(found) = group.targets.best(module, class)?
                && best.is_none_or(|(other, _)| found < other)
            {
                best = Some((found, &group.scheme));
            }
        }
        Ok(best.map(|(_, scheme)| scheme))
    }
}

impl Method for CompressedTensors {
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        shape: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError> {
        let Some(scheme) = self.scheme(parts.module)? else { return Ok(None) };
        // A model that was not compressed, and a head that was left out, have floats under the plain name.
        if FLOATS.contains(&parts.weight_type().as_str()) && !parts.has("weight_scale") {
            return Ok(None);
        }
        Ok(Some(match scheme.format {
            Format::Packed | Format::Integers => Box::new(integers::read(scheme, parts, shape)?),
            Format::Floats => Box::new(eight_bit_floats(scheme, parts, shape)?),
            Format::FloatPairs { exponents } => Box::new(float_pairs(scheme, parts, shape, exponents)?),
        }))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

fn eight_bit_floats(
    scheme: &Scheme,
    parts: &mut Parts<'_>,
    [outputs, inputs]: [usize; 2],
) -> Result<Scaled, CheckpointError> {
    let weight = parts.get("weight")?.typed(&FLOATS_8)?.shaped(&[&[outputs, inputs]], "the configuration")?;
    let block = scheme.rectangle([outputs, inputs]);
    let scale = scheme.scale(parts.get("weight_scale")?.typed(&FLOATS)?, [outputs, inputs])?;
    Ok(Scaled { inputs, weight, scale, divisor: None, block })
}

/// Pairs of 4-bit floats; scales are exponents of two, or 8-bit floats over a divisor.
fn float_pairs(
    scheme: &Scheme,
    parts: &mut Parts<'_>,
    [outputs, inputs]: [usize; 2],
    exponents: bool,
) -> Result<Scaled, CheckpointError> {
    let weight = parts.get("weight_packed")?.typed(&["U8"])?;
    let weight = weight.shaped(&[&[outputs, inputs.div_ceil(2)]], "pairs of inputs")?;
    if !inputs.is_multiple_of(2) {
        return Err(weight.bad(format!("cannot hold {inputs} inputs in pairs")));
    }
    let block = scheme.rectangle([outputs, inputs]);
    let types: &[&str] = if exponents { &["U8", "F8_E8M0"] } else { &["F8_E4M3"] };
    let scale = scheme.scale(parts.get("weight_scale")?.typed(types)?, [outputs, inputs])?;
    let divisor = if exponents {
        None
    } else {
        Some(parts.get("weight_global_scale")?.typed(&["F32"])?.shaped(&[&[1], &[]], "one divisor")?)
    };
    Ok(Scaled { inputs, weight, scale, divisor, block })
}
