//! Qwen 3.5, the text model: the gated delta rule in most layers, attention with an output gate in every fourth.

use serde_json::{Value, json};

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata};
use super::hugging_face::{Conventions, LLAMA, decoder, linear};
use crate::architecture::{Architecture, DeltaRule, Linear, Mixer, Name, Norm, NormKind, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Type of layers without attention.
const LINEAR: &str = "linear_attention";
const QWEN: Conventions = Conventions {
    partial_rotary_factor: 0.25,
    head_dim: Some(256),
    other_layers: Some(LINEAR),
    minus_one: true,
    ..LLAMA
};
/// Key of GGUF for a flag for each layer: whether it does not attend.
const RECURRENT: &str = "attention.recurrent_layers";
/// Defaults of transformers.
const INTERVAL: usize = 4;
const KERNEL: usize = 4;
const KEY_HEADS: usize = 16;
const VALUE_HEADS: usize = 32;
const HEAD_DIM: usize = 128;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["qwen3_5_text"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader {
    keys: &["rope.dimension_sections", RECURRENT],
    translate,
    ..GgufReader::new("qwen35", "qwen3_5_text")
};

/// The text model of a configuration that has it as `text_config`, if that is all that the folder holds.
pub(super) fn text_of<'a>(fields: &Fields<'a>) -> Result<Fields<'a>, ConfigError> {
    if fields.get("vision_config").is_some() {
        let served = "files without it: save the text model by itself, with transformers' AutoModelForCausalLM";
        return Err(fields.unsupported("vision_config", served));
    }
    let text = fields.opt_object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
    let served = READER.model_types;
    match text.opt_text("model_type")? {
        Some(kind) if served.contains(&kind) => Ok(text),
        _ => Err(text.unsupported("model_type", &served.join(", "))),
    }
}

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &QWEN)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    architecture.norms(
        [Some(Name::new("input_layernorm", "attn_norm")), None],
        [Some(Name::new("post_attention_layernorm", "post_attention_norm")), None],
    );
    architecture.each_attention(|_, attention| {
        attention.gated = true;
        attention.qkv.iter_mut().take(1).for_each(|q| q.outputs = q.outputs.saturating_mul(2));
    });
    let attends = attends(fields, architecture.layers.len())?;
    let rule = delta_rule(fields, &architecture)?;
    architecture.each(|index, layer| {
        if !attends[index] {
            layer.mixer = Mixer::DeltaRule(rule.clone());
        }
    });
    Ok(architecture)
}

/// Whether each layer attends.
fn attends(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    if let Some(types) = fields.opt_texts("layer_types")? {
        return Ok(types.iter().take(layers).map(|kind| *kind != LINEAR).collect());
    }
    let key = "full_attention_interval";
    match fields.opt_size(key)?.unwrap_or(INTERVAL) {
        0 => Err(fields.wrong(key, "at least 1")),
        interval => Ok((0..layers).map(|index| (index + 1).is_multiple_of(interval)).collect()),
    }
}

fn delta_rule(fields: &Fields<'_>, architecture: &Architecture) -> Result<DeltaRule, ConfigError> {
    let size = |key: &str, default: usize| Ok::<_, ConfigError>(fields.opt_size(key)?.unwrap_or(default));
    let (key_heads, value_heads) =
        (size("linear_num_key_heads", KEY_HEADS)?, size("linear_num_value_heads", VALUE_HEADS)?);
    let (key_dim, value_dim) = (size("linear_key_head_dim", HEAD_DIM)?, size("linear_value_head_dim", HEAD_DIM)?);
    let hidden = architecture.hidden_size;
    let values = value_heads.saturating_mul(value_dim);
    let channels = key_heads.saturating_mul(key_dim).saturating_mul(2).saturating_add(values);
    let input = |hf: &str, gguf: &str, outputs: usize| -> Linear { linear(hf, gguf, hidden, outputs) };
    Ok(DeltaRule {
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        kernel: size("linear_conv_kernel_dim", KERNEL)?,
        convolution: Name::new("linear_attn.conv1d", "ssm_conv1d"),
        decay: Name::new("linear_attn.A_log", "ssm_a"),
        step: Name::new("linear_attn.dt_bias", "ssm_dt.bias"),
        norm: Norm {
            name: Name::new("linear_attn.norm", "ssm_norm"),
            kind: NormKind::Rms,
            epsilon: architecture.final_norm.as_ref().map_or(0.0, |norm| norm.epsilon),
            minus_one: false,
        },
        inputs: vec![
            input("linear_attn.in_proj_qkv", "attn_qkv", channels),
            input("linear_attn.in_proj_z", "attn_gate", values),
            input("linear_attn.in_proj_b", "ssm_beta", value_heads),
            input("linear_attn.in_proj_a", "ssm_alpha", value_heads),
        ],
        output: linear("linear_attn.out_proj", "ssm_out", values, hidden),
    })
}

/// Heads of values that share a head of keys are in another order there, in all tensors that have them.
fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let (key_heads, value_heads) = (metadata.size("ssm.group_count")?, metadata.size("ssm.time_step_rank")?);
    if key_heads != value_heads {
        let served = format!("{key_heads}, a head of values for each of keys; take the safetensors of the model");
        return Err(metadata.unsupported("ssm.time_step_rank", &served));
    }
    let inner = metadata.size("ssm.inner_size")?;
    let width = inner.checked_div(value_heads).filter(|width| width * value_heads == inner);
    let width = width.ok_or_else(|| metadata.wrong("ssm.inner_size", &format!("a multiple of {value_heads} heads")))?;
    let fields = json!({
        "linear_num_key_heads": key_heads, "linear_num_value_heads": value_heads,
        "linear_key_head_dim": metadata.size("ssm.state_size")?, "linear_value_head_dim": width,
        "linear_conv_kernel_dim": metadata.size("ssm.conv_kernel")?,
        "full_attention_interval": metadata.opt_size("full_attention_interval")?.unwrap_or(INTERVAL),
    });
    config.extend(fields.as_object().cloned().unwrap_or_default());
    if let Some(flags) = metadata.get(RECURRENT) {
        let flags = flags.as_array().map(|flags| flags.iter().map(Value::as_bool).collect::<Option<Vec<_>>>());
        let flags = flags.flatten().ok_or_else(|| metadata.wrong(RECURRENT, "a flag for each layer"))?;
        let kind = |recurrent: &bool| if *recurrent { LINEAR } else { "full_attention" };
        config.insert("layer_types".to_owned(), flags.iter().map(kind).collect());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::architecture::{Architecture, Mixer};
    use crate::config_error::ConfigError;
    use crate::families::from_hugging_face;

    fn config() -> Value {
        json!({
            "model_type": "qwen3_5_text", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 128,
            "max_position_embeddings": 256, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 16, "linear_value_head_dim": 32
        })
    }

    fn read(over: &Value) -> Result<Architecture, ConfigError> {
        let mut config = config();
        config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        from_hugging_face("config.json", config.as_object().unwrap())
    }

    #[test]
    fn every_fourth_layer_attends_with_a_gate() {
        let model = read(&json!({})).unwrap();
        let attends: Vec<_> = model.layers.iter().map(|layer| layer.attention().is_some()).collect();
        assert_eq!(attends, [false, false, false, true, false, false, false, true]);
        let attention = model.layers[3].attention().unwrap();
        assert_eq!((attention.gated, attention.qkv[0].outputs, attention.output.inputs), (true, 256, 128));
        assert_eq!((model.ropes[0].dim, model.final_norm.as_ref().is_some_and(|norm| norm.minus_one)), (8, true));
        let Mixer::DeltaRule(rule) = &model.layers[0].mixer else { panic!("{:?}", model.layers[0].mixer) };
        assert_eq!((rule.channels(), rule.value_width(), rule.norm.minus_one), (192, 128, false));
        let outputs: Vec<_> = rule.inputs.iter().map(|linear| linear.outputs).collect();
        assert_eq!(outputs, [192, 128, 4, 4]);
        assert_eq!(model.state_floats(), 6 * (3 * 192 + 128 * 16));
        let second = read(&json!({"full_attention_interval": 2})).unwrap();
        assert!(second.layers[1].attention().is_some() && second.layers[2].attention().is_none());
    }

    #[test]
    fn a_text_model_within_another_configuration_is_read_if_it_stands_alone() {
        let whole = |over: Value| {
            let mut whole = json!({"model_type": "qwen3_5", "text_config": config()});
            whole.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            from_hugging_face("config.json", whole.as_object().unwrap())
        };
        assert_eq!(whole(json!({})).unwrap(), read(&json!({})).unwrap());
        let refused = whole(json!({"vision_config": {"depth": 2}})).unwrap_err().to_string();
        assert!(refused.contains("vision_config") && refused.contains("AutoModelForCausalLM"), "{refused}");
        let missing = whole(json!({"text_config": null})).unwrap_err().to_string();
        assert!(missing.contains("text_config") && missing.contains("missing"), "{missing}");
    }

    #[test]
    fn shapes_that_no_graph_can_be_built_from_are_refused() {
        for (over, word) in [
            (json!({"linear_num_value_heads": 3}), "multiple of 2 key heads"),
            (json!({"linear_key_head_dim": 24}), "multiple of 16"),
            (json!({"linear_value_head_dim": 1 << 20}), "multiple of 16"),
            (json!({"linear_num_key_heads": 0}), "key heads"),
            (json!({"linear_num_value_heads": 1_u64 << 40}), "value heads"),
            (json!({"linear_conv_kernel_dim": 1000}), "convolution"),
            (json!({"full_attention_interval": 0}), "at least 1"),
            (json!({"layer_types": vec!["mamba"; 8]}), "linear_attention"),
        ] {
            let message = read(&over).unwrap_err().to_string();
            assert!(message.contains(word), "{over}: {message}");
        }
    }
}
