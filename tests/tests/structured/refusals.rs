//! Constraints that cannot be kept are refused with a message that says where they are wrong.

use anyhow::Result;
use serde_json::{Value, json};
use slm_proto::{trailers, v1::sampling::Constraint};
use tonic::Code;

use super::harness::{choice, complete, regex, request, schema, worker};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_field_and_the_place() -> Result<()> {
    let worker = worker(true).await?;
    let of_a = |of: Value| schema(&json!({"type": "object", "properties": {"a": of}, "required": ["a"]}));
    let endless = json!({"$ref": "#"});
    let large = json!({"type": "string", "description": "x".repeat(1_000_000)});
    let cases = [
        (
            of_a(json!({"$ref": "https://example.com/a.json"})),
            "json_schema",
            "/properties/a/$ref: `https://example.com/a.json` is outside",
        ),
        (of_a(endless), "json_schema", "/properties/a/$ref: a document would have to contain itself without end"),
        (schema(&large), "json_schema", "json_schema has 1000034 bytes; at most 524288 are accepted"),
        (
            of_a(json!({"type": "string", "minLenght": 3})),
            "json_schema",
            "/properties/a/minLenght: `minLenght` is no keyword",
        ),
        (of_a(json!({"not": {"type": "string"}})), "json_schema", "/properties/a/not: `not` is not supported"),
        (of_a(json!({"type": "string", "format": "phone"})), "json_schema", "/properties/a: Unknown format: phone"),
        (Some(Constraint::JsonSchema("{".into())), "json_schema", "it is not JSON"),
        (regex(&"(".repeat(8000)), "regex", "regex cannot be used: "),
        (regex("(a"), "regex", "regex cannot be used: "),
        (Some(Constraint::Grammar("start: nobody".into())), "grammar", "grammar cannot be used: "),
        (choice(&[]), "choice", "choice is empty; send strings"),
    ];
    for (constraint, field, message) in cases {
        let refused = complete(&worker, request("x", 1, 8, constraint)).await.expect_err(message);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(message), "{refused:?}");
        assert_eq!(refused.metadata().get(trailers::ERROR_FIELD).map(|at| at.as_bytes()), Some(field.as_bytes()));
    }
    assert!(complete(&worker, request("x", 1, 8, choice(&["a"]))).await.is_ok(), "it goes on");
    worker.stop().await
}
