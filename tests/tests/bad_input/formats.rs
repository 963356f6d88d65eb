//! Schemas, tools, parts of messages and tensors that cannot be used: each is refused at once, by its name and place, over HTTP and gRPC.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use slm_proto::inference::{
    InferTensorContents, ModelInferRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::InferInputTensor,
};
use slm_tests::swarm::Call;
use tonic::Code;

use super::requests::{chat, running, says};

/// The longest that a refusal may take on a slow machine, with other tests beside it.
const SOON: Duration = Duration::from_secs(30);

/// Puts a schema into a request.
type Form = fn(Value) -> Value;

fn function(name: &str, parameters: Value) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": parameters}})
}

/// A schema of arguments is held to the rules of every other schema.
#[tokio::test]
async fn schemas_that_cannot_be_kept() -> Result<()> {
    let running = running()?;
    let forms: [(&str, Form); 3] = [
        (
            "response_format.json_schema.schema",
            |schema| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}),
        ),
        ("structured_outputs.json", |schema| json!({"structured_outputs": {"json": schema}})),
        ("tools[0].function.parameters", |schema| json!({"tools": [function("f", schema)], "tool_choice": "required"})),
    ];
    let of_a = |schema: Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    for (field, form) in forms {
        for (schema, parts) in [
            (
                of_a(json!({"$ref": "https://example.com/s.json"})),
                ["/properties/a/$ref", "`https://example.com/s.json` is outside"],
            ),
            (of_a(json!({"$ref": "file:///etc/passwd"})), ["/properties/a/$ref", "`file:///etc/passwd` is outside"]),
            (of_a(json!({"$ref": "#"})), ["/properties/a/$ref", "without end"]),
        ] {
            let (status, error) = running.refusal(chat(form(schema)).to_string()).await?;
            says(&error, &parts);
            says(&error, &[field]);
            assert_eq!((status, &error["param"]), (400, &json!(field)), "{error}");
        }
        let begun = Instant::now();
        let large = of_a(json!({"description": "x".repeat(1 << 20)}));
        let (status, error) = running.refusal(chat(form(large)).to_string()).await?;
        says(&error, &["bytes", "at most 524288"]);
        assert!(status == 400 && begun.elapsed() < SOON, "{error} after {:?}", begun.elapsed());
    }
    Ok(())
}

/// What takes more than it may is stopped, and the next request is answered.
#[tokio::test]
async fn regular_expressions_that_explode() -> Result<()> {
    let running = running()?;
    for regex in ["((((a{1,1000}){1,1000}){1,1000}){1,1000})", "(a|b)*a(a|b){4000}(a|b)*"] {
        let begun = Instant::now();
        let body = chat(json!({"structured_outputs": {"regex": regex}, "max_tokens": 4})).to_string();
        let response = running.post(body).await?;
        let (status, answer) = (response.status().as_u16(), response.json::<Value>().await?);
        assert!(begun.elapsed() < SOON, "{answer} after {:?}", begun.elapsed());
        // Whether compiling it comes to an end in time is a matter of the machine.
        if status == 200 {
            let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            assert!(!text.is_empty() && text.chars().all(|letter| "ab".contains(letter)), "{answer}");
        } else {
            let error = &answer["error"];
            says(error, &["structured_outputs.regex"]);
            assert_eq!((status, &error["param"]), (400, &json!("structured_outputs.regex")), "{error}");
        }
    }
    let brackets = "(".repeat(8000) + &")".repeat(8000);
    let (status, error) = running.refusal(chat(json!({"guided_regex": brackets})).to_string()).await?;
    says(&error, &["guided_regex", "invalid regex"]);
    assert_eq!(status, 400, "{error}");
    let answer = running.client()?.ask(&Call::new("smollm2", "hi")).await?;
    assert!(answer.tokens > 0, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn tools_results_and_parts() -> Result<()> {
    let running = running()?;
    let user = json!({"role": "user", "content": "x"});
    let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"});
    let parts = |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]});
    let object = json!({"type": "object"});
    for (change, param, words) in [
        (
            json!({"tools": [{"type": "function", "function": {"parameters": object}}]}),
            "tools[0].function.name",
            "is missing",
        ),
        (json!({"tools": [function("", object.clone())]}), "tools[0].function.name", "is missing"),
        (
            json!({"tools": [function("a b", object.clone())]}),
            "tools[0].function.name",
            "has to be 1 to 64 of the characters",
        ),
        (json!({"tools": [function("f", json!({"type": "array"}))]}), "tools[0].function.parameters", "at /type"),
        (
            json!({"messages": [user, result]}),
            "messages[1].tool_call_id",
            "names the call `call_1`, which no message before it makes",
        ),
        (json!({"messages": [user, {"role": "tool", "content": "x"}]}), "messages[1].tool_call_id", "is missing"),
        (
            parts(json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})),
            "messages[0].content[1]",
            "text only",
        ),
        (
            parts(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})),
            "messages[0].content[1]",
            "text only",
        ),
    ] {
        let (status, error) = running.refusal(chat(change).to_string()).await?;
        says(&error, &[param, words]);
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn tensors_of_the_wrong_type_or_shape() -> Result<()> {
    let running = running()?;
    let tensor = |datatype: &str, shape: &[i64], data: Value| json!({"name": "text_input", "datatype": datatype, "shape": shape, "data": data});
    let cases = [
        (tensor("FP32", &[1], json!([1.5])), "the datatype of input `text_input` has to be BYTES"),
        (tensor("STRING", &[1], json!(["a"])), "the datatype of input `text_input` is \"STRING\"; it has to be BYTES"),
        (tensor("FP16", &[1], json!([1])), "the datatype of input `text_input` is \"FP16\"; it has to be BYTES"),
        (tensor("BYTES", &[2], json!(["a"])), "input `text_input` has 1 values, but its shape [2] has 2 elements"),
        (tensor("BYTES", &[-1], json!(["a"])), "the shape [-1] of input `text_input` has a negative size"),
        (tensor("BYTES", &[1 << 40], json!(["a"])), "has more than 1024 elements"),
        (tensor("BYTES", &[0], json!([])), "input `text_input` is empty"),
    ];
    let url = format!("{}/v2/models/smollm2/infer", running.swarm.http);
    for (tensor, words) in &cases {
        let answer = reqwest::Client::new().post(&url).json(&json!({"inputs": [tensor]})).send().await?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await?;
        assert!(status == 400 && body["error"].as_str().is_some_and(|error| error.contains(words)), "{words}: {body}");
    }
    let mut grpc = GrpcInferenceServiceClient::connect(running.swarm.grpc.clone()).await?;
    for (tensor, words) in cases {
        let shape = tensor["shape"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        let texts = tensor["data"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let numbers = tensor["data"].as_array().into_iter().flatten().filter_map(Value::as_f64);
        let contents = InferTensorContents {
            bytes_contents: texts.map(|text| text.as_bytes().to_vec()).collect(),
            fp32_contents: numbers.map(|number| number as f32).collect(),
            ..Default::default()
        };
        let input = InferInputTensor {
            name: "text_input".to_owned(),
            datatype: tensor["datatype"].as_str().unwrap_or_default().to_owned(),
            shape,
            contents: Some(contents),
            ..Default::default()
        };
        let request = ModelInferRequest { model_name: "smollm2".to_owned(), inputs: vec![input], ..Default::default() };
        let refused = grpc.model_infer(request).await.expect_err(words);
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(words), "{refused:?}");
    }
    Ok(())
}
