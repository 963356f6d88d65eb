use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::rope::{Rope, RopeScaling};

fn read(over: &Value) -> Result<Architecture, ConfigError> {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 256
    });
    let map = config.as_object_mut().unwrap();
    map.extend(over.as_object().unwrap().clone());
    crate::families::from_hugging_face("config.json", map)
}

#[test]
fn what_is_not_said_takes_the_defaults_of_transformers() {
    let config = read(&json!({})).unwrap();
    let attention = config.layers[0].attention().unwrap();
    assert_eq!((attention.kv_heads, attention.head_dim), (4, 16));
    assert_eq!(config.ropes, [Rope::new(10_000.0, 16)]);
    assert!(!config.head.tied && attention.window.is_none());
    let window = |config: Architecture| config.layers[0].attention().unwrap().window;
    assert_eq!(window(read(&json!({"model_type": "mistral"})).unwrap()), Some(4096));
    assert_eq!(window(read(&json!({"model_type": "mistral", "sliding_window": null})).unwrap()), None);
}

#[test]
fn both_spellings_of_llama3_rope_read_alike() {
    let numbers = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_type": "llama3"});
    let mut new = numbers.clone();
    new["rope_theta"] = json!(500_000.0);
    let new = read(&json!({"rope_parameters": new})).unwrap();
    let old = read(&json!({"rope_theta": 500_000.0, "rope_scaling": numbers})).unwrap();
    assert_eq!(new.ropes, old.ropes);
    assert!(matches!(new.ropes[0].scaling, RopeScaling::Llama3 { original_context: 64, .. }));
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let cases = [
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor", "missing"),
        (json!({"rope_parameters": {"rope_type": "spiral"}}), "rope_parameters.rope_type", "spiral"),
        (json!({"partial_rotary_factor": 1.5, "rope_scaling": {}}), "partial_rotary_factor", "1.5"),
        (json!({"hidden_act": "snake"}), "hidden_act", "snake"),
        (json!({"layer_types": ["full_attention", "recurrent"]}), "layer_types", "recurrent"),
        (json!({"layer_types": ["full_attention"]}), "layer_types", "2 layers"),
        (json!({"model_type": "phi", "qk_layernorm": true}), "qk_layernorm", "true"),
        (json!({"model_type": "granite", "logits_scaling": 0.0}), "logits_scaling", "positive"),
        (json!({"model_type": "qwen3_moe", "num_experts_per_tok": 0}), "experts of a token", "0"),
        (json!({"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 5}), "experts of a token", "4"),
        (json!({"model_type": "qwen3_moe", "num_experts": 1_u64 << 40}), "number of experts", "1099511627776"),
        (json!({"model_type": "qwen3_moe", "moe_intermediate_size": 0}), "intermediate size", "0"),
        (json!({"model_type": "qwen3_moe", "decoder_sparse_step": 0}), "decoder_sparse_step", "at least 1"),
        (json!({"model_type": "qwen3_moe", "mlp_only_layers": ["0"]}), "mlp_only_layers", "numbers"),
        (json!({"model_type": "gemma4_text", "enable_moe_block": true}), "enable_moe_block", "true"),
        (json!({"model_type": "gemma4_text", "use_bidirectional_attention": "all"}), "bidirectional", "all"),
        (json!({"model_type": "gemma4_text", "num_kv_shared_layers": 2}), "num_kv_shared_layers", "below 2"),
        (json!({"model_type": "gemma4_text", "num_kv_shared_layers": 1}), "num_kv_shared_layers", "each type"),
        (json!({"model_type": "gemma4_text", "per_layer_config": {"2": {}}}), "per_layer_config.2", "one of 2 layers"),
        (
            json!({"model_type": "gemma4_text", "per_layer_config": {"0": {"window": 4}}}),
            "per_layer_config.0.window",
            "4",
        ),
        (json!({"model_type": "gemma4_text", "per_layer_config": {"1": {"head_dim": 0}}}), "head dimension", "0"),
        (json!({"model_type": "gemma4_text", "vocab_size_per_layer_input": 64}), "vocab_size_per_layer_input", "64"),
        (
            json!({"model_type": "gemma4_text", "hidden_size_per_layer_input": 1_u64 << 40}),
            "input of a layer",
            "1099511627776",
        ),
        (json!({"model_type": "gemma4_text", "num_hidden_layers": 0}), "num_hidden_layers", "at least 1"),
        (json!({"model_type": "mamba"}), "model_type", "llama, mistral"),
        (json!({"model_type": "gemma4", "text_config": {"model_type": "gemma4_text"}}), "model_type", "gemma4_text"),
        (json!({"model_type": null}), "model_type", "missing"),
        (json!({"hidden_size": null}), "hidden_size", "missing"),
        (json!({"hidden_size": "64"}), "hidden_size", "whole number"),
        (json!({"num_attention_heads": 0}), "head", "0"),
        (json!({"num_key_value_heads": 3}), "key/value heads", "divisor of 4"),
        (json!({"head_dim": 15}), "head dimension", "even"),
        (json!({"num_hidden_layers": 1_000_000}), "layers", "1000000"),
        (json!({"vocab_size": u64::MAX}), "vocab", "18446744073709551615"),
        (json!({"rms_norm_eps": -1.0}), "rms_norm_eps", "-1"),
    ];
    for (over, field, word) in cases {
        let message = read(&over).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains(field) && message.contains(word), "{message}");
    }
}
