//! `fp8`: 8-bit floats with scales for blocks, as DeepSeek and Qwen publish them, or for rows or the whole matrix.
//!
//! Formula: `weight * weight_scale_inv`; in spite of its name, the scale is multiplied.

use super::parts::Parts;
use super::scaled::Scaled;
use super::{Method, PackedWeight};
use crate::checkpoint::CheckpointError;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const KEY: &str = "weight_block_size";
/// Types of weights.
pub(super) const FLOATS_8: [&str; 2] = ["F8_E4M3", "F8_E5M2"];
/// Types of scales; the last two hold exponents of two.
const SCALES: [&str; 5] = ["F32", "F16", "BF16", "F8_E8M0", "U8"];

#[derive(Debug)]
pub(super) struct Fp8 {
    /// Rows and columns that share a scale.
    block: Option<[usize; 2]>,
    notes: Vec<String>,
}

impl Fp8 {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        let key = "activation_scheme";
        let note = || format!("{} is not used: it does not change weights", fields.path(key));
        let notes = fields.has(key).then(note).into_iter().collect();
        Ok(Self { block: rectangle(fields, KEY)?, notes })
    }
}

/// Two positive sizes.
pub(super) fn rectangle(fields: &Fields<'_>, key: &str) -> Result<Option<[usize; 2]>, ConfigError> {
    let Some(sizes) = fields.opt_numbers(key)? else { return Ok(None) };
    match sizes.as_slice() {
        [rows, columns] if *rows >= 1.0 && *columns >= 1.0 => Ok(Some([*rows as usize, *columns as usize])),
        _ => Err(fields.wrong(key, "the rows and columns of a block")),
    }
}

impl Method for Fp8 {
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError> {
        let kind = parts.weight_type();
        if !kind.starts_with("F8") {
            return Ok(None);
        }
        let weight = parts.get("weight")?.typed(&FLOATS_8)?.shaped(&[&[outputs, inputs]], "the configuration")?;
        let name = if parts.has("weight_scale") { "weight_scale" } else { "weight_scale_inv" };
        let scale = parts.get(name)?.typed(&SCALES)?;
        let (scale, block) = match self.block {
            Some([rows, columns]) => {
                let grid = [outputs.div_ceil(rows), inputs.div_ceil(columns)];
                (scale.shaped(&[&grid], &format!("blocks of {rows} x {columns}"))?, [rows, columns])
            }
            None => {
                let scale = scale.shaped(&[&[], &[1], &[1, 1], &[outputs], &[outputs, 1]], "one scale or one a row")?;
                let block = if scale.shape().iter().product::<usize>() == 1 { [outputs, inputs] } else { [1, inputs] };
                (scale, block)
            }
        };
        Ok(Some(Box::new(Scaled { inputs, weight, scale, divisor: None, block })))
    }
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
