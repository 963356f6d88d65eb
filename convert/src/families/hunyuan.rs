//! Hunyuan, dense: Llama's layers with norms of queries and keys after the rotation.

use super::FamilyReader;
use super::changes::flag;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const HUNYUAN: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["hunyuan_v1_dense"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &HUNYUAN)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.qk_norms(["self_attn.query_layernorm", "self_attn.key_layernorm"], QkSpan::Head, true);
    for key in ["rope_parameters", "rope_scaling"] {
        let Some(parameters) = fields.opt_object(key)? else { continue };
        // `dynamic` with an alpha is a larger base, whatever the context.
        if let Some(alpha) = parameters.opt_number("alpha")?.filter(|alpha| *alpha != 0.0) {
            architecture.ropes.iter_mut().for_each(|rope| {
                let dim = rope.dim as f64;
                rope.theta = (f64::from(rope.theta) * alpha.powf(dim / (dim - 2.0))) as f32;
            });
        }
        break;
    }
    Ok(architecture)
}
