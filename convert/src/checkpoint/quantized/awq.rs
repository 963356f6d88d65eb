//! `awq`: AutoAWQ's layout for matrix-matrix products, `gemm`.
//!
//! | part | shape | content |
//! |---|---|---|
//! | `qweight` | `[inputs, outputs / 8]` | eight outputs to a word, in the order of [`ORDER`] |
//! | `qzeros` | `[groups, outputs / 8]` | zero points, likewise |
//! | `scales` | `[groups, outputs]` | |
//!
//! Formula: `scales * (quant - zero)`.

use super::gptq::{group_size, whole_groups};
use super::levels::{Levels, even_groups, transposed};
use super::parts::Parts;
use super::values::{FLOATS, floats, words};
use super::{Method, PackedWeight};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::shards::Part;
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Output of each nibble of a word, lowest first.
const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

#[derive(Debug)]
pub(super) struct Awq {
    /// Inputs of a group; `None` for all.
    group: Option<usize>,
}

impl Awq {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        // Names in config.json, and in AutoAWQ's own file.
        let bits = if fields.has("bits") { "bits" } else { "w_bit" };
        if fields.size(bits)? != 4 {
            return Err(fields.unsupported(bits, "4"));
        }
        // The first name is AutoAWQ's, the others are GPTQModel's.
        for key in ["version", "checkpoint_format", "format"] {
            if fields.opt_text(key)?.is_some_and(|layout| !layout.eq_ignore_ascii_case("gemm")) {
                return Err(fields.unsupported(key, "gemm"));
            }
        }
        let group = if fields.has("q_group_size") { "q_group_size" } else { "group_size" };
        Ok(Self { group: group_size(fields, group)? })
    }
}

impl Method for Awq {
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError> {
        if parts.has("weight") {
            return Ok(None);
        }
        let size = self.group.unwrap_or(inputs).max(1);
        let quants = parts.get("qweight")?.typed(&["I32"])?;
        if !outputs.is_multiple_of(ORDER.len()) {
            return Err(quants.bad(format!("cannot hold {outputs} outputs in words of {}", ORDER.len())));
        }
        let across = outputs / ORDER.len();
        let quants = quants.shaped(&[&[inputs, across]], "4 bits")?;
        let groups = whole_groups(&quants, inputs, size)?;
        let why = format!("groups of {size} inputs");
        let zeros = parts.get("qzeros")?.typed(&["I32"])?.shaped(&[&[groups, across]], &why)?;
        let scales = parts.get("scales")?.typed(&FLOATS)?.shaped(&[&[groups, outputs]], &why)?;
        Ok(Some(Box::new(Weight { outputs, inputs, size, quants, zeros, scales })))
    }
}

#[derive(Debug)]
struct Weight {
    outputs: usize,
    inputs: usize,
    /// Inputs of a group.
    size: usize,
    quants: Part,
    zeros: Part,
    scales: Part,
}

impl Weight {
    fn read(&self) -> Levels {
        let (quants, zeros, groups) =
            (nibbles(&self.quants), nibbles(&self.zeros), even_groups(self.inputs, self.size));
        let level = |(quants, group): (&[i16], &u32)| {
            let zeros = &zeros[*group as usize * self.outputs..][..self.outputs];
            quants.iter().zip(zeros).map(|(quant, zero)| quant - zero).collect::<Vec<_>>()
        };
        let levels: Vec<i16> = quants.chunks(self.outputs.max(1)).zip(&groups).flat_map(level).collect();
        Levels {
            outputs: self.outputs,
            inputs: self.inputs,
            levels: transposed(&levels, self.outputs),
            scales: transposed(&floats(&self.scales), self.outputs),
            groups,
        }
    }
}

/// `[rows, outputs]`, in order.
fn nibbles(part: &Part) -> Vec<i16> {
    let unpack = |word: u32| {
        let mut outputs = [0; ORDER.len()];
        for (nibble, output) in ORDER.into_iter().enumerate() {
            outputs[output] = (word >> (4 * nibble) & 15) as i16;
        }
        outputs
    };
    words(part).into_iter().flat_map(unpack).collect()
}

impl PackedWeight for Weight {
    fn bits(&self) -> u8 {
        4
    }

    fn values(&self) -> Vec<f32> {
        self.read().values()
    }

    fn levels(&self) -> Option<Levels> {
        Some(self.read())
    }
}
