//! Requests: one prompt for each text, and the parameters of completions, given as parameters or as tensors.

use std::time::Duration;

use serde_json::{Map, Value};
use slm_proto::v1::{EmbedInput, EmbedRequest, GenerateRequest, embed_input, generate_request::Input};

use super::{
    EMBEDDING, TEXT_INPUT,
    describe::{OUTPUTS, named},
    tensor::{Datatype, Tensor},
};
use crate::http::{
    error::ApiError,
    fields::{Fields, read},
    head::CompletionKind,
    params,
    unsupported::LeftOver,
};

/// A request, whichever transport it came by.
#[derive(Debug, Default)]
pub(crate) struct Infer {
    pub(crate) model: String,
    /// Given back.
    pub(crate) id: String,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted; empty: those that inputs ask for.
    pub(crate) outputs: Vec<String>,
}

/// What is asked of workers, and how the answer is to be given.
#[derive(Debug)]
pub(crate) struct Asked {
    /// One for each text.
    pub(crate) requests: Vec<GenerateRequest>,
    /// `None`: as the call has it.
    pub(crate) stream: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) form: Form,
}

/// Vectors that are asked for.
#[derive(Debug)]
pub(crate) struct AskedVectors {
    pub(crate) request: EmbedRequest,
    pub(crate) timeout: Option<Duration>,
}

/// The form of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// Names, of [`OUTPUTS`].
    pub(crate) outputs: Vec<&'static str>,
    /// Texts that go before their answers.
    pub(crate) before: Vec<String>,
}

/// The length of an answer unless the request says it, as of `/v1/completions`.
const MAX_TOKENS: u32 = 16;
/// Inputs that ask for an output.
const FLAGS: [(&str, &str); 3] = [
    ("return_finish_reason", "finish_reason"),
    ("return_num_input_tokens", "num_input_tokens"),
    ("return_num_output_tokens", "num_output_tokens"),
];
const LEFT_OVER: LeftOver<'_> = LeftOver {
    // What Triton's clients send for its own sake.
    harmless: &[
        "triton_enable_empty_final_response",
        "binary_data_output",
        "sequence_id",
        "sequence_start",
        "sequence_end",
    ],
    unsupported: &["image", "lora_name", "logprobs", "n", "best_of"],
    read: &params::NAMES,
};

/// What a model that embeds reads.
const LEFT_OVER_OF_VECTORS: LeftOver<'_> =
    LeftOver { read: &["text_input", "dimensions", "truncate", "priority", "timeout"], ..LEFT_OVER };

impl Infer {
    /// A request to a model that embeds.
    ///
    /// # Errors
    /// A tensor or parameter that is wrong, unknown or missing.
    pub(crate) fn asked_vectors(self) -> Result<AskedVectors, ApiError> {
        if let Some(other) = self.outputs.iter().find(|output| *output != EMBEDDING) {
            let shown: String = other.chars().take(80).collect();
            let message = format!("there is no output `{shown}`; the output of a model that embeds is {EMBEDDING}");
            return Err(ApiError::param("outputs", message));
        }
        let (texts, parameters) = sorted(self.inputs, self.parameters)?;
        let mut fields = Fields::new(parameters);
        let timeout = fields.take::<u32>("timeout")?.filter(|timeout| *timeout > 0);
        let input = |text| EmbedInput { input: Some(embed_input::Input::Text(text)) };
        let request = EmbedRequest {
            model: self.model,
            inputs: texts.into_iter().map(input).collect(),
            dimensions: fields.take("dimensions")?,
            truncate: fields.take("truncate")?.unwrap_or(false),
            priority: fields.take("priority")?.unwrap_or(0),
            request_id: self.id,
            ..EmbedRequest::default()
        };
        LEFT_OVER_OF_VECTORS.refuse(fields)?;
        let timeout = timeout.map(|microseconds| Duration::from_micros(microseconds.into()));
        Ok(AskedVectors { request, timeout })
    }

    /// # Errors
    /// A tensor or parameter that is wrong, unknown or missing.
    pub(crate) fn asked(self, texts_max: usize) -> Result<Asked, ApiError> {
        let (texts, parameters) = sorted(self.inputs, self.parameters)?;
        if texts.len() > texts_max {
            let message = format!("`{TEXT_INPUT}` holds {} texts; at most {texts_max} are taken at once", texts.len());
            return Err(ApiError::param(TEXT_INPUT, message));
        }
        let mut fields = Fields::new(parameters);
        let stream = fields.take::<bool>("stream")?;
        let timeout = fields.take::<u32>("timeout")?.filter(|timeout| *timeout > 0);
        let exclude = fields.take::<bool>("exclude_input_in_output")?.unwrap_or(true);
        let outputs = outputs(&mut fields, &self.outputs)?;
        let (mut request, _) = params::take(&mut fields, CompletionKind::Text)?;
        LEFT_OVER.refuse(fields)?;
        request.max_tokens.get_or_insert(MAX_TOKENS);
        request.model = self.model;
        request.request_id = self.id;
        let before = if exclude { Vec::new() } else { texts.clone() };
        let prompt = |text| GenerateRequest { input: Some(Input::Prompt(text)), ..request.clone() };
        Ok(Asked {
            requests: texts.into_iter().map(prompt).collect(),
            stream,
            timeout: timeout.map(|microseconds| Duration::from_micros(microseconds.into())),
            form: Form { outputs, before },
        })
    }
}

/// The texts, and every other input as the parameter that it is.
fn sorted(inputs: Vec<Tensor>, parameters: Map<String, Value>) -> Result<(Vec<String>, Map<String, Value>), ApiError> {
    let (mut texts, mut all) = (None, Map::new());
    for (name, value) in parameters {
        put(&mut all, name, value)?;
    }
    for input in inputs {
        if input.name == TEXT_INPUT {
            let given = strings(input)?;
            if texts.replace(given).is_some() {
                return Err(ApiError::param(TEXT_INPUT, format!("there are two inputs `{TEXT_INPUT}`; send one")));
            }
        } else {
            put(&mut all, input.name, one_or_all(input.values))?;
        }
    }
    match texts {
        Some(texts) if !texts.is_empty() => Ok((texts, all)),
        Some(_) => Err(ApiError::param(TEXT_INPUT, format!("input `{TEXT_INPUT}` is empty; send a text to continue"))),
        None => {
            let message =
                format!("the input `{TEXT_INPUT}` is missing; send a text to continue, as BYTES of the shape [1]");
            Err(ApiError::param(TEXT_INPUT, message))
        }
    }
}

fn strings(input: Tensor) -> Result<Vec<String>, ApiError> {
    if input.datatype != Datatype::Bytes {
        return Err(ApiError::param(&input.name, format!("the datatype of input `{}` has to be BYTES", input.name)));
    }
    input.values.iter().enumerate().map(|(index, text)| read(&format!("{}[{index}]", input.name), text)).collect()
}

/// The value of a tensor with one element is that element.
fn one_or_all(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
}

/// `sampling_parameters` is a JSON object of parameters, as text.
fn put(all: &mut Map<String, Value>, name: String, value: Value) -> Result<(), ApiError> {
    if name == "sampling_parameters" {
        let text: String = read(&name, &value)?;
        let parameters = serde_json::from_str::<Map<String, Value>>(&text)
            .map_err(|error| ApiError::param(&name, format!("`{name}` has to be a JSON object, as text: {error}")))?;
        return parameters.into_iter().try_for_each(|(name, value)| put(all, name, unquoted(value)));
    }
    let twice = || ApiError::param(&name, format!("`{name}` is given twice; give it as an input or as a parameter"));
    if all.contains_key(&name) {
        return Err(twice());
    }
    all.insert(name, value);
    Ok(())
}

/// Triton's examples write numbers of `sampling_parameters` as strings.
fn unquoted(value: Value) -> Value {
    match value.as_str().map(serde_json::from_str::<Value>) {
        Some(Ok(number @ (Value::Number(_) | Value::Bool(_)))) => number,
        _ => value,
    }
}

fn outputs(fields: &mut Fields, wanted: &[String]) -> Result<Vec<&'static str>, ApiError> {
    let mut outputs = Vec::new();
    for name in wanted {
        let output = named(name).ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            let known = OUTPUTS.map(|output| output.name).join(", ");
            ApiError::param("outputs", format!("there is no output `{shown}`; outputs are {known}"))
        })?;
        outputs.push(output);
    }
    if wanted.is_empty() {
        outputs.push(OUTPUTS[0].name);
    }
    for (flag, output) in FLAGS {
        if fields.take::<bool>(flag)?.unwrap_or(false) && !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn infer(inputs: Value, parameters: Value) -> Infer {
        let inputs = inputs.as_object().expect("an object").iter().map(|(name, values)| {
            let values = values.as_array().expect("a list").clone();
            let datatype = if values.first().is_some_and(Value::is_string) { Datatype::Bytes } else { Datatype::Fp32 };
            Tensor { name: name.clone(), datatype, values }
        });
        Infer {
            model: "m".to_owned(),
            inputs: inputs.collect(),
            parameters: parameters.as_object().expect("an object").clone(),
            ..Infer::default()
        }
    }

    #[test]
    fn texts_of_a_model_that_embeds() {
        let asked = infer(json!({ "text_input": ["a", "b"], "truncate": [true] }), json!({ "dimensions": 8 }));
        let AskedVectors { request, timeout } = asked.asked_vectors().expect("good");
        assert_eq!((request.inputs.len(), request.dimensions, request.truncate), (2, Some(8), true));
        assert_eq!(timeout, None);
        let of = |parameters| infer(json!({ "text_input": ["a"] }), parameters).asked_vectors().map(|_| ());
        let refused = of(json!({ "temperature": 0.5 })).expect_err("no parameter of a vector");
        assert!(refused.body.message.contains("unknown parameter `temperature`"), "{}", refused.body.message);
        let other =
            Infer { outputs: vec!["text_output".to_owned()], ..infer(json!({ "text_input": ["a"] }), json!({})) };
        let refused = other.asked_vectors().expect_err("another output");
        assert!(refused.body.message.contains("there is no output `text_output`"), "{}", refused.body.message);
    }

    #[test]
    fn parameters_come_as_tensors_and_as_parameters() {
        let inputs = json!({
            "text_input": ["a", "b"], "max_tokens": [7], "stop": ["x", "y"], "return_finish_reason": [true],
            "sampling_parameters": [r#"{"temperature": "0.5", "top_k": 3, "stop_token_ids": [2]}"#],
        });
        let asked = infer(inputs, json!({ "seed": 9, "timeout": 1500 })).asked(8).expect("good");
        let prompts: Vec<_> = asked.requests.iter().map(|request| request.input.clone()).collect();
        assert_eq!(prompts, [Some(Input::Prompt("a".to_owned())), Some(Input::Prompt("b".to_owned()))]);
        let request = &asked.requests[1];
        let sampling = request.sampling.clone().expect("sampling");
        assert_eq!((request.model.as_str(), request.max_tokens), ("m", Some(7)));
        assert_eq!((&request.stop[..], &request.stop_token_ids[..]), (&["x".to_owned(), "y".to_owned()][..], &[2][..]));
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (Some(0.5), Some(3), Some(9)));
        assert_eq!(asked.form, Form { outputs: vec!["text_output", "finish_reason"], before: Vec::new() });
        assert_eq!((asked.timeout, asked.stream), (Some(Duration::from_micros(1500)), None));
    }

    #[test]
    fn the_prompt_is_given_back_to_who_asks_for_it() {
        let asked = infer(json!({ "text_input": ["a"] }), json!({ "exclude_input_in_output": false, "stream": true }));
        let asked = asked.asked(1).expect("good");
        assert_eq!((asked.form.before, asked.stream), (vec!["a".to_owned()], Some(true)));
        assert_eq!(asked.requests[0].max_tokens, Some(16));
    }

    #[test]
    fn refusals_name_the_tensor() {
        let text = || json!({ "text_input": ["a"] });
        for (inputs, parameters, param, words) in [
            (json!({}), json!({}), "text_input", "the input `text_input` is missing"),
            (json!({ "text_input": [] }), json!({}), "text_input", "has to be BYTES"),
            (json!({ "text_input": [5] }), json!({}), "text_input", "has to be BYTES"),
            (json!({ "text_input": ["a", "b", "c"] }), json!({}), "text_input", "holds 3 texts; at most 2"),
            (json!({ "text_input": ["a"], "top_p": ["x"] }), json!({}), "top_p", "`top_p` has to be a number"),
            (json!({ "text_input": ["a"], "seed": [1] }), json!({ "seed": 2 }), "seed", "is given twice"),
            (text(), json!({ "sampling_parameters": "[1]" }), "sampling_parameters", "has to be a JSON object"),
            (text(), json!({ "max_token": 5 }), "max_token", "did you mean `max_tokens`"),
            (text(), json!({ "image": "x" }), "image", "`image` is not supported"),
        ] {
            let error = infer(inputs, parameters).asked(2).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param), "{words}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
        let infer = Infer { outputs: vec!["logits".to_owned()], ..infer(text(), json!({})) };
        assert!(
            infer
                .asked(2)
                .expect_err("no such output")
                .body
                .message
                .contains("no output `logits`; outputs are text_output")
        );
    }
}
