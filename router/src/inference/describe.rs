//! What a model takes and gives, and which models there are.

use slm_proto::v1::ModelInfo;

use super::VERSION;
use crate::{access::table::Caller, catalog, http::error::ApiError, refusal::Refusal, resolve::resolve, view::View};

/// A tensor of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorDescription {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    /// -1: one for each text.
    pub(crate) shape: i64,
}

const fn tensor(name: &'static str, datatype: &'static str, shape: i64) -> TensorDescription {
    TensorDescription { name, datatype, shape }
}

/// The inputs of every model that generates. Every parameter of a completion is an input, too.
pub(crate) const TENSORS: [TensorDescription; 7] = [
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
