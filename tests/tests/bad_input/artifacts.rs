//! Damaged model files and adapters.

use std::{fs, path::Path};

use anyhow::Result;
use slm_tests::{
    real,
    swarm::{Call, Folder, Swarm, adapter, base, quickstart_adapter, repository, run, slm},
};

const RUNTIME: &str = "precision: F32, contextLength: 128";

/// `slm up` over the base, an adapter and a damaged one: the message names the manifest and the artifact, and the others are
/// ready.
fn refused_adapter(folder: &Folder, artifact: &Path, parts: &[&str]) -> Result<()> {
    folder.write("smollm2", &base("smollm2", &real::gguf()?, RUNTIME))?;
    folder.write("banking", &adapter("banking", "smollm2", &quickstart_adapter("banking")))?;
    folder.write("damaged", &adapter("damaged", "smollm2", artifact))?;
    let swarm = Swarm::start(folder.path())?;
    for part in [&["LoraAdapter damaged", &artifact.display().to_string()], parts].concat() {
        swarm.until_said(part);
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let client = swarm.client()?;
        let answer = client.ask(&Call::new("banking", "put a freeze on my bank account right now")).await?;
        assert_eq!(answer.expert.name, "banking");
        let models = client.models().await?;
        assert!(models.iter().all(|model| model.ready == (model.name != "damaged")), "{models:?}");
        anyhow::Ok(())
    })?;
    let ended = swarm.stop()?;
    assert!(ended.status.success(), "{}", ended.said);
    Ok(())
}

#[test]
fn an_adapter_of_another_base() -> Result<()> {
    let other = repository().join("tests/parity/data/llama/adapters/r4-all");
    refused_adapter(&Folder::new()?, &other, &["adapter_model.safetensors", "tensor `"])
}

#[test]
fn an_adapter_with_a_value_that_is_no_number() -> Result<()> {
    let folder = Folder::new()?;
    let copy = folder.copy_adapter("banking", "nan")?;
    let file = copy.join("adapter_model.safetensors");
    let mut bytes = fs::read(&file)?;
    let data = 8 + header_length(&bytes);
    // All ones is a NaN in every floating-point type.
    bytes[data..data + 4].fill(0xff);
    fs::write(&file, bytes)?;
    refused_adapter(&folder, &copy, &["holds NaN at index 0"])
}

#[test]
fn a_truncated_safetensors_file() -> Result<()> {
    let folder = Folder::new()?;
    let copy = folder.copy_adapter("banking", "truncated")?;
    let file = copy.join("adapter_model.safetensors");
    let bytes = fs::read(&file)?;
    fs::write(&file, &bytes[..bytes.len() / 2])?;
    refused_adapter(
        &folder,
        &copy,
        &["adapter_model.safetensors", "tensor `", "of the data, which has", "the file is truncated"],
    )
}

#[test]
fn a_safetensors_header_larger_than_its_file() -> Result<()> {
    let folder = Folder::new()?;
    let copy = folder.copy_adapter("banking", "header")?;
    let file = copy.join("adapter_model.safetensors");
    let mut bytes = fs::read(&file)?;
    bytes[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    fs::write(&file, bytes)?;
    refused_adapter(&folder, &copy, &["adapter_model.safetensors", "header", "1099511627776"])
}

#[test]
fn a_truncated_gguf_file() -> Result<()> {
    let whole = fs::read(repository().join("convert/tests/fixtures/tiny.gguf"))?;
    let folder = Folder::new()?;
    let file = folder.path().join("cut.gguf");
    // In the magic, in the header, in the metadata, in the last tensor.
    for length in [2, 12, 200, whole.len() - 5] {
        fs::write(&file, &whole[..length])?;
        let mut command = slm(&["convert"])?;
        command.arg(&file).arg("-o").arg(folder.path().join(format!("cut-at-{length}")));
        run(command)?.assert_refused(1, &[&file.display().to_string()]);
    }
    folder.write("smollm2", &base("smollm2", &file, RUNTIME))?;
    let ended = Swarm::refused(folder.path(), &[], &[])?;
    ended.assert_refused(1, &["smollm2.yaml:", "SlmModel smollm2", &file.display().to_string()]);
    Ok(())
}

fn header_length(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize)
}
