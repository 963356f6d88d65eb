//! Swarms that cannot run: each says the object, the place and the reason, and ends with the right exit code.

use std::{net::TcpListener, path::Path};

use super::harness::{Folder, Up, adapter, family, model, output, slm};

fn up(folder: &Path) -> (i32, String, String) {
    output(slm().args(["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"]).arg(folder))
}

#[test]
fn invalid_manifests_are_exit_code_2_and_all_problems_are_named() {
    let folder = Folder::new();
    folder.write("a.yaml", &model(&family()).replace("uri:", "uir:"));
    folder.write("b.yaml", &adapter("banking", "adapter").replace("name: tiny", "name: tinny"));
    let (code, stdout, stderr) = up(folder.path());
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(
        stderr.contains("a.yaml:7: SlmModel tiny: spec.source.uir: unknown field; did you mean `uri`?"),
        "{stderr}"
    );
    assert!(
        stderr.contains("b.yaml:7: LoraAdapter banking: spec.modelRef.name: no SlmModel is named `tinny`"),
        "{stderr}"
    );
}

#[test]
fn a_folder_that_is_not_there() {
    let (code, _, stderr) = up(Path::new("/nowhere/at/all"));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("/nowhere/at/all: cannot be read: "), "{stderr}");
}

#[test]
fn files_that_are_not_there() {
    let folder = Folder::new();
    folder.write("model.yaml", &model(Path::new("/nowhere/tiny.gguf")));
    let (code, _, stderr) = up(folder.path());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("model.yaml:6: SlmModel tiny: /nowhere/tiny.gguf: "), "{stderr}");
}

#[test]
fn another_digest_than_the_manifest_says() {
    let folder = Folder::new();
    let digest = format!("sha256:{}", "0".repeat(64));
    folder.write("model.yaml", &model(&family()).replace("  runtime:", &format!("    digest: {digest}\n  runtime:")));
    let (code, _, stderr) = up(folder.path());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(&format!("but the manifest says {digest}")), "{stderr}");
}

#[test]
fn an_adapter_that_cannot_be_applied_is_told_and_the_rest_serves() {
    let folder = Folder::with_model();
    let dora = family().join("adapters/dora");
    folder.write("expert.yaml", &adapter("expert", &format!("//{}", dora.display())));
    let mut up = Up::ready(&folder);
    let problem = up.wait_for("LoraAdapter expert: ");
    assert!(problem.contains("dora"), "{problem}");
    let served = up.get().to_string();
    assert!(served.contains("\"tiny\""), "{served}");
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = Folder::with_model();
    for [mine, other] in [["--http", "--grpc"], ["--grpc", "--http"]] {
        let flags = ["up", mine, &address, other, "127.0.0.1:0", "-f"];
        let (code, stdout, stderr) = output(slm().args(flags).arg(folder.path()));
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(&format!("address {address} is in use")), "{stderr}");
    }
}

#[test]
fn without_onnx_runtime() {
    let folder = Folder::with_model();
    let run = ["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "-f"];
    let (code, _, stderr) =
        output(slm().args(run).arg(folder.path()).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so"));
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("SlmModel tiny: ORT_DYLIB_PATH=/nowhere/libonnxruntime.so: no such file"), "{stderr}");
}
