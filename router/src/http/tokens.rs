//! Tokens of prompts and text of tokens: `/tokenize`, `/detokenize` and `/apply_template`, as vLLM and llama-server have them.
//!
//! A body of `/tokenize` is that of a chat completion or of a completion: the tokens are those that this request would have. With
//! `content` in place of `prompt` it is llama-server's, and so is the answer.

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::{Value, json};
use slm_proto::v1::{DetokenizeRequest, GenerateRequest, TokenPiece, TokenizeResponse};

use super::{
    Shared, body, chat, completions, content_type,
    error::ApiError,
    fields::{Fields, read},
    head::CompletionKind,
    names::FieldNames,
    reply, unsupported,
};
use crate::{access::table::Caller, dispatch::Call, metrics::Api};

/// A request, and how to answer it.
#[derive(Debug)]
struct Asked {
    request: GenerateRequest,
    form: Form,
    names: FieldNames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// vLLM's, with `token_strs` or without.
    Counted { strings: bool },
    /// llama-server's, with the piece of each token or without.
    Plain { pieces: bool },
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply_template", post(apply_template))
        .route("/apply-template", post(apply_template))
}

async fn tokenize(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let (asked, _hold) = body::read(body, &dispatcher, &caller, parse).await?;
    let form = asked.form;
    let answer = ask(&dispatcher, asked, caller, &headers).await?;
    Ok(identified(Json(form.tokens(&answer)).into_response(), &answer))
}

async fn apply_template(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let parse = |fields| {
        let (request, options) = chat::parse(fields)?;
        Ok(Asked { request, form: Form::Plain { pieces: false }, names: options.names })
    };
    let (asked, _hold) = body::read(body, &dispatcher, &caller, parse).await?;
    let answer = ask(&dispatcher, asked, caller, &headers).await?;
    Ok(identified(Json(json!({ "prompt": answer.text })).into_response(), &answer))
}

async fn detokenize(
    State(dispatcher): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    content_type::check(&headers)?;
    let (mut request, _hold) = body::read(body, &dispatcher, &caller, parse_ids).await?;
    request.request_id = reply::request_id(&headers);
    let call = Call::new(caller, Api::http_tokens, None);
    let names = FieldNames { input: "tokens", ..FieldNames::new(CompletionKind::Text) };
    let answer = dispatcher.detokenize(request, &call).await.map_err(|refusal| names.error(refusal, 0))?;
    // vLLM's name of it, and llama-server's.
    let response = Json(json!({ "prompt": answer.text, "content": answer.text })).into_response();
    Ok(reply::identified(response, answer.expert.as_ref(), &answer.request_id))
}

async fn ask(
    dispatcher: &Shared,
    mut asked: Asked,
    caller: Caller,
    headers: &HeaderMap,
) -> Result<TokenizeResponse, ApiError> {
    asked.request.request_id = reply::request_id(headers);
    let call = Call::new(caller, Api::http_tokens, None);
    let answer = dispatcher.tokenize(&asked.request, asked.form.needs_pieces(), &call).await;
    answer.map_err(|refusal| asked.names.error(refusal, 0))
}

fn identified(response: Response, answer: &TokenizeResponse) -> Response {
    reply::identified(response, answer.expert.as_ref(), &answer.request_id)
}

fn parse(mut fields: Fields) -> Result<Asked, ApiError> {
    if let Some(content) = fields.raw("content") {
        return parse_content(fields, content);
    }
    let form = Form::Counted { strings: fields.take("return_token_strs")?.unwrap_or(false) };
    if fields.peek("messages").is_some() {
        let (request, options) = chat::parse(fields)?;
        return Ok(Asked { request, form, names: options.names });
    }
    let (requests, options) = completions::parse(fields, 1)?;
    let request = requests.into_iter().next().unwrap_or_default();
    Ok(Asked { request, form, names: options.names })
}

/// llama-server's body, whose text gets no special tokens unless the caller asks for them.
fn parse_content(mut fields: Fields, content: Value) -> Result<Asked, ApiError> {
    let form = Form::Plain { pieces: fields.take("with_pieces")?.unwrap_or(false) };
    let add = fields.take::<bool>("add_special")?.unwrap_or(false);
    let parse = fields.take::<bool>("parse_special")?.unwrap_or(true);
    let model = fields.take::<String>("model")?.unwrap_or_default();
    let names = ["model", "content", "with_pieces", "add_special", "parse_special"];
    unsupported::refuse(fields, &names)?;
    let prompt = slm_proto::v1::generate_request::Input::Prompt(read("content", &content)?);
    let request = GenerateRequest {
        model,
        input: Some(prompt),
        add_special_tokens: Some(add),
        parse_special_tokens: Some(parse),
        ..GenerateRequest::default()
    };
    let names = FieldNames { input: "content", ..FieldNames::new(CompletionKind::Text) };
    Ok(Asked { request, form, names })
}

fn parse_ids(mut fields: Fields) -> Result<DetokenizeRequest, ApiError> {
    let Some(tokens) = fields.take::<Vec<Value>>("tokens")? else {
        return Err(ApiError::param("tokens", "`tokens` is missing; send a list of token ids"));
    };
    let ids = tokens.iter().enumerate().map(|(index, id)| read(&format!("tokens[{index}]"), id));
    let request = DetokenizeRequest {
        model: fields.take::<String>("model")?.unwrap_or_default(),
        token_ids: ids.collect::<Result<_, _>>()?,
        ..DetokenizeRequest::default()
    };
    unsupported::refuse(fields, &["model", "tokens"])?;
    Ok(request)
}

impl Form {
    fn needs_pieces(self) -> bool {
        matches!(self, Self::Counted { strings: true } | Self::Plain { pieces: true })
    }

    fn tokens(self, answer: &TokenizeResponse) -> Value {
        let ids = &answer.token_ids;
        match self {
            Self::Counted { strings } => {
                let strings = strings.then(|| answer.pieces.iter().map(|piece| piece.token.as_str()).collect());
                let strings: Option<Vec<&str>> = strings;
                json!({ "count": ids.len(), "max_model_len": answer.context_length, "tokens": ids, "token_strs": strings })
            }
            Self::Plain { pieces: false } => json!({ "tokens": ids }),
            Self::Plain { pieces: true } => {
                let pieces = ids.iter().zip(&answer.pieces);
                let tokens: Vec<Value> = pieces.map(|(id, piece)| json!({ "id": id, "piece": text(piece) })).collect();
                json!({ "tokens": tokens })
            }
        }
    }
}

/// A text, or bytes where they are no whole characters.
fn text(piece: &TokenPiece) -> Value {
    match std::str::from_utf8(&piece.bytes) {
        Ok(text) => text.into(),
        Err(_) => piece.bytes.as_slice().into(),
    }
}

#[cfg(fuzzing)]
pub(super) fn readable(fields: Fields) -> Result<(), ApiError> {
    parse(fields).map(drop)
}

#[cfg(fuzzing)]
pub(super) fn ids_readable(fields: Fields) -> Result<(), ApiError> {
    parse_ids(fields).map(drop)
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::generate_request::Input;

    use super::*;

    fn fields(body: &Value) -> Fields {
        Fields::new(body.as_object().expect("an object").clone())
    }

    #[test]
    fn bodies_of_vllm_and_of_llama_server() {
        let asked = parse(fields(&json!({"model": "m", "prompt": "a", "return_token_strs": true}))).expect("good");
        assert_eq!(asked.form, Form::Counted { strings: true });
        assert_eq!((asked.request.input, asked.request.add_special_tokens), (Some(Input::Prompt("a".into())), None));
        let body =
            json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "add_generation_prompt": false});
        let asked = parse(fields(&body)).expect("good");
        assert_eq!(asked.request.add_generation_prompt, Some(false));
        assert!(matches!(asked.request.input, Some(Input::Messages(_))));
        let asked = parse(fields(&json!({"model": "m", "content": "a", "with_pieces": true}))).expect("good");
        assert_eq!(asked.form, Form::Plain { pieces: true });
        assert_eq!((asked.request.add_special_tokens, asked.request.parse_special_tokens), (Some(false), Some(true)));
        let asked = parse_ids(fields(&json!({"model": "m", "tokens": [1, 2]}))).expect("good");
        assert_eq!(asked.token_ids, [1, 2]);
    }

    #[test]
    fn answers_of_vllm_and_of_llama_server() {
        let piece = |token: &str, bytes: &[u8]| TokenPiece { token: token.to_owned(), bytes: bytes.to_vec() };
        let pieces = vec![piece("\u{120}a", b" a"), piece("\u{c3}", &[0xc3])];
        let answer = TokenizeResponse { token_ids: vec![5, 6], pieces, context_length: 9, ..Default::default() };
        assert_eq!(
            Form::Counted { strings: true }.tokens(&answer),
            json!({"count": 2, "max_model_len": 9, "tokens": [5, 6], "token_strs": ["\u{120}a", "\u{c3}"]})
        );
        assert_eq!(Form::Counted { strings: false }.tokens(&answer)["token_strs"], Value::Null);
        assert_eq!(Form::Plain { pieces: false }.tokens(&answer), json!({"tokens": [5, 6]}));
        let tokens = json!({"tokens": [{"id": 5, "piece": " a"}, {"id": 6, "piece": [195]}]});
        assert_eq!(Form::Plain { pieces: true }.tokens(&answer), tokens);
    }

    #[test]
    fn refusals_name_the_parameter() {
        let cases = [
            (parse(fields(&json!({"model": "m"}))).map(drop), "prompt", "missing"),
            (parse(fields(&json!({"model": "m", "prompt": ["a", "b"]}))).map(drop), "prompt", "at most 1"),
            (parse(fields(&json!({"model": "m", "content": 5}))).map(drop), "content", "a string"),
            (parse(fields(&json!({"model": "m", "content": "a", "prompt": "b"}))).map(drop), "prompt", "unknown"),
            (parse_ids(fields(&json!({"model": "m"}))).map(drop), "tokens", "missing"),
            (parse_ids(fields(&json!({"model": "m", "tokens": [1, -1]}))).map(drop), "tokens[1]", "-1"),
        ];
        for (parsed, param, message) in cases {
            let error = parsed.expect_err(param);
            assert_eq!(error.body.param.as_deref(), Some(param));
            assert!(error.body.message.contains(message), "{}", error.body.message);
        }
    }
}
