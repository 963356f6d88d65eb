//! Vectors of one worker in this process beside those of sentence-transformers, and what callers are told.

use std::path::Path;

use anyhow::Result;
use slm_artifacts::Source;
use slm_convert::{bundle::PrecisionChoice, graph::Precision};
use slm_proto::v1::{self, embed_input::Input, embeddings_client::EmbeddingsClient};
use slm_tests::{
    clients::python,
    embeddings::{cosine, fixture, minilm, request, sentences, texts, vectors},
    swarm::{Folder, Swarm, adapter, base, output, slm},
    tiny::{self, Worker, greedy},
};
use slm_worker::model::Task;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

/// A worker that embeds, and its client.
async fn start(model: &Path, precision: Precision) -> Result<(Worker, EmbeddingsClient<Channel>)> {
    let worker = Worker::start(|config| {
        config.source = Source::new(format!("file:{}", model.display()));
        config.model.task = Task::Embed;
        config.model.precision = PrecisionChoice::Exactly(precision);
    })
    .await?;
    let client = EmbeddingsClient::connect(worker.url.clone()).await?.max_decoding_message_size(64 << 20);
    Ok((worker, client))
}

async fn embed(client: &mut EmbeddingsClient<Channel>, request: v1::EmbedRequest) -> Result<Vec<Vec<f32>>, Status> {
    let response = client.embed(request).await?.into_inner();
    Ok(response.embeddings.into_iter().map(|embedding| embedding.values).collect())
}

#[track_caller]
fn assert_alike(got: &[Vec<f32>], want: &[Vec<f32>], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let lowest = got.iter().zip(want).map(|(got, want)| cosine(got, want)).fold(1.0, f64::min);
    println!("{what}: lowest cosine {lowest:.7}");
    assert!(lowest >= bound, "{what}: {lowest}");
}

#[tokio::test]
async fn vectors_are_those_of_the_reference() -> Result<()> {
    let texts = texts(&fixture("texts.json"))?;
    for family in ["bert", "roberta", "distilbert", "modernbert", "qwen3", "mpnet", "nomic_bert", "gemma3"] {
        let want = vectors(&fixture(family).join("vectors.safetensors"))?;
        for (precision, bound) in [(Precision::F32, 0.999_999), (Precision::Int8, 0.995)] {
            let (worker, mut client) = start(&fixture(family), precision).await?;
            let together = embed(&mut client, request("tiny", &texts)).await?;
            assert_alike(&together, &want, bound, &format!("{family} in {precision}"));
            for (text, want) in texts.iter().zip(&together) {
                let alone = embed(&mut client, request("tiny", std::slice::from_ref(text))).await?;
                assert_alike(&alone, std::slice::from_ref(want), 0.999_999, "alone as in company");
            }
            worker.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn lengths_are_those_of_the_reference() -> Result<()> {
    let texts = texts(&fixture("texts.json"))?;
    let want = vectors(&fixture("roberta/vectors.safetensors"))?;
    let (worker, mut client) = start(&fixture("roberta"), Precision::F32).await?;
    let got = embed(&mut client, request("tiny", &texts)).await?;
    for (got, want) in got.iter().zip(&want) {
        let largest = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "not normalised: {largest}");
    }
    worker.stop().await
}

#[tokio::test]
async fn an_adapter_changes_vectors_as_peft_does() -> Result<()> {
    let texts = texts(&fixture("texts.json"))?;
    let folder = fixture("bert-adapter");
    let (base, want) = (vectors(&fixture("bert/vectors.safetensors"))?, vectors(&folder.join("vectors.safetensors"))?);
    for (precision, bound) in [(Precision::F32, 0.999_999), (Precision::Int8, 0.995)] {
        let (mut worker, mut client) = start(&fixture("bert"), precision).await?;
        worker.load("expert", &folder).await?;
        let asked = [request("tiny", &texts), request("expert", &texts)];
        let mut other = client.clone();
        let [plain, adapted] = asked;
        let (plain, adapted) = tokio::join!(embed(&mut client, plain), embed(&mut other, adapted));
        assert_alike(&plain?, &base, bound, &format!("base beside it in {precision}"));
        assert_alike(&adapted?, &want, bound, &format!("adapter in {precision}"));
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_real_model_makes_the_vectors_of_the_reference() -> Result<()> {
    let (texts, want) = (sentences(&fixture("minilm.json"))?, vectors(&fixture("minilm.safetensors"))?);
    assert_eq!(texts.len(), 500);
    for (precision, bound) in [(Precision::F32, 0.9999), (Precision::Int8, 0.99)] {
        let (worker, mut client) = start(&minilm()?, precision).await?;
        let got = embed(&mut client, request("tiny", &texts)).await?;
        assert_alike(&got, &want, bound, &format!("MiniLM in {precision}"));
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn dimensions_cut_and_lengthen_again() -> Result<()> {
    let (worker, mut client) = start(&fixture("bert"), Precision::F32).await?;
    let text = ["hello world".to_owned()];
    let whole = embed(&mut client, request("tiny", &text)).await?.remove(0);
    let cut = v1::EmbedRequest { dimensions: Some(16), ..request("tiny", &text) };
    let cut = embed(&mut client, cut).await?.remove(0);
    assert!((cosine(&cut, &whole[..16]) - 1.0).abs() < 1e-6 && cut.len() == 16);
    assert!((cut.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    worker.stop().await
}

#[tokio::test]
async fn refusals_say_what_is_wrong_and_what_to_do() -> Result<()> {
    let (worker, mut client) = start(&fixture("bert"), Precision::F32).await?;
    let text = |text: &str| Some(Input::Text(text.to_owned()));
    let ids = |ids: &[u32]| Some(Input::TokenIds(v1::TokenIds { ids: ids.to_vec() }));
    let long = "a ".repeat(63);
    let asked = |inputs: Vec<Option<Input>>| v1::EmbedRequest {
        model: "tiny".to_owned(),
        inputs: inputs.into_iter().map(|input| v1::EmbedInput { input }).collect(),
        ..Default::default()
    };
    let cases = [
        (asked(vec![]), "inputs is missing; send at least one text"),
        (asked(vec![text("a"), text("")]), "inputs[1] is empty"),
        (asked(vec![None]), "each has a text or token_ids"),
        (asked(vec![text("a"); 2049]), "inputs has 2049 entries; at most 2048"),
        (asked(vec![text("a"), text(&long)]), "inputs[1] has 65 tokens; `tiny` takes 64: shorten it"),
        (asked(vec![ids(&[2; 65])]), "inputs[0] has 65 tokens"),
        (asked(vec![ids(&[])]), "inputs[0] is empty"),
        (asked(vec![ids(&[2, 128])]), "inputs[0] has the token id 128; the vocabulary of `tiny` ends at 127"),
        (
            v1::EmbedRequest { dimensions: Some(0), ..asked(vec![text("a")]) },
            "dimensions is 0; vectors of this model have 1 to 64",
        ),
        (v1::EmbedRequest { dimensions: Some(65), ..asked(vec![text("a")]) }, "dimensions is 65"),
    ];
    for (request, words) in cases {
        let refused = embed(&mut client, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    let cut = embed(&mut client, v1::EmbedRequest { truncate: true, ..asked(vec![text(&long)]) }).await?;
    let fits = embed(&mut client, asked(vec![text(&"a ".repeat(62))])).await?;
    assert_alike(&cut, &fits, 0.999_999, "cut with its last special token");
    let unknown =
        embed(&mut client, v1::EmbedRequest { model: "tinny".into(), ..asked(vec![text("a")]) }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    worker.stop().await
}

#[tokio::test]
async fn a_model_does_its_own_task() -> Result<()> {
    let (mut worker, mut client) = start(&fixture("bert"), Precision::F32).await?;
    assert_eq!(worker.state(|_| true).await?.task, "Embed");
    let refused = worker.generation.generate(greedy("tiny", &[5], 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "model `tiny` embeds texts; send it to /v1/embeddings, or to Embed");
    embed(&mut client, request("tiny", &["a".to_owned()])).await?;
    worker.stop().await?;

    let worker = Worker::start(|_| ()).await?;
    let mut client = EmbeddingsClient::connect(worker.url.clone()).await?;
    let refused = embed(&mut client, request("tiny", &["a".to_owned()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("generates text; for embeddings, name a model whose spec.task"), "{refused}");
    worker.stop().await
}

#[tokio::test]
async fn dense_modules_make_the_width_of_vectors() -> Result<()> {
    let (worker, mut client) = start(&fixture("gemma3"), Precision::F32).await?;
    let want = vectors(&fixture("gemma3/vectors.safetensors"))?;
    let got = embed(&mut client, request("tiny", &texts(&fixture("texts.json"))?)).await?;
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got.len(), 24);
        let largest = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-4, "{largest}");
    }
    let wide = v1::EmbedRequest { dimensions: Some(25), ..request("tiny", &["a".to_owned()]) };
    let refused = embed(&mut client, wide).await.unwrap_err();
    assert!(refused.message().contains("dimensions is 25; vectors of this model have 1 to 24"), "{refused}");
    worker.stop().await
}

#[tokio::test]
async fn an_encoder_cannot_be_opened_to_generate() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut config = tiny::worker(cache.path())?;
    config.source = Source::new(format!("file:{}", fixture("bert").display()));
    let refused = slm_worker::run(config, CancellationToken::new(), |_| ()).await.unwrap_err().to_string();
    assert!(refused.contains("this model is an encoder") && refused.contains("set spec.task to Embed"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_drain_waits_for_what_was_taken() -> Result<()> {
    let (worker, mut client) = start(&fixture("bert"), Precision::F32).await?;
    let (answered, mut seen) = tokio::sync::watch::channel(0);
    // One after the other, without a pause: one is under way when the drain begins.
    let asking = tokio::spawn(async move {
        loop {
            let many = vec!["hello world".to_owned(); 256];
            match embed(&mut client, request("tiny", &many)).await {
                Ok(vectors) => answered.send_modify(|answers| *answers += usize::from(vectors.len() == 256)),
                Err(status) => return status,
            }
        }
    });
    seen.wait_for(|answers| *answers >= 3).await?;
    worker.shutdown.cancel();
    let late = asking.await?;
    assert_eq!(late.code(), Code::Unavailable, "{late}");
    Ok(worker.done.await??)
}

/// `slm up` over a folder with a model that embeds and an adapter on it, asked by the clients that people use and by `slm embed`.
#[test]
fn a_swarm_embeds_for_the_official_clients() -> Result<()> {
    let folder = Folder::new()?;
    let model = base("minilm", &fixture("bert"), "precision: F32");
    folder.write("model.yaml", &model.replacen("spec:\n", "spec:\n  task: Embed\n", 1))?;
    folder.write("expert.yaml", &adapter("expert", "minilm", &fixture("bert-adapter")))?;
    let swarm = Swarm::start(folder.path())?;
    python("embeddings_client.py", &[swarm.http.clone(), fixture("texts.json").display().to_string()])?;

    let server = swarm.grpc.trim_start_matches("http://").to_owned();
    let (code, out, err) = output(&mut slm(&["embed", "minilm", "hello world", "a", "--server", &server])?)?;
    assert_eq!((code, out.lines().count()), (0, 2), "{err}");
    let vector: Vec<f32> = serde_json::from_str(out.lines().next().unwrap_or_default())?;
    let want = vectors(&fixture("bert/vectors.safetensors"))?;
    assert!(cosine(&vector, &want[1]) > 0.999_999, "{out}");
    let (code, _, err) = output(&mut slm(&["run", "minilm", "hello", "--server", &server])?)?;
    assert!(code == 1 && err.contains("embeds texts"), "{err}");
    swarm.stop()?;
    Ok(())
}
