//! `options` of a request: sampling under Ollama's names.

use serde_json::{Map, Value};
use slm_crds::nearest::{did_you_mean, nearest};
use slm_proto::v1::{GenerateRequest, Sampling};

use crate::http::{
    error::ApiError,
    fields::{Fields, integer, read, shown},
    params,
};

/// Name of the field.
pub(super) const PATH: &str = "options";

/// Options that are read.
const NAMES: [&str; 10] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "num_predict",
    "stop",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
];

/// How Ollama runs a model, which the manifest says here. They change nothing about an answer.
const HARMLESS: [&str; 13] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "numa",
    "low_vram",
    "use_mmap",
    "use_mlock",
    "f16_kv",
    "vocab_only",
    "logits_all",
];

/// Sampling that is not supported, and the number that means "not used".
const UNSUPPORTED: [(&str, f64); 4] = [("typical_p", 1.0), ("tfs_z", 1.0), ("mirostat", 0.0), ("repeat_last_n", -1.0)];

/// Takes `options` into `request`.
///
/// # Errors
/// An option has a value that it cannot have, or is not supported; the parameter is its path.
pub(super) fn take(fields: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    let options = fields.take::<Map<String, Value>>(PATH)?.unwrap_or_default();
    let mut options = Fields::new(options);
    read_into(&mut options, request).map_err(|error| error.within(PATH))?;
    options.rest().try_for_each(|(name, value)| refuse(&name, &value))
}

fn read_into(options: &mut Fields, request: &mut GenerateRequest) -> Result<(), ApiError> {
    request.sampling = Some(Sampling {
        temperature: options.take("temperature")?,
        top_k: params::top_k(options)?,
        top_p: options.take("top_p")?,
        min_p: options.take("min_p")?,
        repetition_penalty: options.take("repeat_penalty")?,
        presence_penalty: options.take("presence_penalty")?,
        frequency_penalty: options.take("frequency_penalty")?,
        seed: options.take::<i64>("seed")?.map(i64::cast_unsigned),
        ..Default::default()
    });
    request.max_tokens = num_predict(options)?;
    request.stop = params::stop(options)?;
    Ok(())
}

/// -1: no bound, -2: until the context is full; the context is the bound of both.
fn num_predict(options: &mut Fields) -> Result<Option<u32>, ApiError> {
    match options.raw("num_predict") {
        None => Ok(None),
        Some(value) if matches!(integer(&value), Some(-1 | -2)) => Ok(None),
        Some(value) => read("num_predict", &value).map(Some),
    }
}

fn refuse(name: &str, value: &Value) -> Result<(), ApiError> {
    if HARMLESS.contains(&name) || (name.starts_with("mirostat_") && value.is_number()) {
        return Ok(());
    }
    let shown_name: String = name.chars().take(80).collect();
    let path = format!("{PATH}.{shown_name}");
    match UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
        Some((_, neutral)) if value.as_f64() == Some(*neutral) => Ok(()),
        Some((_, neutral)) => {
            let message = format!("`{path}` is not supported, so it has to be {neutral}, not {}", shown(value));
            Err(ApiError::param(&path, message).code("unsupported_parameter"))
        }
        None => {
            let near = did_you_mean(&nearest(&shown_name, NAMES));
            Err(ApiError::param(&path, format!("unknown option `{path}`{near}")).code("unknown_parameter"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(options: Value) -> Result<GenerateRequest, ApiError> {
        let mut request = GenerateRequest::default();
        let body = json!({ "options": options }).as_object().expect("an object").clone();
        take(&mut Fields::new(body), &mut request)?;
        Ok(request)
    }

    #[test]
    fn options_become_sampling() {
        let request = taken(json!({
            "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "seed": 42, "num_predict": 9, "stop": ["a", "b"],
            "repeat_penalty": 1.1, "presence_penalty": 1.5, "frequency_penalty": 1.0,
            "num_ctx": 4096, "num_gpu": 99, "mirostat": 0, "mirostat_tau": 5.0, "typical_p": 1.0, "repeat_last_n": -1,
        }))
        .expect("good");
        let sampling = request.sampling.expect("sampling");
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(40), Some(42)));
        assert_eq!((sampling.repetition_penalty, sampling.presence_penalty), (Some(1.1), Some(1.5)));
        assert_eq!((request.max_tokens, request.stop), (Some(9), vec!["a".to_owned(), "b".to_owned()]));
        for unbounded in [-1, -2] {
            assert_eq!(taken(json!({ "num_predict": unbounded })).expect("good").max_tokens, None);
        }
    }

    #[test]
    fn refusals_name_the_option() {
        for (options, param, words) in [
            (json!({ "temperature": "hot" }), "options.temperature", "`options.temperature` has to be a number"),
            (json!({ "num_predict": -3 }), "options.num_predict", "an integer from 0"),
            (json!({ "mirostat": 2 }), "options.mirostat", "has to be 0, not 2"),
            (json!({ "repeat_last_n": 64 }), "options.repeat_last_n", "has to be -1, not 64"),
            (json!({ "temprature": 1 }), "options.temprature", "did you mean `temperature`"),
        ] {
            let error = taken(options).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param));
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
        let error = taken(json!([])).expect_err("a list");
        assert!(error.body.message.contains("`options` has to be an object"), "{}", error.body.message);
    }
}
