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
    assert!(stderr.contains("model.yaml:6: SlmModel tiny: /nowhere/tiny.gguf is not there: put it there"), "{stderr}");
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

/// Files that are missing, in another place or not what they are called: found before any worker is asked.
#[test]
fn an_adapter_whose_files_cannot_be_used_is_told_and_the_rest_serves() {
    let folder = Folder::with_model();
    folder.put_adapter("r4-all");
    folder.write("good.yaml", &adapter("good", "adapter"));
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 60776\n";
    let put = |name: &str, files: &[(&str, Option<&str>)]| {
        let target = folder.path().join(name);
        std::fs::create_dir_all(&target).expect("a folder");
        for (file, text) in files {
            match text {
                Some(text) => std::fs::write(target.join(file), text).expect("written"),
                None => std::fs::copy(family().join("adapters/r4-all").join(file), target.join(file))
                    .map(drop)
                    .expect("copied"),
            }
        }
        folder.write(&format!("{name}.yaml"), &adapter(name, name));
    };
    let (config, weights) = ("adapter_config.json", "adapter_model.safetensors");
    put("lfs-weights", &[(config, None), (weights, Some(lfs))]);
    put("lfs-config", &[(config, Some(lfs)), (weights, None)]);
    put("bin", &[(config, None), ("adapter_model.bin", Some("x"))]);
    put("empty", &[]);
    put("no-weights", &[(config, None)]);
    put("no-config", &[(weights, None)]);
    put("dangling", &[(config, None)]);
    std::os::unix::fs::symlink("/nowhere", folder.path().join("dangling").join(weights)).expect("a link");
    folder.write("gone.yaml", &adapter("gone", "nowhere"));
    let broken = ["lfs-weights", "lfs-config", "bin", "empty", "no-weights", "no-config", "dangling", "gone"];

    let mut up = Up::ready(&folder);
    let entry = up.entry("good").expect("the good one");
    assert_eq!(entry["ready"], true, "{entry}");
    let (status, readyz) = up.ask("GET", "/readyz", "");
    assert_eq!((status, &readyz["ready"]), (503, &serde_json::json!(false)), "{readyz}");
    let missing = readyz["missing"].as_array().expect("a list");
    for name in broken {
        let problem = up.said(&format!("LoraAdapter {name}: "));
        assert!(problem.contains(&format!("{name}.yaml:8: ")), "{problem}");
        let entry =
            missing.iter().find(|missing| missing["name"] == name).unwrap_or_else(|| panic!("{name}: {readyz}"));
        let why = entry["why"].as_str().expect("a reason");
        assert!(why.starts_with(&format!("adapter `{name}` cannot be loaded: ")), "{why}");
    }
    assert_eq!(missing.len(), broken.len(), "{readyz}");

    // Who asks for one hears so at once, and need not try again.
    let (status, refused) = up.ask("POST", "/v1/completions", r#"{"model": "bin", "prompt": "a", "max_tokens": 1}"#);
    let error = &refused["error"];
    assert_eq!((status, &error["code"]), (400, &serde_json::json!("adapter_not_loadable")), "{refused}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("adapter_model.bin")), "{refused}");

    // One that is added is told as well, and one that is mended is served.
    put("later", &[(config, None)]);
    assert!(up.wait_for("LoraAdapter later: ").contains("keeping what runs now"));
    for file in [config, weights] {
        let beside = folder.path().join("beside");
        std::fs::copy(family().join("adapters/r4-all").join(file), &beside).expect("copied");
        std::fs::rename(&beside, folder.path().join("empty").join(file)).expect("renamed");
    }
    assert!(up.wait_for("applied generation=").contains("+LoraAdapter empty"));
    let (_, readyz) = up.ask("GET", "/readyz", "");
    let missing: Vec<_> = readyz["missing"].as_array().into_iter().flatten().map(|missing| &missing["name"]).collect();
    assert!(
        missing.contains(&&serde_json::json!("later")) && !missing.contains(&&serde_json::json!("empty")),
        "{readyz}"
    );
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
