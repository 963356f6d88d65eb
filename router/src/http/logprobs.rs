//! Log-probabilities in the two shapes that OpenAI has for them.

use serde::Serialize;
use serde_json::{Map, Value};
use slm_proto::v1::TokenLogprob;

/// Of a chat completion.
#[derive(Debug, Serialize)]
pub(super) struct Chat {
    content: Vec<Token>,
    refusal: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Token {
    #[serde(flatten)]
    token: Likely,
    top_logprobs: Vec<Likely>,
}

#[derive(Debug, Serialize)]
struct Likely {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Of a completion.
#[derive(Debug, Serialize)]
pub(super) struct Text {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
}

pub(super) fn chat(tokens: &[TokenLogprob]) -> Chat {
    let content = tokens.iter().map(|token| Token {
        token: likely(&token.token, token.logprob),
        top_logprobs: token.top.iter().map(|top| likely(&top.token, top.logprob)).collect(),
    });
    Chat { content: content.collect(), refusal: None }
}

/// `offset` counts the characters of the text so far.
pub(super) fn text(tokens: &[TokenLogprob], offset: &mut usize) -> Text {
    let mut text = Text {
        tokens: Vec::with_capacity(tokens.len()),
        token_logprobs: Vec::with_capacity(tokens.len()),
        top_logprobs: Vec::with_capacity(tokens.len()),
        text_offset: Vec::with_capacity(tokens.len()),
    };
    for token in tokens {
        text.text_offset.push(*offset);
        *offset += String::from_utf8_lossy(&token.token).chars().count();
        text.tokens.push(named(&token.token));
        text.token_logprobs.push(token.logprob);
        text.top_logprobs.push(token.top.iter().map(|top| (named(&top.token), top.logprob.into())).collect());
    }
    text
}

fn likely(token: &[u8], logprob: f32) -> Likely {
    Likely { token: String::from_utf8_lossy(token).into_owned(), logprob, bytes: token.to_vec() }
}

/// As OpenAI writes a token that is only part of a character: `bytes:\xe2\x98`.
fn named(token: &[u8]) -> String {
    match std::str::from_utf8(token) {
        Ok(text) => text.to_owned(),
        Err(_) => token.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slm_proto::v1::TopLogprob;

    use super::*;

    fn tokens() -> Vec<TokenLogprob> {
        let top = |token: &[u8]| TopLogprob { id: 1, token: token.to_vec(), logprob: -0.5 };
        vec![
            TokenLogprob { id: 1, token: "é".into(), logprob: -0.5, top: vec![top("é".as_bytes()), top(b"e")] },
            TokenLogprob { id: 2, token: vec![0xe2, 0x98], logprob: -1.0, top: vec![] },
        ]
    }

    #[test]
    fn both_shapes() {
        let chat = serde_json::to_value(chat(&tokens())).expect("JSON");
        assert_eq!(chat["content"][0]["bytes"], json!([195, 169]));
        assert_eq!(chat["content"][0]["top_logprobs"][1]["token"], "e");
        let mut offset = 3;
        let text = serde_json::to_value(text(&tokens(), &mut offset)).expect("JSON");
        assert_eq!(text["tokens"], json!(["é", "bytes:\\xe2\\x98"]));
        assert_eq!(text["text_offset"], json!([3, 4]));
        assert_eq!(text["top_logprobs"][0]["e"], -0.5);
    }
}
