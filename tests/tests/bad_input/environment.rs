//! Faults around a swarm: manifests, ports, ONNX Runtime.

use std::net::TcpListener;

use anyhow::Result;
use slm_tests::swarm::{Folder, Swarm};

const RUNTIME: &str = "precision: F32, contextLength: 128";

#[test]
fn a_misspelt_field() -> Result<()> {
    let folder = Folder::quickstart("precison: F32")?;
    let ended = Swarm::refused(folder.path(), &[], &[])?;
    ended.assert_refused(
        2,
        &["smollm2.yaml:8:", "SlmModel smollm2", "spec.runtime.precison", "did you mean `precision`?"],
    );
    Ok(())
}

#[test]
fn a_port_in_use() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for flag in ["--http", "--grpc"] {
        let ended = Swarm::refused(folder.path(), &[flag, &address], &[])?;
        ended.assert_refused(1, &[&address, "in use"]);
    }
    Ok(())
}

#[test]
fn a_missing_onnx_runtime() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    let ended = Swarm::refused(folder.path(), &[], &[("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so")])?;
    ended.assert_refused(1, &["ORT_DYLIB_PATH=/nowhere/libonnxruntime.so", "no such file", "version 1.24 or newer"]);
    Ok(())
}
