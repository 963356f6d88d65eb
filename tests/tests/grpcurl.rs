//! The endpoint as a person explores it, with nothing but `grpcurl` and reflection.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use slm_convert::bundle::cache_dir;
use slm_tests::{
    embeddings::fixture,
    real,
    swarm::{Folder, Swarm, base, output},
};

/// `$SLM_TEST_GRPCURL`, else the one that `scripts/setup grpcurl` builds.
fn grpcurl() -> Result<PathBuf> {
    if let Some(path) = env::var_os("SLM_TEST_GRPCURL").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = cache_dir().context("no cache folder")?.join("bin/grpcurl");
    ensure!(path.exists(), "{}: not there; run `scripts/setup grpcurl`, or set SLM_TEST_GRPCURL", path.display());
    Ok(path)
}

/// A swarm's gRPC address.
struct Endpoint(String);

impl Endpoint {
    fn run(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let mut command = Command::new(grpcurl()?);
        command.args(["-plaintext", "-max-time", "120"]);
        // Flags come before the address, names after it.
        let flags = if arguments[0] == "-d" { 2 } else { 0 };
        command.args(&arguments[..flags]).arg(&self.0).args(&arguments[flags..]);
        output(&mut command)
    }

    fn says(&self, arguments: &[&str]) -> Result<String> {
        let (code, out, err) = self.run(arguments)?;
        ensure!(code == 0, "{arguments:?}: {err}");
        Ok(out)
    }

    /// The messages of a call's answer.
    fn call(&self, method: &str, request: &Value) -> Result<Vec<Value>> {
        let said = self.says(&["-d", &request.to_string(), method])?;
        let messages = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        messages.collect::<Result<_, _>>().with_context(|| said.clone())
    }
}

#[test]
fn grpcurl_finds_and_calls_everything() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("smollm2", &base("smollm2", &real::gguf()?, "precision: Int4, contextLength: 512"))?;
    let embedder = base("minilm", &fixture("bert"), "precision: F32");
    folder.write("minilm", &embedder.replacen("spec:\n", "spec:\n  task: Embed\n", 1))?;
    let swarm = Swarm::start(folder.path())?;
    let endpoint = Endpoint(swarm.grpc.trim_start_matches("http://").to_owned());

    let services = endpoint.says(&["list"])?;
    let known = [
        "grpc.health.v1.Health",
        "inference.GRPCInferenceService",
        "slm.v1.Embeddings",
        "slm.v1.Generation",
        "slm.v1.Swarm",
    ];
    for service in known {
        ensure!(services.lines().any(|line| line == service), "no {service}: {services}");
    }
    let described = endpoint.says(&["describe", "slm.v1.Generation.Generate"])?;
    ensure!(
        described.contains("( .slm.v1.GenerateRequest ) returns ( stream .slm.v1.GenerateResponse )"),
        "{described}"
    );
    let fields = endpoint.says(&["describe", "slm.v1.GenerateRequest"])?;
    ensure!(fields.contains("string model = 1;") && fields.contains("repeated .slm.v1.Tool tools"), "{fields}");

    let health = endpoint.call("grpc.health.v1.Health/Check", &json!({}))?;
    assert_eq!(health, [json!({"status": "SERVING"})]);
    let message = json!({"role": "user", "content": "Where is the Eiffel Tower?"});
    let asked = json!({
        "model": "smollm2", "messages": {"messages": [message]}, "sampling": {"temperature": 0}, "max_tokens": 16,
    });
    let events = endpoint.call("slm.v1.Generation/Generate", &asked)?;
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    ensure!(events[0]["started"]["expert"]["name"] == "smollm2" && text.contains("Paris"), "{events:?}");
    let finished = events.last().context("no event")?;
    ensure!(finished["finished"]["usage"]["completionTokens"].is_number() && events.len() > 3, "{finished}");
    let whole = endpoint.call("slm.v1.Generation/Complete", &asked)?;
    assert_eq!(whole[0]["text"], text);

    let vectors = endpoint
        .call("slm.v1.Embeddings/Embed", &json!({"model": "minilm", "inputs": [{"text": "a"}, {"text": "b"}]}))?;
    let vectors = vectors[0]["embeddings"].as_array().context("no embeddings")?;
    ensure!(vectors.len() == 2 && vectors.iter().all(|one| one["values"].is_array()), "{vectors:?}");

    let live = endpoint.call("inference.GRPCInferenceService/ServerLive", &json!({}))?;
    assert_eq!(live, [json!({"live": true})]);
    // "The capital of France is", as protobuf's JSON writes bytes.
    let prompt = "VGhlIGNhcGl0YWwgb2YgRnJhbmNlIGlz";
    let tensor =
        json!({"name": "text_input", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [prompt]}});
    let parameters = json!({"temperature": {"double_param": 0}, "max_tokens": {"int64_param": 4}});
    let infer = json!({"model_name": "smollm2", "inputs": [tensor], "parameters": parameters});
    let inferred = endpoint.call("inference.GRPCInferenceService/ModelInfer", &infer)?;
    let out = &inferred[0]["outputs"][0];
    ensure!(
        out["name"] == "text_output" && out["datatype"] == "BYTES" && inferred[0]["modelName"] == "smollm2",
        "{inferred:?}"
    );

    let (code, _, refused) = endpoint.run(&["-d", r#"{"model": "smollm3"}"#, "slm.v1.Generation/Complete"])?;
    ensure!(code != 0 && refused.contains("Code: NotFound") && refused.contains("`smollm2`"), "{refused}");
    let (code, _, refused) = endpoint.run(&["-d", r#"{"modell": "x"}"#, "slm.v1.Generation/Complete"])?;
    ensure!(code != 0 && refused.contains("no known field named modell"), "{refused}");
    swarm.stop()?;
    Ok(())
}
