//! OLMo 2 and 3: norms after each block instead of before, and norms of all queries and keys of a token. OLMo 3 has
//! windows in most layers.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata, Windows};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::Rope;

const OLMO: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA };
const WINDOW_DEFAULT: usize = 4096;

pub(super) const OLMO2: FamilyReader = FamilyReader { model_types: &["olmo2"], from_hugging_face: olmo2 };
pub(super) const OLMO3: FamilyReader = FamilyReader { model_types: &["olmo3"], from_hugging_face: olmo3 };
pub(super) const GGUF: GgufReader =
    GgufReader { windows: Windows::AllBut(4), translate, ..GgufReader::new("olmo2", "olmo2") };

fn olmo2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &OLMO)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.norms(
        [None, Some(Name::new("post_attention_layernorm", "post_attention_norm"))],
        [None, Some(Name::new("post_feedforward_layernorm", "post_ffw_norm"))],
    );
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Token, false);
    Ok(architecture)
}

fn olmo3(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = olmo2(fields)?;
    if !fields.has("layer_types") {
        let window = fields.opt_size("sliding_window")?.or(Some(WINDOW_DEFAULT));
        architecture.each_attention(|index, attention| attention.window = window.filter(|_| (index + 1) % 4 != 0));
    }
    if let [full] = architecture.ropes.as_slice() {
        // Files of transformers 4: the scaling is that of full attention.
        let sliding = Rope::new(full.theta, full.dim);
        architecture.ropes.push(sliding);
    }
    architecture.each_attention(|_, attention| attention.rope = Some(usize::from(attention.window.is_some())));
    Ok(architecture)
}

/// Files with windows are of OLMo 3.
fn translate(_: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    if config.get("sliding_window").is_some_and(|window| !window.is_null()) {
        config.insert("model_type".to_owned(), "olmo3".into());
    }
    Ok(())
}
