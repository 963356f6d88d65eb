//! What a model takes and gives, and which models there are.

use slm_proto::v1::{ModelInfo, WorkerState};

use super::{EMBEDDING, VERSION};
use crate::{
    access::table::Caller,
    catalog,
    http::error::ApiError,
    refusal::Refusal,
    resolve::resolve,
    view::{Entry, View},
};

/// The task of workers that make vectors, as they report it.
const EMBED: &str = "Embed";

/// A tensor of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorDescription {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    /// -1: one for each text.
    size: i64,
    /// Size of a row, of a tensor that has rows.
    row: Option<i64>,
}

impl TensorDescription {
    pub(crate) fn shape(&self) -> Vec<i64> {
        std::iter::once(self.size).chain(self.row).collect()
    }
}

const fn tensor(name: &'static str, datatype: &'static str, size: i64) -> TensorDescription {
    TensorDescription { name, datatype, size, row: None }
}

/// The inputs of every model that generates. Every parameter of a completion is an input, too.
const TENSORS: [TensorDescription; 7] = [
    tensor(super::TEXT_INPUT, "BYTES", -1),
    tensor("stream", "BOOL", 1),
    tensor("sampling_parameters", "BYTES", 1),
    tensor("exclude_input_in_output", "BOOL", 1),
    tensor("return_finish_reason", "BOOL", 1),
    tensor("return_num_input_tokens", "BOOL", 1),
    tensor("return_num_output_tokens", "BOOL", 1),
];

/// Their outputs; the first is given unless the request names others.
pub(crate) const OUTPUTS: [TensorDescription; 4] = [
    tensor("text_output", "BYTES", -1),
    tensor("finish_reason", "BYTES", -1),
    tensor("num_input_tokens", "UINT32", -1),
    tensor("num_output_tokens", "UINT32", -1),
];

/// The inputs of a model that embeds.
const TEXTS: [TensorDescription; 3] =
    [tensor(super::TEXT_INPUT, "BYTES", -1), tensor("dimensions", "UINT32", 1), tensor("truncate", "BOOL", 1)];

/// What a name takes and gives, inputs first. A model that reranks or classifies has no tensors: these are other APIs' requests.
pub(crate) fn describe(view: &View, name: &str) -> (Vec<TensorDescription>, Vec<TensorDescription>) {
    match state(view, name) {
        Some(state) if state.task == EMBED => {
            let vectors = tensor(EMBEDDING, "FP32", -1);
            (TEXTS.into(), vec![TensorDescription { row: Some(state.vector_size.into()), ..vectors }])
        }
        Some(state) if ["Rerank", "Classify"].contains(&state.task.as_str()) => (Vec::new(), Vec::new()),
        _ => (TENSORS.into(), OUTPUTS.into()),
    }
}

/// Whether the workers behind a name make vectors.
pub(crate) fn embeds(view: &View, name: &str) -> bool {
    state(view, name).is_some_and(|state| state.task == EMBED)
}

/// The state of a worker behind a name; of a route, behind its fallback.
fn state<'v>(view: &'v View, name: &str) -> Option<&'v WorkerState> {
    let expert = match view.index.names.get(name)? {
        Entry::Expert(expert) => expert,
        Entry::Route(route) => view.index.expert(&route.fallback().name)?,
    };
    view.workers_of(&expert.model).find_map(|worker| worker.state.as_deref().ok())
}

/// The output of that name.
pub(super) fn named(name: &str) -> Option<&'static str> {
    OUTPUTS.iter().find(|output| output.name == name).map(|output| output.name)
}

/// Every name that a request may carry, or only those that are ready.
pub(crate) fn index(view: &View, caller: &Caller, only_ready: bool) -> Vec<ModelInfo> {
    let models = catalog::catalog(view, caller).into_iter();
    models.filter(|model| model.ready || !only_ready).collect()
}

/// Whether the model would answer now.
///
/// # Errors
/// No such name, or not for this caller.
pub(crate) fn ready(view: &View, caller: &Caller, name: &str) -> Result<bool, Refusal> {
    resolve(view, name, caller)?;
    Ok(catalog::entry(view, name).is_some_and(|model| model.ready))
}

/// # Errors
/// Another version than the one that there is.
pub(crate) fn same_version(version: &str) -> Result<(), ApiError> {
    if version.is_empty() || version == VERSION {
        return Ok(());
    }
    let version: String = version.chars().take(40).collect();
    let message =
        format!("there is no version {version:?}; versions are chosen by manifests: leave it out, or send {VERSION:?}");
    Err(ApiError::param("model_version", message))
}
