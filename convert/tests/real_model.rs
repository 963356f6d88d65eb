//! SmolLM2-135M-Instruct as it is published: the whole reader on a real file.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

use std::path::PathBuf;

use serde::Deserialize;
use slm_convert::Checkpoint;
use slm_convert::chat::ChatMessage;

/// Values that transformers computes from the same file.
#[derive(Deserialize)]
struct Prompt {
    /// Null for text that is encoded as it stands, else the user's turn that the template makes `text` of.
    user: Option<String>,
    text: String,
    ids: Vec<u32>,
}

fn open() -> Checkpoint {
    let cached = || {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        home.join(".cache/slm-swarm/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    };
    let path = std::env::var_os("SLM_TEST_GGUF").map_or_else(cached, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run `make setup`, which fetches it, or set SLM_TEST_GGUF",
        path.display()
    );
    Checkpoint::open(&path).unwrap()
}

#[test]
fn the_metadata_read_as_transformers_reads_them() {
    let model = open();
    let architecture = model.architecture();
    let layer = &architecture.layers[0];
    let attention = layer.attention().unwrap();
    assert_eq!((architecture.family.as_str(), architecture.layers.len()), ("llama", 30));
    assert_eq!((architecture.hidden_size, layer.feed_forward.size, architecture.vocab_size), (576, 1536, 49152));
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (9, 3, 64));
    assert_eq!((architecture.ropes[0].theta, architecture.final_norm.as_ref().unwrap().epsilon), (100_000.0, 1e-5));
    assert!(architecture.context_length == 8192 && architecture.head.tied && attention.window.is_none());
    assert_eq!(
        (model.generation().eos_token_ids.as_slice(), model.generation().bos_token_id),
        ([2, 0].as_slice(), Some(1))
    );
    assert_eq!(model.native_bits("model.layers.29.mlp.down_proj.weight"), Some(4));
    assert_eq!(model.native_bits("lm_head.weight"), Some(8));
    let embedding = model.tensor("model.embed_tokens.weight").unwrap();
    assert_eq!((embedding.shape, embedding.data.len()), (vec![49152, 576], 49152 * 576));
    assert!(embedding.data.iter().all(|value| value.is_finite()));
    assert!(model.digest().starts_with("sha256:"));
}

#[test]
fn tokenizer_and_template_give_the_reference_ids() {
    let model = open();
    let tokenizer = model.tokenizer().unwrap().unwrap();
    let template = model.chat_template().unwrap().unwrap();
    let prompts: Vec<Prompt> = serde_json::from_str(include_str!("fixtures/smollm2_prompts.json")).unwrap();
    for prompt in &prompts {
        if let Some(user) = &prompt.user {
            let turn = ChatMessage::new("user", user);
            assert_eq!(template.render(&[turn], true).unwrap(), prompt.text);
        }
        let encoded = tokenizer.encode(prompt.text.as_str(), prompt.user.is_none()).unwrap();
        assert_eq!(encoded.get_ids(), prompt.ids, "{:?}", prompt.text);
        assert_eq!(tokenizer.decode(&prompt.ids, false).unwrap(), prompt.text);
    }
    assert_eq!(prompts.len(), 13);
}
