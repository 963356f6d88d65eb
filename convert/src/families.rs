//! Model families: recognition, and conversion of `config.json` or GGUF metadata to an [`Architecture`].
//!
//! A family is one small file with a [`FamilyReader`] and one line in [`ALL`]; one more in [`GGUF`] for its GGUF files.

mod bert;
mod changes;
mod cohere2;
mod ernie;
mod exaone4;
mod gemma;
mod gemma4;
mod gguf;
mod glm4;
mod granite;
mod hugging_face;
mod hunyuan;
mod lfm2;
mod llama;
mod mistral;
mod modernbert;
mod nemotron;
mod nomic_bert;
mod olmo;
mod phi;
mod phi3;
mod qwen;
mod qwen3_5;
mod qwen_moe;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use serde_json::{Map, Value};

use self::gguf::GgufReader;
pub(crate) use self::gguf::{FUSED, OF_METADATA, Tensors};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Recognition and reader of a family.
struct FamilyReader {
    /// `model_type` in config.json.
    model_types: &'static [&'static str],
    from_hugging_face: Read,
}

type Read = fn(&Fields<'_>) -> Result<Architecture, ConfigError>;

/// All families.
const ALL: &[FamilyReader] = &[
    llama::READER,
    mistral::MISTRAL,
    mistral::MINISTRAL,
    qwen::QWEN2,
    qwen::QWEN3,
    qwen_moe::READER,
    qwen3_5::READER,
    gemma::GEMMA2,
    gemma::GEMMA3,
    gemma4::READER,
    phi3::READER,
    phi::READER,
    smollm3::READER,
    granite::READER,
    olmo::OLMO2,
    olmo::OLMO3,
    exaone4::READER,
    ernie::READER,
    hunyuan::READER,
    glm4::READER,
    cohere2::READER,
    starcoder2::READER,
    stablelm::READER,
    nemotron::READER,
    seed_oss::READER,
    lfm2::READER,
    bert::BERT,
    bert::ROBERTA,
    bert::DISTILBERT,
    bert::MPNET,
    modernbert::READER,
    nomic_bert::READER,
];

/// Architectures of GGUF files.
const GGUF: &[GgufReader] = &[
    llama::GGUF,
    mistral::GGUF,
    GgufReader::new("qwen2", "qwen2"),
    GgufReader::new("qwen3", "qwen3"),
    qwen_moe::GGUF,
    qwen3_5::GGUF,
    gemma::GGUF2,
    gemma::GGUF3,
    phi3::GGUF,
    phi::GGUF,
    smollm3::GGUF,
    granite::GGUF,
    olmo::GGUF,
    exaone4::GGUF,
    GgufReader::new("ernie4_5", "ernie4_5"),
    GgufReader::new("hunyuan-dense", "hunyuan_v1_dense"),
    GgufReader::new("glm4", "glm4"),
    cohere2::GGUF,
    starcoder2::GGUF,
    stablelm::GGUF,
    nemotron::GGUF,
    GgufReader::new("seed_oss", "seed_oss"),
    lfm2::GGUF,
];

/// Reads the `config.json` of a Hugging Face folder.
pub(crate) fn from_hugging_face(file: &str, map: &Map<String, Value>) -> Result<Architecture, ConfigError> {
    let mut fields = Fields::new(file, map);
    if fields.opt_text("model_type")? == Some("qwen3_5") {
        fields = qwen3_5::text_of(&fields)?;
    }
    let model_type = fields.opt_text("model_type")?.ok_or_else(|| fields.missing("model_type"))?;
    let reader = ALL.iter().find(|reader| reader.model_types.contains(&model_type)).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().flat_map(|reader| reader.model_types.iter().copied()).collect();
        fields.unsupported("model_type", &known.join(", "))
    })?;
    let architecture = (reader.from_hugging_face)(&fields)?;
    architecture.check(file)?;
    Ok(architecture)
}

/// Reads the metadata of a GGUF file with its `tensors`.
pub(crate) fn from_gguf(
    file: &str,
    map: &Map<String, Value>,
    tensors: &dyn Tensors,
) -> Result<Architecture, ConfigError> {
    let fields = Fields::new(file, map);
    let key = "general.architecture";
    let architecture = fields.opt_text(key)?.ok_or_else(|| fields.missing(key))?;
    let reader = GGUF.iter().find(|reader| reader.architecture == architecture).ok_or_else(|| {
        let known: Vec<_> = GGUF.iter().map(|reader| reader.architecture).collect();
        fields.unsupported(key, &known.join(", "))
    })?;
    let architecture = gguf::read(&fields, tensors, reader, ALL)?;
    architecture.check(file)?;
    Ok(architecture)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::architecture::TensorSpec;

    #[test]
    fn every_family_names_each_tensor_once_in_both_formats() {
        for model_type in ALL.iter().flat_map(|reader| reader.model_types) {
            let config = json!({
                "model_type": model_type, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 256
            });
            let architecture = from_hugging_face("config.json", config.as_object().unwrap())
                .unwrap_or_else(|error| panic!("{model_type}: {error}"));
            let tensors = architecture.tensors();
            let hugging_face: BTreeSet<_> = tensors.iter().map(|tensor| &tensor.name).collect();
            let expert = |tensor: &TensorSpec| tensor.stack.as_ref().map(|stack| stack.expert);
            let gguf: BTreeSet<_> = tensors.iter().map(|tensor| (&tensor.gguf, expert(tensor))).collect();
            assert_eq!((hugging_face.len(), gguf.len()), (tensors.len(), tensors.len()), "{model_type}");
            assert_eq!(architecture.family, *model_type);
        }
    }
}
