//! Many adapters made of one: the same configuration and sizes, other matrices.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Writes variant `number` of the PEFT adapter in the folder `of` into the folder `into`: half of the numbers of its matrices B,
/// chosen by `number`, have the other sign.
///
/// # Errors
/// A file cannot be read or written, or its tensors are of no type of floats.
pub fn write_variant(of: &Path, into: &Path, number: u64) -> Result<()> {
    fs::create_dir_all(into)?;
    fs::copy(of.join(CONFIG), into.join(CONFIG))?;
    let mut file = fs::read(of.join(WEIGHTS))?;
    let length = file.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)).context("a header's length")?;
    let data = 8 + usize::try_from(length)?;
    let header: Value = serde_json::from_slice(file.get(8..data).context("a header")?)?;
    let mut random = StdRng::seed_from_u64(number);
    for (name, tensor) in header.as_object().context("tensors")?.iter().filter(|(name, _)| name.contains("lora_B")) {
        let size = match tensor["dtype"].as_str() {
            Some("F32") => 4,
            Some("F16" | "BF16") => 2,
            other => anyhow::bail!("{name} has the type {other:?}"),
        };
        let offset = |end: usize| tensor["data_offsets"][end].as_u64().and_then(|at| usize::try_from(at).ok());
        let [begin, end] = [0, 1].map(offset).map(|at| at.map(|at| data + at));
        let range = begin.context("an offset")?..end.context("an offset")?;
        ensure!(range.end <= file.len(), "{name} ends beyond the file");
        // Little-endian: the sign is in the last byte.
        for sign in file[range].iter_mut().skip(size - 1).step_by(size) {
            *sign ^= u8::from(random.random::<bool>()) << 7;
        }
    }
    fs::write(into.join(WEIGHTS), file)?;
    Ok(())
}
