//! Vectors of many texts, by a swarm.

use indicatif::{ProgressBar, ProgressStyle};
use slm_head::Encoder;
use slm_proto::v1::{EmbedInput, EmbedRequest, ListModelsRequest, embed_input::Input};

use crate::connection::{Client, refused};
use slm_console::exit::Failure;

/// Texts of one request.
const BATCH: usize = 128;

/// Vectors of `texts` by the model or adapter `name` on `model`, and what is known of it.
pub(super) async fn vectors(
    client: &mut Client,
    (name, model): (&str, &str),
    texts: &[&str],
) -> Result<(Encoder, Vec<Vec<f32>>), Failure> {
    let digest = digest(client, model).await?;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}").map_err(Failure::failed)?;
    let bar = ProgressBar::new(texts.len() as u64).with_style(style).with_message("reading texts");
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let input = |text: &&str| EmbedInput { input: Some(Input::Text((*text).to_owned())) };
        let request = EmbedRequest {
            model: name.to_owned(),
            inputs: batch.iter().map(input).collect(),
            truncate: true,
            ..EmbedRequest::default()
        };
        let answer = client.embeddings.embed(request).await.map_err(|status| refused(&status))?.into_inner();
        vectors.extend(answer.embeddings.into_iter().map(|embedding| embedding.values));
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    let width = vectors.first().map_or(0, Vec::len);
    if vectors.len() != texts.len() || width == 0 || vectors.iter().any(|vector| vector.len() != width) {
        return Err(Failure::failed(format!("{name} did not give one vector for each text")));
    }
    Ok((Encoder { name: name.to_owned(), model: digest, adapter: None, width }, vectors))
}

/// The version of a model that the swarm serves.
async fn digest(client: &mut Client, model: &str) -> Result<String, Failure> {
    let models = client.swarm.list_models(ListModelsRequest {}).await.map_err(|status| refused(&status))?;
    let digest = models.into_inner().models.into_iter().find(|info| info.name == model).map(|info| info.digest);
    digest.filter(|digest| !digest.is_empty()).ok_or_else(|| {
        Failure::failed(format!("the swarm does not serve the encoder's model {model}; see `slm get all`"))
    })
}
