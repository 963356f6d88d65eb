//! Bodies of `/infer`, `/generate` and `/generate_stream`.

use axum::http::HeaderMap;
use serde_json::{Map, Value};
use slm_proto::v1::GenerateRequest;

use super::JSON_BYTES;
use crate::{
    http::{
        body,
        error::ApiError,
        fields::{Fields, integer, read},
    },
    inference::{self, Datatype, Form, Tensor, count},
};

/// A body that was read.
#[derive(Debug)]
pub(super) struct Body {
    infer: inference::Infer,
    /// Outputs that are wanted as bytes; `None`: all of them.
    binary: Option<Vec<String>>,
}

/// What is asked of workers, and how the answer is to be given.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) requests: Vec<GenerateRequest>,
    pub(super) stream: Option<bool>,
    pub(super) timeout: Option<std::time::Duration>,
    pub(super) reply: Reply,
}

/// How the answer is to be given.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) model: String,
    pub(super) id: String,
    pub(super) form: Form,
    /// Outputs that are wanted as bytes; `None`: all of them.
    pub(super) binary: Option<Vec<String>>,
}

impl Body {
    pub(super) fn asked_vectors(self) -> Result<(inference::AskedVectors, Reply), ApiError> {
        let reply =
            Reply { model: String::new(), id: self.infer.id.clone(), form: Form::default(), binary: self.binary };
        Ok((self.infer.asked_vectors()?, reply))
    }

    pub(super) fn asked(self, texts_max: usize) -> Result<Asked, ApiError> {
        let (id, binary) = (self.infer.id.clone(), self.binary);
        let inference::Asked { requests, stream, timeout, form } = self.infer.asked(texts_max)?;
        Ok(Asked { requests, stream, timeout, reply: Reply { model: String::new(), id, form, binary } })
    }
}

/// Bytes of the JSON before binary tensors, if there are any.
pub(super) fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(header) = headers.get(JSON_BYTES) else { return Ok(None) };
    let bytes = header.to_str().ok().and_then(|bytes| bytes.parse().ok());
    bytes.map(Some).ok_or_else(|| {
        ApiError::param(JSON_BYTES, "the header `Inference-Header-Content-Length` has to be a number of bytes")
    })
}

/// A body of `/infer`: JSON, and behind it the binary tensors.
pub(super) fn infer(bytes: &[u8], json_bytes: Option<usize>) -> Result<Body, ApiError> {
    let (json, mut binary) = match json_bytes {
        None => (bytes, &[][..]),
        Some(length) => bytes.split_at_checked(length).ok_or_else(|| {
            let message =
                format!("the body has {} bytes, but `Inference-Header-Content-Length` says {length}", bytes.len());
            ApiError::param(JSON_BYTES, message)
        })?,
    };
    let mut fields = body::parse(json)?;
    let inputs = fields.take::<Vec<Value>>("inputs")?.unwrap_or_default();
    let inputs = inputs.iter().enumerate().map(|(index, value)| input(&format!("inputs[{index}]"), value, &mut binary));
    let inputs = inputs.collect::<Result<_, _>>()?;
    if !binary.is_empty() {
        return Err(ApiError::param(
            "inputs",
            format!(
                "{} bytes behind the last binary input belong to none; say the size of each in `binary_data_size`",
                binary.len()
            ),
        ));
    }
    let mut parameters = fields.take::<Map<String, Value>>("parameters")?.unwrap_or_default();
    let all_binary = parameters.remove("binary_data_output").is_some_and(|value| value == true);
    let wanted = fields.take::<Vec<Value>>("outputs")?.unwrap_or_default();
    let wanted =
        wanted.iter().enumerate().map(|(index, value)| output(&format!("outputs[{index}]"), value, all_binary));
    let wanted: Vec<(String, bool)> = wanted.collect::<Result<_, _>>()?;
    let binary = wanted.iter().filter(|(_, binary)| *binary).map(|(name, _)| name.clone()).collect();
    let binary = if wanted.is_empty() && all_binary { None } else { Some(binary) };
    let infer = inference::Infer {
        id: fields.take("id")?.unwrap_or_default(),
        parameters,
        inputs,
        outputs: wanted.into_iter().map(|(name, _)| name).collect(),
        ..inference::Infer::default()
    };
    nothing_left(fields, "")?;
    Ok(Body { infer, binary })
}

fn input(path: &str, value: &Value, binary: &mut &[u8]) -> Result<Tensor, ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    let missing = |name: &str| ApiError::param(&format!("{path}.{name}"), format!("`{path}.{name}` is missing"));
    let within = |error: ApiError| error.within(path);
    let name = fields.take::<String>("name").map_err(within)?.ok_or_else(|| missing("name"))?;
    let datatype = fields.take::<String>("datatype").map_err(within)?.ok_or_else(|| missing("datatype"))?;
    let datatype = Datatype::parse(&name, &datatype)?;
    let shape = fields.take::<Vec<Value>>("shape").map_err(within)?.ok_or_else(|| missing("shape"))?;
    let sizes = shape.iter().enumerate().map(|(index, size)| read::<i64>(&format!("{path}.shape[{index}]"), size));
    let shape: Vec<i64> = sizes.collect::<Result<_, _>>()?;
    let mut parameters = fields.take::<Map<String, Value>>("parameters").map_err(within)?.unwrap_or_default();
    let data = fields.raw("data");
    nothing_left(fields, path)?;
    if let Some(size) = parameters.remove("binary_data_size") {
        let size = integer(&size).and_then(|size| usize::try_from(size).ok());
        let Some((raw, rest)) = size.and_then(|size| binary.split_at_checked(size)) else {
            let message =
                format!("`{path}.parameters.binary_data_size` is more than the {} bytes that are left", binary.len());
            return Err(ApiError::param(path, message));
        };
        *binary = rest;
        return Tensor::from_raw(&name, datatype, &shape, raw);
    }
    let data = data.ok_or_else(|| missing("data"))?;
    let mut values = Vec::new();
    flatten(data, count(&name, &shape)?, &mut values);
    Tensor::new(&name, datatype, &shape, values)
}

/// Data is flat or nested as the shape is. No more than `elements` and one are kept.
fn flatten(data: Value, elements: usize, values: &mut Vec<Value>) {
    match data {
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, elements, values)),
        _ if values.len() > elements => {}
        value => values.push(value),
    }
}

/// Its name, and whether it is wanted as bytes.
fn output(path: &str, value: &Value, all_binary: bool) -> Result<(String, bool), ApiError> {
    let mut fields = Fields::new(read::<Map<String, Value>>(path, value)?);
    let name = format!("{path}.name");
    let named = fields.take::<String>("name")?.ok_or_else(|| ApiError::param(&name, format!("`{name}` is missing")))?;
    let parameters = fields.take::<Map<String, Value>>("parameters")?.unwrap_or_default();
    if parameters.get("classification").is_some_and(|count| count != 0) {
        return Err(ApiError::param(
            path,
            format!("`{path}.parameters.classification` is not supported; leave it out"),
        ));
    }
    nothing_left(fields, path)?;
    Ok((named, parameters.get("binary_data").map_or(all_binary, |value| value == true)))
}

/// A body of `/generate`: every field is an input or a parameter.
pub(super) fn generate(mut fields: Fields) -> Result<Body, ApiError> {
    let text = match fields.raw("text_input") {
        None => Vec::new(),
        Some(Value::Array(texts)) => texts,
        Some(text) => vec![text],
    };
    let id = fields.take("id")?.unwrap_or_default();
    let mut parameters = fields.take::<Map<String, Value>>("parameters")?.unwrap_or_default();
    for (name, value) in fields.rest() {
        if parameters.contains_key(&name) {
            return Err(ApiError::param(
                &name,
                format!("`{name}` is given twice; give it in `parameters` or beside them"),
            ));
        }
        parameters.insert(name, value);
    }
    let inputs = match text.is_empty() {
        true => Vec::new(),
        false => vec![Tensor { name: "text_input".to_owned(), datatype: Datatype::Bytes, values: text }],
    };
    let infer = inference::Infer { id, parameters, inputs, ..inference::Infer::default() };
    Ok(Body { infer, binary: Some(Vec::new()) })
}

fn nothing_left(fields: Fields, path: &str) -> Result<(), ApiError> {
    let Some((name, _)) = fields.rest().next() else { return Ok(()) };
    let name: String = name.chars().take(80).collect();
    let error = ApiError::param(&name, format!("unknown field `{name}`; leave it out")).code("unknown_parameter");
    Err(if path.is_empty() { error } else { error.within(path) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slm_proto::v1::generate_request::Input;

    use super::*;

    fn asked(body: &Value) -> Result<Asked, ApiError> {
        infer(body.to_string().as_bytes(), None)?.asked(8)
    }

    #[test]
    fn data_in_json_is_flat_or_nested() {
        for data in [json!(["a", "b"]), json!([["a"], ["b"]])] {
            let input = json!({ "name": "text_input", "shape": [2, 1], "datatype": "BYTES", "data": data });
            let asked =
                asked(&json!({ "id": "7", "inputs": [input], "outputs": [{ "name": "text_output" }] })).expect("good");
            assert_eq!((asked.requests.len(), asked.reply.id.as_str(), asked.reply.binary), (2, "7", Some(Vec::new())));
            assert_eq!(asked.requests[1].input, Some(Input::Prompt("b".to_owned())));
        }
    }

    #[test]
    fn binary_tensors_lie_behind_the_json() {
        let head = json!({
            "inputs": [
                { "name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": { "binary_data_size": 6 } },
                { "name": "max_tokens", "shape": [1], "datatype": "INT32", "parameters": { "binary_data_size": 4 } },
            ],
            "parameters": { "binary_data_output": true },
        })
        .to_string();
        let mut bytes = head.clone().into_bytes();
        bytes.extend_from_slice(b"\x02\0\0\0hi\x05\0\0\0");
        let asked = infer(&bytes, Some(head.len())).and_then(|body| body.asked(8)).expect("good");
        assert_eq!((asked.requests[0].max_tokens, asked.reply.binary), (Some(5), None));
        bytes.push(0);
        let error = infer(&bytes, Some(head.len())).expect_err("a byte too many");
        assert_eq!(
            error.body.message,
            "1 bytes behind the last binary input belong to none; say the size of each in `binary_data_size`"
        );
        assert!(infer(&bytes[..head.len() + 3], Some(head.len())).is_err());
        let error = infer(b"{}", Some(9)).expect_err("too short");
        assert_eq!(error.body.message, "the body has 2 bytes, but `Inference-Header-Content-Length` says 9");
    }

    #[test]
    fn refusals_have_the_path_of_the_field() {
        let tensor = |change: Value| {
            let mut tensor = json!({ "name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"] });
            for (name, value) in change.as_object().expect("an object") {
                tensor[name] = value.clone();
            }
            json!({ "inputs": [tensor] })
        };
        for (body, words) in [
            (json!({ "inputs": [5] }), "`inputs[0]` has to be an object"),
            (tensor(json!({ "name": null })), "`inputs[0].name` is missing"),
            (tensor(json!({ "data": null })), "`inputs[0].data` is missing"),
            (tensor(json!({ "shape": "1" })), "`inputs[0].shape` has to be a list"),
            (tensor(json!({ "shape": [2] })), "input `text_input` has 1 values, but its shape [2] has 2 elements"),
            (tensor(json!({ "datatype": "STRING" })), "the datatype of input `text_input` is \"STRING\""),
            (tensor(json!({ "datatype": "FP32", "data": [1] })), "has to be BYTES"),
            (tensor(json!({ "data": [5] })), "`text_input[0]` has to be a string, not 5"),
            (tensor(json!({ "datas": [5] })), "unknown field `inputs[0].datas`"),
            (json!({ "input": [] }), "unknown field `input`"),
            (json!({ "outputs": [{}] }), "`outputs[0].name` is missing"),
        ] {
            let error = asked(&body).expect_err(words);
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn generate_takes_fields_and_parameters() {
        let parse = |body: Value| generate(Fields::new(body.as_object().expect("an object").clone()))?.asked(8);
        let asked =
            parse(json!({ "text_input": "a", "max_tokens": 3, "parameters": { "temperature": 0, "stream": true } }));
        let asked = asked.expect("good");
        assert_eq!((asked.requests[0].max_tokens, asked.stream), (Some(3), Some(true)));
        let error = parse(json!({ "text_input": "a", "seed": 1, "parameters": { "seed": 1 } })).expect_err("twice");
        assert_eq!(error.body.param.as_deref(), Some("seed"));
        assert!(parse(json!({ "prompt": "a" })).expect_err("no text").body.message.contains("`text_input` is missing"));
    }
}
