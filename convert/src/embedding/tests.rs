use std::fs;

use serde_json::json;

use super::*;

fn read(modules: Value, pooling: Value, transformer: Value, model: Value) -> Result<EmbeddingSettings, String> {
    let files = [(MODULES, modules), ("1_Pooling/config.json", pooling), (TRANSFORMER, transformer), (MODEL, model)];
    let files = files.map(|(name, value)| (name.to_owned(), value.to_string().into_bytes())).into();
    settings(Path::new("m"), &files, 4).map_err(|error| error.to_string())
}

fn list(kinds: &[&str]) -> Value {
    let module = |(index, kind): (usize, &&str)| {
        let path = if index == 0 { String::new() } else { format!("{index}_{kind}") };
        json!({ "idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") })
    };
    kinds.iter().enumerate().map(module).collect()
}

#[test]
fn settings_are_those_of_the_files() {
    let mean =
        json!({ "word_embedding_dimension": 384, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true });
    let minilm = read(
        list(&["Transformer", "Pooling", "Normalize"]),
        mean,
        json!({ "max_seq_length": 256, "do_lower_case": false }),
        json!({ "__version__": {} }),
    );
    let expected = EmbeddingSettings { normalize: true, tokens_max: Some(256), ..EmbeddingSettings::default() };
    assert_eq!(minilm, Ok(expected));
    let named = read(
        list(&["Transformer", "Pooling"]),
        json!({ "pooling_mode": "lasttoken" }),
        json!({ "max_seq_length": null }),
        json!({ "prompts": { "query": "query: " }, "default_prompt_name": "query" }),
    );
    let expected =
        EmbeddingSettings { pooling: Pooling::Last, prompt: "query: ".to_owned(), ..EmbeddingSettings::default() };
    assert_eq!(named, Ok(expected));
    assert_eq!(settings(Path::new("m"), &Files::new(), 4).unwrap(), EmbeddingSettings::default());
}

#[test]
fn what_would_change_vectors_is_refused_by_name() {
    let cls = || json!({ "pooling_mode_cls_token": true });
    let two = || list(&["Transformer", "Pooling"]);
    let none = || json!({});
    for (modules, pooling, transformer, model, words) in [
        (list(&["Transformer", "Pooling", "LSTM"]), cls(), none(), none(), "module `LSTM` is not supported"),
        (list(&["Transformer", "Pooling", "Dense"]), cls(), none(), none(), "field `activation_function` is missing"),
        (
            list(&["Transformer", "Pooling", "Normalize", "Dense"]),
            cls(),
            none(),
            none(),
            "between Pooling and Normalize",
        ),
        (list(&["Transformer"]), none(), none(), none(), "no Pooling module"),
        (two(), none(), none(), none(), "no pooling mode is chosen"),
        (
            two(),
            json!({ "pooling_mode_cls_token": true, "pooling_mode_max_tokens": true }),
            none(),
            none(),
            "pooling_mode_max_tokens and pooling_mode_cls_token are chosen together",
        ),
        (two(), json!({ "pooling_mode": "attention" }), none(), none(), "`pooling_mode` is"),
        (two(), json!({ "pooling_mode": "cls", "include_prompt": false }), none(), none(), "`include_prompt`"),
        (two(), cls(), json!({ "do_lower_case": true }), none(), "`do_lower_case`"),
        (two(), cls(), json!({ "max_seq_length": 0 }), none(), "`max_seq_length`"),
        (two(), cls(), none(), json!({ "default_prompt_name": "q" }), "none of `prompts`"),
        (json!([{ "path": "../x", "type": "a.Pooling" }]), cls(), none(), none(), "not the name of a folder"),
        (json!({}), cls(), none(), none(), "not a list of modules"),
    ] {
        let refusal = read(modules, pooling, transformer, model).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_prompt_of_what_has_a_head_is_refused() {
    let of = |config: Value| {
        let files = [(MODEL.to_owned(), config.to_string().into_bytes())].into();
        refuse_prompt(Path::new("m"), &files).map_err(|error| error.to_string())
    };
    assert_eq!(of(json!({ "prompts": {}, "default_prompt_name": null })), Ok(()));
    let refusal = of(json!({ "prompts": { "q": "query: " }, "default_prompt_name": "q" })).unwrap_err();
    assert!(
        refusal.contains("`default_prompt_name` is \"q\", which is supported for spec.task Embed only"),
        "{refusal}"
    );
}

#[test]
fn dense_modules_are_checked_before_their_weights_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    let of = |config: Value| dense(&weights, config.as_object().unwrap(), 4);
    let tanh = "torch.nn.modules.activation.Tanh";
    for (config, words) in [
        (json!({}), "field `activation_function` is missing"),
        (json!({ "activation_function": "torch.nn.modules.activation.Mish" }), "supported: torch.nn.Identity"),
        (json!({ "activation_function": tanh, "module_input_name": "token_embeddings" }), "`module_input_name`"),
        (json!({ "activation_function": tanh }), "its weights are not in"),
    ] {
        let refusal = of(config).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
    fs::write(&weights, "no tensors").unwrap();
    assert!(of(json!({ "activation_function": tanh })).is_err());
}
