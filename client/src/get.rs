//! `slm get`: models, adapters and routes, and the workers that have them loaded.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use slm_crds::nearest::{did_you_mean, nearest};
use slm_proto::v1::{ListModelsRequest, ModelInfo};

use crate::connection::{Client, ServerArgs, refused};
use slm_console::{
    exit::Failure,
    output::{self, short_digest},
};

/// Lists models, adapters and routes of a running swarm, with their workers and memory per worker.
///
/// Memory of an adapter: its matrices; of a base model: its weights and, when all pages are in use, its keys and values.
/// The router reports what its workers report to it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm get all\n  slm get adapters -o wide\n  slm get model smollm2 -o json")]
pub struct GetArgs {
    /// Kind to list.
    #[arg(value_enum, default_value_t, hide_default_value = true)]
    what: KindFilter,
    /// Name of a single object.
    name: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Print JSON; the same as -o json.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// A kind, under any of its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum KindFilter {
    /// Everything.
    #[default]
    All,
    /// Base models.
    #[value(aliases = ["model", "slm", "slmmodel", "slmmodels"])]
    Models,
    /// Experts on them.
    #[value(aliases = ["adapter", "lora", "loraadapter", "loraadapters"])]
    Adapters,
    /// Names with rules behind them.
    #[value(aliases = ["route", "sroute", "swarmroute", "swarmroutes"])]
    Routes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// More columns.
    Wide,
    /// For programs.
    Json,
}

/// Runs it.
pub async fn execute(args: GetArgs) -> Result<(), Failure> {
    let mut client = Client::connect(&args.server).await?;
    let listed = client.swarm.list_models(ListModelsRequest {}).await.map_err(|status| refused(&status))?;
    let models = select(listed.into_inner().models, args.what, args.name.as_deref())?;
    if args.json || args.output == Some(Format::Json) {
        return output::json(&models.iter().map(json).collect::<Vec<_>>());
    }
    if models.is_empty() {
        anstream::eprintln!("nothing found");
        return Ok(());
    }
    let (heading, rows) = table(&models, args.output == Some(Format::Wide));
    output::table(&heading, &rows)
}

fn select(models: Vec<ModelInfo>, what: KindFilter, name: Option<&str>) -> Result<Vec<ModelInfo>, Failure> {
    let kind = match what {
        KindFilter::All => None,
        KindFilter::Models => Some("SlmModel"),
        KindFilter::Adapters => Some("LoraAdapter"),
        KindFilter::Routes => Some("SwarmRoute"),
    };
    let mut of_kind = models;
    of_kind.retain(|model| kind.is_none_or(|kind| model.kind == kind));
    let Some(name) = name else { return Ok(of_kind) };
    if let Some(found) = of_kind.iter().find(|model| model.name == name) {
        return Ok(vec![found.clone()]);
    }
    let near = nearest(name, of_kind.iter().map(|model| model.name.as_str()));
    let kind = kind.unwrap_or("model, adapter or route");
    Err(Failure::failed(format!("no {kind} is named `{name}`{}", did_you_mean(&near))))
}

fn table(models: &[ModelInfo], wide: bool) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut heading = vec!["KIND", "NAME", "READY", "MODEL", "WORKERS", "MEMORY", "DIGEST"];
    if wide {
        heading.extend(["IN SLOT", "PROVIDER", "FLAVOUR", "NODES", "ADDRESSES", "DESCRIPTION"]);
    }
    let row = |model: &ModelInfo| {
        let is_route = model.kind == "SwarmRoute";
        let mut row = vec![
            model.kind.clone(),
            model.name.clone(),
            if model.ready { "True" } else { "False" }.to_owned(),
            or_dash(&model.model),
            if is_route { "-".to_owned() } else { model.workers.len().to_string() },
            if model.bytes == 0 { "-".to_owned() } else { BinaryBytes(model.bytes).to_string() },
            or_dash(&if wide { model.digest.clone() } else { short_digest(&model.digest) }),
        ];
        if wide {
            let nodes = model.nodes.iter().map(|part| format!("{}:{}", part.provider, part.nodes)).collect::<Vec<_>>();
            let is_adapter = model.kind == "LoraAdapter";
            let in_slot = || format!("{}/{}", model.in_slots, model.workers.len());
            row.push(if is_adapter { in_slot() } else { "-".to_owned() });
            row.extend([or_dash(&model.execution_provider), or_dash(&model.flavour), or_dash(&nodes.join(","))]);
            row.extend([or_dash(&model.workers.join(",")), or_dash(&model.description)]);
        }
        row
    };
    (heading, models.iter().map(row).collect())
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn json(model: &ModelInfo) -> Value {
    json!({
        "kind": model.kind,
        "name": model.name,
        "ready": model.ready,
        "model": model.model,
        "description": model.description,
        "digest": model.digest,
        "workers": model.workers,
        "inSlots": model.in_slots,
        "bytes": model.bytes,
        "executionProvider": model.execution_provider,
        "flavour": model.flavour,
        "nodes": model.nodes.iter().map(|part| (part.provider.clone(), part.nodes)).collect::<BTreeMap<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<ModelInfo> {
        let info =
            |kind: &str, name: &str| ModelInfo { kind: kind.to_owned(), name: name.to_owned(), ..Default::default() };
        vec![info("SlmModel", "smollm2"), info("LoraAdapter", "banking"), info("SwarmRoute", "assistant")]
    }

    #[test]
    fn selects_by_kind_and_name() {
        let names =
            |what, name| select(models(), what, name).unwrap().into_iter().map(|model| model.name).collect::<Vec<_>>();
        assert_eq!(names(KindFilter::All, None).len(), 3);
        assert_eq!(names(KindFilter::Adapters, None), ["banking"]);
        assert_eq!(names(KindFilter::All, Some("assistant")), ["assistant"]);
        let Err(Failure::Failed(message)) = select(models(), KindFilter::Adapters, Some("bankin")) else { panic!() };
        assert_eq!(message, "no LoraAdapter is named `bankin`; did you mean `banking`?");
    }

    #[test]
    fn rows_are_as_wide_as_their_heading() {
        for wide in [false, true] {
            let (heading, rows) = table(&models(), wide);
            assert!(rows.iter().all(|row| row.len() == heading.len()));
        }
    }
}
