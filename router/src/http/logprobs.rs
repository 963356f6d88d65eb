//! Log-probabilities in the two shapes that OpenAI has for them.
//!
//! Tokens are called by their text. Two tokens of a vocabulary can have the same text, such as a letter and the byte that
//! it is: of candidates that look alike the likeliest keeps the text, the others are called `token_id:N`, as vLLM calls
//! all of them on demand.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Map, Value};
use slm_proto::v1::{TokenLogprob, TopLogprob};

/// Naming of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenNames {
    Texts,
    /// `token_id:N`.
    Ids,
}

/// Of a chat completion.
#[derive(Debug, Serialize)]
pub(super) struct Chat {
    content: Vec<Token>,
    refusal: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Token {
    #[serde(flatten)]
    token: Candidate,
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
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

pub(super) fn chat(tokens: &[TokenLogprob], names: TokenNames) -> Chat {
    let content = tokens.iter().map(|token| {
        let top = names.of_candidates(token.top.iter(), "").into_iter().zip(&token.top);
        Token {
            token: Candidate {
                token: names.of(token.id, &token.token, ""),
                logprob: token.logprob,
                bytes: token.token.clone(),
            },
            top_logprobs: top
                .map(|(name, top)| Candidate { token: name, logprob: top.logprob, bytes: top.token.clone() })
                .collect(),
        }
    });
    Chat { content: content.collect(), refusal: None }
}

/// The tokens of a part of a response.
pub(super) fn list(tokens: &[TokenLogprob], names: TokenNames) -> Vec<Value> {
    let tokens = chat(tokens, names).content.into_iter();
    // Strings and numbers always serialise.
    tokens.map(|token| serde_json::to_value(token).unwrap_or_default()).collect()
}

/// `offset` counts the characters of the text so far.
pub(super) fn text(tokens: &[TokenLogprob], names: TokenNames, offset: &mut usize) -> Text {
    let mut text = Text {
        tokens: Vec::with_capacity(tokens.len()),
        token_logprobs: Vec::with_capacity(tokens.len()),
        top_logprobs: Vec::with_capacity(tokens.len()),
        text_offset: Vec::with_capacity(tokens.len()),
    };
    for token in tokens {
        text.text_offset.push(*offset);
        // A control token is no part of the text, and a character counts where it begins.
        if !token.special {
            *offset += token.token.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        }
        text.tokens.push(names.of(token.id, &token.token, "bytes:"));
        text.token_logprobs.push(token.logprob);
        let sampled = sampled(token);
        let candidates = || token.top.iter().chain(&sampled);
        let top = names.of_candidates(candidates(), "bytes:").into_iter().zip(candidates());
        text.top_logprobs.push(top.map(|(name, top)| (name, top.logprob.into())).collect());
    }
    text
}

/// The token itself, if it is none of the likeliest: OpenAI and vLLM list it beside them, so there may be one more.
fn sampled(token: &TokenLogprob) -> Option<TopLogprob> {
    let listed = token.top.iter().any(|top| top.id == token.id);
    (!listed).then(|| TopLogprob { id: token.id, token: token.token.clone(), logprob: token.logprob })
}

impl TokenNames {
    /// Of one token. As OpenAI writes one that is only part of a character: `\xe2\x98`, in completions with `bytes:` before
    /// it.
    fn of(self, id: u32, token: &[u8], partial: &str) -> String {
        match (self, std::str::from_utf8(token)) {
            (Self::Ids, _) => format!("token_id:{id}"),
            (Self::Texts, Ok(text)) => text.to_owned(),
            (Self::Texts, Err(_)) => token.iter().fold(partial.to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
        }
    }

    /// Of tokens that stand beside each other, likeliest first: no two are called alike.
    fn of_candidates<'t>(self, top: impl Iterator<Item = &'t TopLogprob>, partial: &str) -> Vec<String> {
        let mut taken = HashSet::new();
        let name = |top: &TopLogprob| {
            let name = self.of(top.id, &top.token, partial);
            if taken.insert(name.clone()) { name } else { Self::Ids.of(top.id, &top.token, partial) }
        };
        top.map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tokens() -> Vec<TokenLogprob> {
        let top = |id: u32, token: &[u8]| TopLogprob { id, token: token.to_vec(), logprob: -0.5 * id as f32 };
        let one = |id: u32, token: &[u8], top: Vec<TopLogprob>| TokenLogprob {
            id,
            token: token.to_vec(),
            logprob: -0.5,
            top,
            special: token.starts_with(b"<|"),
        };
        vec![
            one(1, "é".as_bytes(), vec![top(1, "é".as_bytes()), top(2, b"e"), top(3, b"e")]),
            one(2, &[0xe2, 0x98], vec![]),
            one(4, &[0x83], vec![]),
            one(5, b"<|end|>", vec![]),
            one(6, b"x", vec![]),
        ]
    }

    #[test]
    fn both_shapes() {
        let chat = serde_json::to_value(chat(&tokens(), TokenNames::Texts)).expect("JSON");
        assert_eq!(chat["content"][0]["bytes"], json!([195, 169]));
        assert_eq!(chat["content"][1]["token"], "\\xe2\\x98");
        assert_eq!(chat["content"][3]["token"], "<|end|>");
        let mut offset = 3;
        let text = serde_json::to_value(text(&tokens(), TokenNames::Texts, &mut offset)).expect("JSON");
        assert_eq!(text["tokens"], json!(["é", "bytes:\\xe2\\x98", "bytes:\\x83", "<|end|>", "x"]));
        assert_eq!(text["text_offset"], json!([3, 4, 5, 5, 5]));
        assert_eq!(offset, 6);
    }

    #[test]
    fn a_sampled_token_is_always_listed() {
        let text = serde_json::to_value(text(&tokens(), TokenNames::Texts, &mut 0)).expect("JSON");
        assert_eq!(text["top_logprobs"][1], json!({"bytes:\\xe2\\x98": -0.5}), "without others");
        let mut unlikely = tokens();
        unlikely[0].id = 9;
        unlikely[0].token = b"z".to_vec();
        unlikely[0].logprob = -7.0;
        let text = serde_json::to_value(super::text(&unlikely, TokenNames::Texts, &mut 0)).expect("JSON");
        assert_eq!(text["top_logprobs"][0], json!({"é": -0.5, "e": -1.0, "token_id:3": -1.5, "z": -7.0}));
        let chat = serde_json::to_value(super::chat(&unlikely, TokenNames::Texts)).expect("JSON");
        assert_eq!(chat["content"][0]["top_logprobs"].as_array().map(Vec::len), Some(3), "as OpenAI has it in chat");
    }

    #[test]
    fn candidates_that_look_alike_are_told_apart() {
        let chat = serde_json::to_value(chat(&tokens(), TokenNames::Texts)).expect("JSON");
        let top: Vec<_> = (0..3).map(|at| chat["content"][0]["top_logprobs"][at]["token"].clone()).collect();
        assert_eq!(top, ["é", "e", "token_id:3"]);
        let text = serde_json::to_value(text(&tokens(), TokenNames::Texts, &mut 0)).expect("JSON");
        assert_eq!(text["top_logprobs"][0], json!({"é": -0.5, "e": -1.0, "token_id:3": -1.5}));
    }

    #[test]
    fn who_asks_for_ids_gets_them() {
        let text = serde_json::to_value(text(&tokens(), TokenNames::Ids, &mut 0)).expect("JSON");
        assert_eq!(text["tokens"][0], "token_id:1");
        assert_eq!(text["top_logprobs"][0], json!({"token_id:1": -0.5, "token_id:2": -1.0, "token_id:3": -1.5}));
    }
}
