//! Compiles the protocol with protox, so that no protoc has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// The files of each protocol, and the file of its descriptors.
const PROTOCOLS: [(&[&str], &str); 2] = [
    (
        &[
            "proto/slm/v1/egress.proto",
            "proto/slm/v1/embeddings.proto",
            "proto/slm/v1/generation.proto",
            "proto/slm/v1/tokens.proto",
            "proto/slm/v1/worker.proto",
        ],
        "descriptors.bin",
    ),
    (&["proto/inference/inference.proto"], "inference.bin"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for (files, name) in PROTOCOLS {
        let descriptors = protox::compile(files, ["proto"])?;
        fs::write(out.join(name), descriptors.encode_to_vec())?;
        tonic_prost_build::configure().compile_fds(descriptors)?;
    }
    Ok(())
}
