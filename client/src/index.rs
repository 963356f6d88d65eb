//! `slm index`: a folder of texts into the store of a route.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use slm_console::{exit::Failure, output};
use slm_crds::{manifest, retrieve::Retrieve};
use slm_proto::v1::{EmbedInput, EmbedRequest, embed_input::Input};
use slm_retrieve::{
    chunk::{SIZE_MIN, Sizes},
    files,
    index::{Done, Embed, index},
    secrets::Secrets,
    store::Store,
};

use crate::connection::{Client, ServerArgs};

/// Makes the store of a route hold the passages of a folder, and nothing else.
///
/// Reads the *.md, *.markdown and *.txt of the folder and of those in it, cuts them into passages, asks the running swarm for their
/// vectors, and stores what is new; what no file has any more is removed. A second run without changes stores nothing. The
/// store, and the encoder, are those of the route's manifest.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm index docs --route helpdesk -f swarm\n  \
                  kubectl get swarmroutes,slmmodels,loraadapters -o yaml > swarm.yaml; slm index docs --route helpdesk -f swarm.yaml --server HOST:PORT")]
pub struct IndexArgs {
    /// The folder with the texts.
    folder: PathBuf,
    /// A SwarmRoute with `retrieve`.
    #[arg(long, value_name = "NAME")]
    route: String,
    /// The folder of manifests that has the route, or a single one.
    #[arg(short, long, value_name = "DIR")]
    filename: PathBuf,
    /// File of Secret manifests with the password or token of the store.
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Characters of a passage at most. Encoders cut what is longer than they take: MiniLM takes about 1000.
    #[arg(long, value_name = "N", default_value_t = 800, value_parser = clap::value_parser!(u32).range(64..=65536))]
    size: u32,
    /// Characters that a passage repeats of the one before at most, where a paragraph is cut.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=4096))]
    overlap: u32,
    /// Print one JSON object with what was done.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// The encoder of a running swarm.
struct Encoder {
    client: Client,
    name: String,
}

impl Embed for Encoder {
    type Error = String;

    async fn embed(&self, texts: Vec<String>) -> Result<(Vec<Vec<f32>>, String), String> {
        let input = |text| EmbedInput { input: Some(Input::Text(text)) };
        let request = EmbedRequest {
            model: self.name.clone(),
            inputs: texts.into_iter().map(input).collect(),
            truncate: true,
            ..EmbedRequest::default()
        };
        let answer = self.client.embeddings.clone().embed(request).await;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        let vectors = answer.embeddings.into_iter().map(|embedding| embedding.values).collect();
        Ok((vectors, answer.expert.unwrap_or_default().digest))
    }
}

/// Runs it.
pub async fn execute(args: IndexArgs) -> Result<(), Failure> {
    let retrieve = args.retrieve()?;
    let texts = files::texts(&args.folder).map_err(Failure::usage)?;
    for (path, why) in &texts.skipped {
        output::note(&format!("skipped {path}: {why}"));
    }
    // A wrong folder would take the passages of the right one away.
    if texts.texts.is_empty() {
        let folder = args.folder.display();
        return Err(Failure::usage(format!("{folder}: no *.md, *.markdown or *.txt in it; nothing was changed")));
    }
    let store = Store::new(&retrieve, Secrets(args.secrets.clone())).map_err(Failure::usage)?;
    let client = Client::connect(&args.server).await?;
    let encoder = Encoder { client, name: retrieve.encoder.name.clone() };
    let sizes = Sizes { most: (args.size as usize).max(SIZE_MIN), overlap: args.overlap as usize };
    let progress = |stored, all| output::note(&format!("stored {stored} of {all} passages"));
    let done = index(&store, &encoder, &texts, sizes, progress).await.map_err(Failure::failed)?;
    let Done { passages, added, removed } = done;
    let (files, skipped) = (texts.texts.len(), texts.skipped.len());
    if args.json {
        return output::json(&json!({
            "files": files, "skipped": skipped, "passages": passages, "added": added, "removed": removed,
        }));
    }
    output::line(&format!(
        "{passages} passages of {files} files are in {}: {added} added, {removed} removed, {skipped} files skipped",
        store.name()
    ))
}

impl IndexArgs {
    fn retrieve(&self) -> Result<Retrieve, Failure> {
        let manifests = manifest::read(&self.filename).map_err(Failure::usage)?;
        let named = |name: &Option<String>| name.as_deref() == Some(&self.route);
        let route = manifests.routes.into_iter().find(|route| named(&route.object.metadata.name));
        let (folder, name) = (self.filename.display(), &self.route);
        let route = route.ok_or_else(|| Failure::usage(format!("{folder}: no SwarmRoute is named `{name}`")))?;
        let missing = || Failure::usage(format!("{folder}: the SwarmRoute `{name}` has no spec.retrieve; add it"));
        route.object.spec.retrieve.ok_or_else(missing)
    }
}

// Kept beside the arguments, whose help names it.
const _: () = assert!(SIZE_MIN == 64);
