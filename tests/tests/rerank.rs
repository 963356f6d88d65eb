//! Scores of pairs and probabilities of labels of one worker in this process beside those of sentence-transformers and transformers,
//! and what callers are told.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use slm_artifacts::Source;
use slm_convert::{bundle::PrecisionChoice, graph::Precision};
use slm_proto::{
    inference::{
        InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferInputTensor,
    },
    v1::{self, embed_input::Input, embeddings_client::EmbeddingsClient},
};
use slm_tests::{
    embeddings::{cosine, fixture, request, texts, vectors},
    swarm::{Folder, Swarm, adapter, base},
    tiny::{self, Worker, greedy},
};
use slm_worker::model::Task;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

/// What scores and probabilities may differ by from those of the reference.
const BOUND: f32 = 1e-4;

/// A worker with that task, and its client.
async fn start(model: &Path, task: Task) -> Result<(Worker, EmbeddingsClient<Channel>)> {
    let worker = Worker::start(|config| {
        config.source = Source::new(format!("file:{}", model.display()));
        config.model.task = task;
        config.model.precision = PrecisionChoice::Exactly(Precision::F32);
    })
    .await?;
    let client = EmbeddingsClient::connect(worker.url.clone()).await?;
    Ok((worker, client))
}

/// The reason why a worker does not start.
async fn refusal(model: &Path, task: Task) -> Result<String> {
    let cache = tempfile::tempdir()?;
    let mut config = tiny::worker(cache.path())?;
    config.source = Source::new(format!("file:{}", model.display()));
    config.model.task = task;
    let ended = slm_worker::run(config, CancellationToken::new(), |_| ()).await;
    Ok(ended.err().context("it started")?.to_string())
}

/// The query and the documents of the reference.
fn pairs() -> Result<(String, Vec<String>)> {
    #[derive(Deserialize)]
    struct Pairs {
        query: String,
        documents: Vec<String>,
    }
    let Pairs { query, documents } = reference("rerank/pairs.json")?;
    Ok((query, documents))
}

fn reference<T: DeserializeOwned>(file: &str) -> Result<T> {
    Ok(serde_json::from_slice(&fs::read(fixture(file))?)?)
}

fn rerank(model: &str, query: &str, documents: &[String]) -> v1::RerankRequest {
    let (model, query, documents) = (model.to_owned(), query.to_owned(), documents.to_vec());
    v1::RerankRequest { model, query, documents, truncate: true, ..Default::default() }
}

fn classify(model: &str, texts: &[String]) -> v1::ClassifyRequest {
    let v1::EmbedRequest { model, inputs, truncate, .. } = request(model, texts);
    v1::ClassifyRequest { model, inputs, truncate, ..Default::default() }
}

/// Scores in the order of the documents.
async fn scores(client: &mut EmbeddingsClient<Channel>, request: v1::RerankRequest) -> Result<Vec<f32>, Status> {
    let mut results = client.rerank(request).await?.into_inner().results;
    assert!(results.is_sorted_by(|a, b| a.score >= b.score), "the best first: {results:?}");
    results.sort_by_key(|result| result.index);
    Ok(results.into_iter().map(|result| result.score).collect())
}

async fn probabilities(
    client: &mut EmbeddingsClient<Channel>,
    request: v1::ClassifyRequest,
) -> Result<Vec<Vec<f32>>, Status> {
    let answer = client.classify(request).await?.into_inner();
    Ok(answer.classifications.into_iter().map(|row| row.probabilities).collect())
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
    println!("{what}: largest difference {largest:.1e}");
    assert!(largest < BOUND, "{what}: {largest}\n{got:?}\n{want:?}");
}

#[tokio::test]
async fn scores_are_those_of_the_reference() -> Result<()> {
    let (query, documents) = pairs()?;
    for family in ["bert", "roberta", "distilbert", "modernbert", "mpnet"] {
        let (worker, mut client) = start(&fixture(&format!("rerank/{family}")), Task::Rerank).await?;
        let got = scores(&mut client, rerank("tiny", &query, &documents)).await?;
        let want: Vec<f32> = reference(&format!("rerank/{family}/scores.json"))?;
        assert_close(&got, &want, family);
        for (document, want) in documents.iter().zip(&got) {
            let alone = scores(&mut client, rerank("tiny", &query, std::slice::from_ref(document))).await?;
            assert!((alone[0] - want).abs() < 1e-6, "alone as in company");
        }
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn probabilities_are_those_of_the_reference() -> Result<()> {
    let texts = texts(&fixture("texts.json"))?;
    for (family, labels) in
        [("bert", &["no", "yes", "perhaps"][..]), ("roberta", &["long", "short"]), ("modernbert", &["bad", "good"])]
    {
        let (worker, mut client) = start(&fixture(&format!("classify/{family}")), Task::Classify).await?;
        let answer = client.classify(classify("tiny", &texts)).await?.into_inner();
        assert_eq!(answer.labels, labels);
        let got: Vec<f32> = answer.classifications.into_iter().flat_map(|row| row.probabilities).collect();
        let want: Vec<Vec<f32>> = reference(&format!("classify/{family}/probabilities.json"))?;
        assert_close(&got, &want.concat(), family);
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_adapter_has_its_own_head() -> Result<()> {
    let (query, documents) = pairs()?;
    let (mut worker, mut client) = start(&fixture("rerank/bert"), Task::Rerank).await?;
    worker.load("expert", &fixture("rerank/bert-adapter")).await?;
    let mut other = client.clone();
    let (plain, adapted) = tokio::join!(
        scores(&mut client, rerank("tiny", &query, &documents)),
        scores(&mut other, rerank("expert", &query, &documents))
    );
    assert_close(&plain?, &reference::<Vec<f32>>("rerank/bert/scores.json")?, "base beside it");
    assert_close(
        &adapted?,
        &reference::<Vec<f32>>("rerank/bert-adapter/scores.json")?,
        "adapter, with a pair of the pooler",
    );
    worker.stop().await?;

    let texts = texts(&fixture("texts.json"))?;
    let (mut worker, mut client) = start(&fixture("classify/roberta"), Task::Classify).await?;
    worker.load("expert", &fixture("classify/roberta-adapter")).await?;
    let adapted = probabilities(&mut client, classify("expert", &texts)).await?;
    let want: Vec<Vec<f32>> = reference("classify/roberta-adapter/probabilities.json")?;
    assert_close(&adapted.concat(), &want.concat(), "adapter of a classifier");
    worker.stop().await
}

#[tokio::test]
async fn an_adapter_with_a_head_of_another_model_is_refused_by_tensor() -> Result<()> {
    let (mut worker, _) = start(&fixture("rerank/bert"), Task::Embed).await?;
    let refused = worker.load("expert", &fixture("rerank/bert-adapter")).await.unwrap_err();
    let words = "it belongs to a head, and the model makes vectors without one; a model with spec.task Rerank or Classify takes it";
    assert!(refused.message().contains(words), "{}", refused.message());
    worker.stop().await?;

    let (mut worker, _) = start(&fixture("classify/bert"), Task::Classify).await?;
    let refused = worker.load("expert", &fixture("rerank/bert-adapter")).await.unwrap_err();
    let words =
        "tensor `base_model.model.classifier.bias` cannot be applied: it has shape [1]; the head of this model has [3]";
    assert!(refused.message().contains(words), "{}", refused.message());
    worker.stop().await
}

#[tokio::test]
async fn the_best_are_kept() -> Result<()> {
    let (query, documents) = pairs()?;
    let (worker, mut client) = start(&fixture("rerank/modernbert"), Task::Rerank).await?;
    let all = client.rerank(rerank("tiny", &query, &documents)).await?.into_inner();
    let best = v1::RerankRequest { top_n: Some(2), ..rerank("tiny", &query, &documents) };
    let best = client.rerank(best).await?.into_inner();
    assert_eq!(best.results, all.results[..2]);
    assert_eq!(best.prompt_tokens, all.prompt_tokens, "all are read");
    worker.stop().await
}

#[tokio::test]
async fn refusals_say_what_is_wrong_and_what_to_do() -> Result<()> {
    let (worker, mut client) = start(&fixture("rerank/bert"), Task::Rerank).await?;
    let ask = |query: &str, documents: &[&str]| {
        let documents: Vec<_> = documents.iter().map(|text| (*text).to_owned()).collect();
        v1::RerankRequest { truncate: false, ..rerank("tiny", query, &documents) }
    };
    let long = "a ".repeat(78);
    let cases = [
        (ask("", &["a"]), "query is missing; send a text"),
        (ask("q", &[]), "documents is missing; send at least one text"),
        (ask("q", &["a", ""]), "documents[1] is empty"),
        (ask("q", &["a"; 10_000]), "documents has 10000 entries; at most 2048 are taken at once"),
        (ask("q", &["a", &long]), "documents[1] has 82 tokens together with the query; `tiny` takes 80: shorten it"),
        (ask(&long, &["a"]), "query has 81 tokens; `tiny` takes 80, query and document together: shorten it"),
        (v1::RerankRequest { top_n: Some(0), ..ask("q", &["a"]) }, "top_n is 0"),
    ];
    for (request, words) in cases {
        let refused = client.rerank(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    worker.stop().await?;

    let (worker, mut client) = start(&fixture("classify/bert"), Task::Classify).await?;
    let ask = |texts: &[&str]| {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        v1::ClassifyRequest { truncate: false, ..classify("tiny", &texts) }
    };
    let ids = Some(Input::TokenIds(v1::TokenIds { ids: vec![2, 128] }));
    let cases = [
        (ask(&[]), "inputs is missing; send at least one text"),
        (ask(&["a", ""]), "inputs[1] is empty; send a text, or leave it out"),
        (ask(&["a"; 10_000]), "inputs has 10000 entries; at most 2048 are taken at once"),
        (ask(&["a", &"a ".repeat(79)]), "inputs[1] has 81 tokens; `tiny` takes 80: shorten it"),
        (v1::ClassifyRequest { inputs: vec![v1::EmbedInput { input: ids }], ..ask(&[]) }, "has the token id 128"),
    ];
    for (request, words) in cases {
        let refused = client.classify(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    worker.stop().await
}

#[tokio::test]
async fn a_model_does_its_own_task() -> Result<()> {
    let text = ["a".to_owned()];
    for (model, task, does, own) in [
        (tiny_generator(), Task::Generate, "generates text", ""),
        (fixture("bert"), Task::Embed, "embeds texts", "send it to /v1/embeddings, or to Embed"),
        (fixture("rerank/bert"), Task::Rerank, "reranks documents", "send it to /v1/rerank, or to Rerank"),
        (fixture("classify/bert"), Task::Classify, "classifies texts", "send it to /v1/classify, or to Classify"),
    ] {
        let (mut worker, mut client) = start(&model, task).await?;
        assert_eq!(worker.state(|_| true).await?.task, task.to_string());
        let asked = [
            (Task::Generate, worker.generation.generate(greedy("tiny", &[5], 1)).await.err(), own),
            (
                Task::Embed,
                client.embed(request("tiny", &text)).await.err(),
                "for embeddings, name a model whose spec.task is Embed",
            ),
            (
                Task::Rerank,
                client.rerank(rerank("tiny", "q", &text)).await.err(),
                "to rerank, name a model whose spec.task is Rerank",
            ),
            (
                Task::Classify,
                client.classify(classify("tiny", &text)).await.err(),
                "to classify, name a model whose spec.task is Classify",
            ),
        ];
        for (other, refused, remedy) in asked {
            let Some(refused) = refused.filter(|_| other != task) else {
                assert_eq!(other, task, "it did what it cannot do");
                continue;
            };
            assert_eq!(refused.code(), Code::FailedPrecondition, "{other} of {task}: {refused}");
            assert_eq!(refused.message(), format!("model `tiny` {does}; {remedy}"));
        }
        worker.stop().await?;
    }
    Ok(())
}

fn tiny_generator() -> PathBuf {
    fixture("../../parity/data/llama")
}

#[tokio::test]
async fn a_checkpoint_without_the_head_of_the_task_is_refused() -> Result<()> {
    for (model, task, words) in [
        (
            "classify/bert",
            Task::Rerank,
            "the model has 3 labels; a model that reranks has one: set spec.task to Classify",
        ),
        ("classify/roberta", Task::Rerank, "the model has 2 labels"),
        ("bert", Task::Rerank, "`architectures` is BertModel, which has no head for labels"),
        ("qwen3", Task::Classify, "which has no head for labels; spec.task Rerank and Classify need a checkpoint of"),
        ("rerank/bert", Task::Generate, "this model is an encoder"),
    ] {
        let refused = refusal(&fixture(model), task).await?;
        assert!(refused.contains(words), "{model}: {refused}");
    }
    // Names of labels are what an answer consists of.
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(fixture("classify/bert"))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config.as_object_mut().context("an object")?.remove("id2label");
    fs::write(&file, config.to_string())?;
    let refused = refusal(folder.path(), Task::Classify).await?;
    assert!(
        refused.contains("config.json: field `id2label` is missing; spec.task Classify needs a name for each"),
        "{refused}"
    );
    Ok(())
}

/// `slm up` over a model of each task.
fn swarm() -> Result<(Folder, Swarm)> {
    let folder = Folder::new()?;
    let model = |name: &str, task: &str, fixture_name: &str| {
        let plain = base(name, &fixture(fixture_name), "precision: F32");
        plain.replacen("spec:\n", &format!("spec:\n  task: {task}\n"), 1)
    };
    folder.write("ranker.yaml", &model("ranker", "Rerank", "rerank/bert"))?;
    folder.write("labeller.yaml", &model("labeller", "Classify", "classify/bert"))?;
    folder.write("embedder.yaml", &model("embedder", "Embed", "bert"))?;
    folder.write("expert.yaml", &adapter("expert", "ranker", &fixture("rerank/bert-adapter")))?;
    let swarm = Swarm::start(folder.path())?;
    Ok((folder, swarm))
}

async fn post(swarm: &Swarm, path: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = reqwest::Client::new().post(format!("{}{path}", swarm.http)).json(body).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// As callers of Jina, Cohere and vLLM ask.
async fn reranks(swarm: &Swarm) -> Result<()> {
    let (query, documents) = pairs()?;
    let documents = &documents[..4];
    let mut objects: Vec<Value> = documents.iter().map(|text| json!(text)).collect();
    objects[1] = json!({ "text": documents[1] });
    for (model, file) in [("ranker", "rerank/bert/scores.json"), ("expert", "rerank/bert-adapter/scores.json")] {
        let want: Vec<f32> = reference(file)?;
        for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
            let body = json!({ "model": model, "query": query, "documents": objects, "top_n": 3 });
            let (status, answer) = post(swarm, path, &body).await?;
            assert_eq!(status, 200, "{answer}");
            let results = answer["results"].as_array().context("results")?;
            assert_eq!((results.len(), answer["model"].as_str()), (3, Some(model)), "{answer}");
            for result in results {
                let index = result["index"].as_u64().context("index")? as usize;
                let score = result["relevance_score"].as_f64().context("score")? as f32;
                assert!((score - want[index]).abs() < BOUND, "{answer}");
                assert_eq!(result["document"]["text"], json!(documents[index]));
            }
            assert!(answer["usage"]["total_tokens"].as_u64() > Some(0), "{answer}");
        }
    }
    Ok(())
}

async fn classifies(swarm: &Swarm) -> Result<()> {
    let texts = texts(&fixture("texts.json"))?;
    let want: Vec<Vec<f64>> = reference("classify/bert/probabilities.json")?;
    for path in ["/v1/classify", "/classify"] {
        let (status, answer) = post(swarm, path, &json!({ "model": "labeller", "input": texts })).await?;
        assert_eq!(status, 200, "{answer}");
        let first = &answer["data"][0];
        let likeliest = (0..3).max_by(|&a, &b| want[0][a].total_cmp(&want[0][b])).context("labels")?;
        let label = ["no", "yes", "perhaps"][likeliest];
        assert_eq!((&first["label"], &first["num_classes"]), (&json!(label), &json!(3)), "{answer}");
        for (label, want) in want[0].iter().enumerate() {
            let got = first["probs"][label].as_f64().context("a number")?;
            assert!((got - want).abs() < f64::from(BOUND), "{answer}");
        }
        assert_eq!(answer["labels"], json!(["no", "yes", "perhaps"]));
    }
    Ok(())
}

/// The Open Inference Protocol of a model that embeds, over both transports.
async fn infers_vectors(swarm: &Swarm) -> Result<()> {
    let want = vectors(&fixture("bert/vectors.safetensors"))?;
    let texts = texts(&fixture("texts.json"))?;
    let described: Value = reqwest::get(format!("{}/v2/models/embedder", swarm.http)).await?.json().await?;
    let output = json!([{ "name": "embedding", "datatype": "FP32", "shape": [-1, 64] }]);
    assert_eq!((&described["outputs"], &described["inputs"][0]["name"]), (&output, &json!("text_input")));
    let none: Value = reqwest::get(format!("{}/v2/models/ranker", swarm.http)).await?.json().await?;
    assert_eq!((&none["inputs"], &none["outputs"]), (&json!([]), &json!([])));

    let input = json!({ "name": "text_input", "datatype": "BYTES", "shape": [texts.len()], "data": texts });
    let (status, answer) = post(swarm, "/v2/models/embedder/infer", &json!({ "inputs": [input] })).await?;
    assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([texts.len(), 64])), "{answer}");
    let floats: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone())?;
    for (got, want) in floats.chunks_exact(64).zip(&want) {
        assert!(cosine(got, want) > 0.999_999, "{answer}");
    }
    let long = json!({ "name": "text_input", "datatype": "BYTES", "shape": [2], "data": ["a", "a ".repeat(100)] });
    let (status, answer) = post(swarm, "/v2/models/embedder/infer", &json!({ "inputs": [long] })).await?;
    let message = answer["error"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("`text_input[1]` has 102 tokens; `embedder` takes 64"), "{answer}");

    let mut client = GrpcInferenceServiceClient::connect(swarm.grpc.clone()).await?;
    let contents = |texts: &[&str]| InferTensorContents {
        bytes_contents: texts.iter().map(|text| text.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    let ask = |texts: &[&str]| ModelInferRequest {
        model_name: "embedder".to_owned(),
        inputs: vec![InferInputTensor {
            name: "text_input".to_owned(),
            datatype: "BYTES".to_owned(),
            shape: vec![texts.len() as i64],
            contents: Some(contents(texts)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.model_infer(ask(&[&texts[1]])).await?.into_inner();
    assert_eq!(answer.outputs[0].shape, [1, 64]);
    let raw = answer.raw_output_contents[0].chunks_exact(4);
    let got: Vec<f32> = raw.map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    assert!(cosine(&got, &want[1]) > 0.999_999);
    let refused = client.model_infer(ask(&["a", ""])).await.err().context("an empty text was taken")?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("`text_input[1]` is empty"), "{}", refused.message());
    Ok(())
}

async fn refuses_bad_input(swarm: &Swarm) -> Result<()> {
    let long = "a ".repeat(100);
    let pair = |query: &str, documents: Value| json!({ "model": "ranker", "query": query, "documents": documents });
    let text = |input: Value| json!({ "model": "labeller", "input": input });
    for (path, body, param, words) in [
        ("/v1/rerank", pair("q", json!([])), "documents", "`documents` is an empty list"),
        ("/v1/rerank", pair("", json!(["a"])), "query", "`query` is missing or empty"),
        ("/v1/rerank", pair("q", json!(vec!["a"; 10_000])), "documents", "`documents` holds 10000 texts; at most 2048"),
        (
            "/v1/rerank",
            pair("q", json!(["a", long])),
            "documents[1]",
            "`documents[1]` has 104 tokens together with the query; `ranker` takes 80",
        ),
        ("/v1/rerank", pair(&long, json!(["a"])), "query", "`query` has 103 tokens; `ranker` takes 80, query and"),
        ("/v1/classify", text(json!("")), "input", "`input` is an empty string"),
        ("/v1/classify", text(json!(["a", long])), "input[1]", "`input[1]` has 102 tokens; `labeller` takes 80"),
        ("/v1/classify", text(json!([])), "input", "`input` is an empty list"),
    ] {
        let (status, answer) = post(swarm, path, &body).await?;
        let error = &answer["error"];
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{answer}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(words)), "{answer}");
    }
    Ok(())
}

async fn refuses_other_tasks(swarm: &Swarm) -> Result<()> {
    let chat = json!({ "model": "ranker", "messages": [{ "role": "user", "content": "a" }] });
    let pair = json!({ "model": "labeller", "query": "q", "documents": ["a"] });
    let text = json!({ "model": "ranker", "input": "a" });
    for (path, body, words) in [
        ("/v1/rerank", &pair, "model `labeller` classifies texts; to rerank, name a model whose spec.task is Rerank"),
        ("/v1/classify", &text, "model `ranker` reranks documents; to classify, name a model"),
        ("/v1/embeddings", &text, "model `ranker` reranks documents; for embeddings, name a model"),
        ("/v1/chat/completions", &chat, "model `ranker` reranks documents; send it to /v1/rerank, or to Rerank"),
    ] {
        let (status, answer) = post(swarm, path, body).await?;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains(words)), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_swarm_reranks_and_classifies_over_http() -> Result<()> {
    let (_folder, swarm) = tokio::task::spawn_blocking(swarm).await??;
    reranks(&swarm).await?;
    classifies(&swarm).await?;
    infers_vectors(&swarm).await?;
    refuses_bad_input(&swarm).await?;
    refuses_other_tasks(&swarm).await?;
    tokio::task::spawn_blocking(move || swarm.stop()).await??;
    Ok(())
}
