//! Artifacts in a real registry, as the tools of this world push them.

use std::fs;

use serde_json::{Value, json};
use slm_artifacts::{Phase, Progress, Source};

use crate::{
    common::{bytes, entries, fetch, gzip, names, phases, sha256, store, tar},
    registry::{INDEX, MANIFEST, Registry, USER},
};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn title(name: &str) -> Value {
    json!({"org.opencontainers.image.title": name})
}

#[tokio::test]
async fn as_oras_pushes_files() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let weights = bytes(300_000, 1);
    let layers = vec![
        registry.blob("team/lora", LAYER, b"{}", title("adapter_config.json")).await,
        registry.blob("team/lora", "application/x.weights", &weights, title("adapter_model.safetensors")).await,
    ];
    let manifest = registry.artifact("team/lora", "v1", layers).await;
    let store = store(dir.path());
    let (artifact, seen) = phases(&store, &Source::new(registry.uri("team/lora:v1"))).await;
    let artifact = artifact.unwrap();
    assert_eq!(seen, [Phase::Resolving, Phase::Downloading]);
    assert_eq!(artifact.digest(), manifest["digest"].as_str());
    assert_eq!(names(artifact.path()), ["adapter_config.json", "adapter_model.safetensors"]);
    assert_eq!(fs::read(artifact.path().join("adapter_model.safetensors")).unwrap(), weights);
    assert_eq!(artifact.bytes(), Some(300_002));
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn as_oras_pushes_a_folder() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let folder = gzip(&tar(&[("adapter/adapter_config.json", b"{}"), ("adapter/adapter_model.safetensors", b"w")]));
    let mut annotations = title("adapter");
    annotations["io.deis.oras.content.unpack"] = json!("true");
    let layer = registry.blob("lora", &format!("{LAYER}+gzip"), &folder, annotations).await;
    registry.artifact("lora", "latest", vec![layer]).await;
    let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("lora"))).await.unwrap();
    assert_eq!(names(artifact.path()), ["adapter_config.json", "adapter_model.safetensors"]);
}

#[tokio::test]
async fn as_kitops_packs_a_model() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let kind = |kind: &str| format!("application/vnd.kitops.modelkit.{kind}");
    let weights = bytes(100_000, 1);
    let layers = vec![
        registry.blob("kit", &kind("model.v1.tar+gzip"), &gzip(&tar(&[("model/x.gguf", &weights)])), json!({})).await,
        registry.blob("kit", &kind("docs.v1.tar+gzip"), &gzip(&tar(&[("README.md", b"read")])), json!({})).await,
        registry.blob("kit", &kind("code.v1.tar"), &tar(&[("train.py", b"import os")]), json!({})).await,
        registry.blob("kit", &kind("dataset.v1.tar"), &tar(&[("data.csv", b"1,2")]), json!({})).await,
    ];
    let config = registry.blob("kit", &kind("config.v1+json"), b"{\"manifestVersion\":\"1.0.0\"}", json!({})).await;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    registry.manifest("kit", "v1", MANIFEST, &manifest).await;
    let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("kit:v1"))).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "x.gguf");
    assert_eq!(fs::read(artifact.path()).unwrap(), weights);
    let parts = vec![
        registry.blob("parts", &kind("model.v1.tar"), &tar(&[("model.safetensors", b"w")]), json!({})).await,
        registry.blob("parts", &kind("modelpart.v1.tar+gzip"), &gzip(&tar(&[("config.json", b"{}")])), json!({})).await,
    ];
    registry.artifact("parts", "v1", parts).await;
    let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("parts:v1"))).await.unwrap();
    assert_eq!(names(artifact.path()), ["config.json", "model.safetensors"]);
}

#[tokio::test]
async fn as_modelpack_packs_a_model() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let kind = |kind: &str| format!("application/vnd.cncf.model.{kind}");
    let path = |path: &str| json!({"org.cncf.model.filepath": path});
    let layers = vec![
        registry.blob("pack", &kind("weight.v1.raw"), b"weights", path("model.safetensors")).await,
        registry.blob("pack", &kind("weight.v1.tar"), &tar(&[("more/model-2.safetensors", b"w")]), json!({})).await,
        registry.blob("pack", &kind("weight.config.v1.raw"), b"{}", path("config.json")).await,
        registry
            .blob("pack", &kind("weight.config.v1.tar+gzip"), &gzip(&tar(&[("tokenizer.json", b"{}")])), json!({}))
            .await,
        registry.blob("pack", &kind("doc.v1.raw"), b"licence", path("LICENSE")).await,
        registry.blob("pack", &kind("code.v1.tar"), &tar(&[("x.py", b"")]), json!({})).await,
    ];
    registry.artifact("pack", "v1", layers).await;
    let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("pack:v1"))).await.unwrap();
    assert_eq!(names(artifact.path()), ["config.json", "model.safetensors", "more", "tokenizer.json"]);
}

#[tokio::test]
async fn an_index_and_an_image() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    // An image without titles, as a builder makes of `FROM scratch` and `COPY`.
    let layer =
        registry.blob("image", &format!("{LAYER}+gzip"), &gzip(&tar(&[("models/x.gguf", b"GGUF")])), json!({})).await;
    let mut ours = registry.artifact("image", "ours", vec![layer]).await;
    ours["platform"] = json!({"os": "linux", "architecture": goarch()});
    let wrong = registry.blob("image", LAYER, b"other", title("other")).await;
    let mut other = registry.artifact("image", "other", vec![wrong]).await;
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, ours]});
    let index = registry.manifest("image", "v1", INDEX, &index).await;
    let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("image:v1"))).await.unwrap();
    assert_eq!(artifact.path().file_name().unwrap(), "x.gguf");
    assert_eq!(artifact.digest(), index["digest"].as_str());
}

fn goarch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[tokio::test]
async fn tags_move_digests_do_not_and_registries_go_away() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let mut manifests = Vec::new();
    for content in [&b"one"[..], b"two"] {
        let layer = registry.blob("lora", LAYER, content, title("x.gguf")).await;
        manifests.push(registry.artifact("lora", "v1", vec![layer]).await);
        if manifests.len() == 1 {
            let artifact = fetch(&store(dir.path()), &Source::new(registry.uri("lora:v1"))).await.unwrap();
            assert_eq!(fs::read(artifact.path()).unwrap(), b"one");
        }
    }
    let digest = |which: usize| manifests[which]["digest"].as_str().unwrap().to_owned();
    let store = store(dir.path());
    let tagged = Source::new(registry.uri("lora:v1"));
    let two = fetch(&store, &tagged).await.unwrap();
    assert_eq!((fs::read(two.path()).unwrap(), two.digest()), (b"two".to_vec(), Some(digest(1).as_str())));
    let pinned = Source { digest: Some(digest(0)), ..tagged.clone() };
    let both = Source::new(registry.uri(&format!("lora:v1@{}", digest(0))));
    let never = Source { digest: Some(sha256(b"never pushed")), ..tagged.clone() };
    let error = fetch(&store, &never).await.unwrap_err();
    assert_eq!(error.reason(), "NotFound");
    drop(registry);
    for source in [&pinned, &both] {
        let one = fetch(&store, source).await.unwrap();
        assert!(!one.is_stale() && fs::read(one.path()).unwrap() == b"one");
    }
    let stale = fetch(&store, &tagged).await.unwrap();
    assert!(stale.is_stale() && stale.path() == two.path());
    assert_eq!(fetch(&store, &never).await.unwrap_err().reason(), "Unreachable");
    let contradicts = Source { digest: Some(digest(1)), ..both.clone() };
    assert_eq!(fetch(&store, &contradicts).await.unwrap_err().reason(), "BadReference");
}

#[tokio::test]
async fn a_layer_is_continued() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let content = bytes(300_000, 1);
    let layer = registry.blob("lora", LAYER, &content, title("x.gguf")).await;
    let manifest = registry.artifact("lora", "v1", vec![layer.clone()]).await;
    let name = |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "");
    // What a fetch leaves that was killed in the middle.
    let partial = dir.path().join(format!("partial/sha256-{}", name(&manifest)));
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join(format!("blob-{}", name(&layer))), &content[..200_000]).unwrap();
    let mut downloading = Vec::new();
    let mut watch = |progress: Progress| {
        if progress.phase == Phase::Downloading {
            downloading.push(progress.done);
        }
    };
    let artifact = store(dir.path()).fetch(&Source::new(registry.uri("lora:v1")), &mut watch).await.unwrap();
    assert_eq!(fs::read(artifact.path()).unwrap(), content);
    assert_eq!((downloading[0], downloading.last()), (200_000, Some(&300_000)));
}

#[tokio::test]
async fn a_lying_registry_is_found_out() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let content = bytes(100_000, 1);
    let layer = registry.blob("lora", LAYER, &content, title("x.gguf")).await;
    registry.artifact("lora", "v1", vec![layer.clone()]).await;
    let (store, source) = (store(dir.path()), Source::new(registry.uri("lora:v1")));
    let file = registry.blob_file(layer["digest"].as_str().unwrap());
    let mut corrupt = content.clone();
    corrupt[50_000] ^= 1;
    fs::write(&file, &corrupt).unwrap();
    let error = fetch(&store, &source).await.unwrap_err();
    assert_eq!(error.reason(), "DigestMismatch");
    let message = error.to_string();
    assert!(message.contains(&format!("layer {} has digest {}", sha256(&content), sha256(&corrupt))), "{message}");
    fs::write(&file, &content[..60_000]).unwrap();
    let error = fetch(&store, &source).await.unwrap_err();
    assert_eq!(error.reason(), "Truncated");
    assert!(error.to_string().contains("60000 of 100000 bytes"), "{error}");
    assert_eq!(entries(dir.path()), [""; 0]);
    fs::write(&file, &content).unwrap();
    fetch(&store, &source).await.unwrap();
}

#[tokio::test]
async fn what_is_no_model_is_named() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::start());
    let store = store(dir.path());
    for (media_type, content, annotations, reason, part) in [
        (
            "application/x.unknown",
            &b"x"[..],
            json!({}),
            "UnsupportedMediaType",
            "has media type application/x.unknown, and no title",
        ),
        (LAYER, b"x", title("../x"), "UnsupportedMediaType", "../x: leaves the folder"),
        (LAYER, b"no tar", json!({}), "UnsafeArchive", "damaged"),
        (
            "application/vnd.cncf.model.doc.v1.raw",
            b"x",
            title("README.md"),
            "UnsupportedMediaType",
            "no layer with model files",
        ),
    ] {
        let layer = registry.blob("x", media_type, content, annotations).await;
        registry.artifact("x", "v1", vec![layer]).await;
        let error = fetch(&store, &Source::new(registry.uri("x:v1"))).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(error.to_string().contains(part), "{error}");
    }
    let twice = registry.blob("x", LAYER, b"x", title("a")).await;
    let other = registry.blob("x", LAYER, b"y", title("a")).await;
    registry.artifact("x", "v1", vec![twice, other]).await;
    let error = fetch(&store, &Source::new(registry.uri("x:v1"))).await.unwrap_err();
    assert!(error.to_string().contains("a: is in the artifact twice"), "{error}");
    let error = fetch(&store, &Source::new(registry.uri("x:v2"))).await.unwrap_err();
    assert_eq!(error.reason(), "NotFound");
    assert!(error.to_string().contains("manifest v2: the server answers 404"), "{error}");
    assert_eq!(names(&dir.path().join("partial")), [""; 0]);
}

#[tokio::test]
async fn a_registry_that_wants_a_password() {
    let (dir, registry) = (tempfile::tempdir().unwrap(), Registry::with_password());
    let layer = registry.blob("lora", LAYER, b"x", title("x.gguf")).await;
    registry.artifact("lora", "v1", vec![layer]).await;
    let store = store(dir.path());
    let mut source = Source::new(registry.uri("lora:v1"));
    let error = fetch(&store, &source).await.unwrap_err();
    assert_eq!(error.reason(), "Unauthorized");
    assert!(error.to_string().contains("check the credentials"), "{error}");
    let basic = |password: &str| slm_artifacts::Credentials::Basic {
        username: USER.0.to_owned(),
        password: password.to_owned(),
    };
    source.credentials = Some(basic("wrong"));
    assert_eq!(fetch(&store, &source).await.unwrap_err().reason(), "Unauthorized");
    source.credentials = Some(basic(USER.1));
    fetch(&store, &source).await.unwrap();
}
