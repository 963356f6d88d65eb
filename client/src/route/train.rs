//! `slm route train`: the head of a route from labelled texts.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use slm_convert::peft;
use slm_crds::{
    manifest::{self, Manifests},
    model::Task,
    route::TargetKind,
};
use slm_head::{Data, Fitted, Head, LabelledText, TrainingSet, fit};
use slm_launch::StoreArgs;

use super::encode::vectors;
use crate::{
    connection::{Client, ServerArgs},
    swarm::with_swarm,
};
use slm_console::{
    exit::{self, Failure},
    output,
};

/// Trains the head of a route.
///
/// The head gives a text its label, the label's expert, and says how typical the text is of those it was trained on. It is written into the
/// folder of the LoraAdapter that is the route's `classifier.model`; a swarm that runs takes it as any new version of an adapter.
#[derive(Args, Debug)]
#[command(after_help = "The data are JSON lines, or CSV with a header if the file's name ends with .csv:\n  \
    {\"text\": \"what is my balance\", \"label\": \"balance\", \"expert\": \"banking\"}\n  \
    {\"text\": \"who wrote hamlet\", \"label\": null}\n\
    `expert` may be left out where the label is the expert's own name. Texts without a label are out of scope: the head is not trained \
    on them, but what it says of them is printed.\n\n\
    Examples:\n  slm route train assistant --data texts.jsonl -f swarm\n  \
    slm route train assistant --data texts.csv -f swarm --running --out heads/assistant")]
pub struct TrainArgs {
    /// Name of the SwarmRoute.
    route: String,
    /// File with the texts.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The folder of manifests that has the route, its classifier and the encoder, or a single manifest.
    #[arg(short, long, value_name = "DIR")]
    filename: PathBuf,
    /// Folder for the head [default: that of the classifier's `file:` source].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Ask the swarm that runs at --server for vectors, instead of starting that of the manifests for this command.
    #[arg(long)]
    running: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// What the manifests say of the head.
struct Place {
    /// Name of what makes the vectors: the adapter if it changes the model, else the model.
    encoder: String,
    model: String,
    out: PathBuf,
    /// Names of the experts that the route may choose.
    targets: Vec<String>,
}

/// Runs it.
pub(super) async fn execute(args: TrainArgs) -> Result<(), Failure> {
    let manifests = manifest::read(&args.filename).map_err(Failure::usage)?;
    let place = place(&manifests, &args.route, args.out.clone()).map_err(Failure::usage)?;
    let file = args.data.clone();
    let data = exit::blocking(move || Data::read(&file).map_err(Failure::usage)).await?;
    check_experts(&data, &place).map_err(Failure::usage)?;
    let running = args.running.then_some(&args.server);
    with_swarm(running, (&args.filename, &args.store), async |server| train(server, &args, place, data).await).await
}

async fn train(server: &ServerArgs, args: &TrainArgs, place: Place, data: Data) -> Result<(), Failure> {
    let mut client = Client::connect(server).await?;
    let texts: Vec<&str> = data.texts.iter().map(|text| text.text.as_str()).collect();
    let (mut encoder, vectors) = vectors(&mut client, (&place.encoder, &place.model), &texts).await?;
    if place.out.is_dir() && has_adapter(&place.out) {
        encoder.adapter = peft::digest_of_changes(&place.out).map_err(Failure::failed)?;
    }
    output::note(&format!("training on {} labels of {} texts", data.labels.len(), data.texts.len()));
    let out = place.out.clone();
    let trained = move || {
        let scope = |wanted: bool| move |(text, _): &(&LabelledText, &Vec<f32>)| text.label.is_some() == wanted;
        let of = |wanted: bool| data.texts.iter().zip(&vectors).filter(scope(wanted));
        let set = TrainingSet {
            encoder,
            labels: data.labels.clone(),
            vectors: of(true).map(|(_, vector)| vector.clone()).collect(),
            of_texts: of(true).filter_map(|(text, _)| text.label).collect(),
            data: data.digest.clone(),
        };
        let Fitted { head, .. } = fit(set).map_err(Failure::failed)?;
        head.save(&out).map_err(Failure::failed)?;
        let others: Vec<f32> = of(false).map(|(_, vector)| head.classify(vector).typicality).collect();
        Ok((head, others))
    };
    let (head, others) = exit::blocking(trained).await?;
    report(args, &place.out, &head, &others)
}

/// Says how good the head is.
fn report(args: &TrainArgs, out: &Path, head: &Head, others: &[f32]) -> Result<(), Failure> {
    const SHARES: [f64; 3] = [0.01, 0.02, 0.05];
    let found = |share: f64| others.iter().filter(|typicality| f64::from(**typicality) <= share).count();
    let training = head.training();
    if args.json {
        let rejected = SHARES.map(|share| json!({ "false_rejections": share, "found": found(share) }));
        return output::json(&json!({
            "route": args.route,
            "head": out,
            "labels": head.labels().len(),
            "texts": training.texts,
            "data": training.data,
            "held_out": { "folds": training.folds, "label_accuracy": training.label_accuracy, "expert_accuracy": training.expert_accuracy },
            "out_of_scope": { "texts": others.len(), "rejected": rejected },
        }));
    }
    output::line(&format!("head of {} labels in {}", head.labels().len(), out.display()))?;
    output::line(&format!(
        "held out in {} parts: {:.1} % right label, {:.1} % right expert",
        training.folds,
        100.0 * training.label_accuracy,
        100.0 * training.expert_accuracy
    ))?;
    if others.is_empty() {
        return Ok(());
    }
    for share in SHARES {
        let (found, percent) = (found(share), 100.0 * share);
        output::line(&format!(
            "of {} texts out of scope {found} are found at falseRejections {percent} %",
            others.len()
        ))?;
    }
    Ok(())
}

/// Where the head of the route belongs, and what makes its vectors.
fn place(manifests: &Manifests, route: &str, out: Option<PathBuf>) -> Result<Place, String> {
    let names = || manifests.routes.iter().filter_map(|route| route.object.metadata.name.as_deref());
    let spec = manifests.routes.iter().find(|found| found.object.metadata.name.as_deref() == Some(route));
    let Some(spec) = spec.map(|found| &found.object.spec) else {
        let known: Vec<_> = names().collect();
        return Err(format!("no SwarmRoute is named `{route}`; there are: {}", known.join(", ")));
    };
    let Some(classifier) = &spec.classifier else {
        return Err(format!(
            "the SwarmRoute `{route}` has no spec.classifier; name in `model` the LoraAdapter for its head"
        ));
    };
    let name = &classifier.model.name;
    let adapter = manifests.adapters.iter().find(|found| found.object.metadata.name.as_deref() == Some(name));
    let (TargetKind::LoraAdapter, Some(adapter)) = (classifier.model.kind, adapter) else {
        return Err(format!(
            "the classifier `{name}` is no LoraAdapter; heads are trained for LoraAdapters on a model with `task: Embed`"
        ));
    };
    let model = adapter.object.spec.model_ref.name.clone();
    let task = manifests.models.iter().find(|found| found.object.metadata.name.as_deref() == Some(&model));
    if task.is_none_or(|found| found.object.spec.task != Task::Embed) {
        return Err(format!("the model `{model}` of the classifier `{name}` needs `task: Embed`"));
    }
    let source = &adapter.object.spec.source;
    let own = source.path(adapter.folder());
    let Some(out) = out.or_else(|| own.clone()) else {
        return Err(format!("the source of `{name}` is {}; name a folder with --out, and push it there", source.uri));
    };
    let encoder = if own.is_some_and(|own| has_adapter(&own)) { name.clone() } else { model.clone() };
    let targets = classifier.targets.iter().map(|target| target.name.clone()).collect();
    Ok(Place { encoder, model, out, targets })
}

/// Whether the folder has files that change the encoder.
fn has_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").is_file()
}

/// Every expert of the data is one that the route can choose: else its texts would be out of scope.
fn check_experts(data: &Data, place: &Place) -> Result<(), String> {
    let stray = data.labels.iter().find(|label| !place.targets.contains(&label.expert));
    stray.map_or(Ok(()), |label| {
        let (name, expert, targets) = (&label.name, &label.expert, place.targets.join(", "));
        Err(format!(
            "the label `{name}` is of `{expert}`, which is no target of the classifier; its targets are {targets}"
        ))
    })
}
