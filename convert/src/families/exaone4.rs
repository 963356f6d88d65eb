//! EXAONE 4: norms after each block instead of before, norms of queries and keys, and, in models with windows, rotation in
//! windows only.

use super::FamilyReader;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const EXAONE: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["exaone4"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &EXAONE)?;
    architecture.norms(
        [None, Some(Name::new("post_attention_layernorm", "post_attention_norm"))],
        [None, Some(Name::new("post_feedforward_layernorm", "post_ffw_norm"))],
    );
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    let window = fields.opt_size("sliding_window")?;
    if let (false, Some(pattern)) = (fields.has("layer_types"), fields.opt_size("sliding_window_pattern")?) {
        let slides = move |index: usize| pattern == 0 || (index + 1) % pattern != 0;
        architecture.each(|index, layer| layer.attention.window = window.filter(|_| slides(index)));
    }
    if window.is_some() {
        architecture.rope_in_windows_only();
    }
    Ok(architecture)
}
