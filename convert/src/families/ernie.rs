//! ERNIE 4.5, dense: Llama's layers with a rotation of neighbours.

use super::FamilyReader;
use super::changes::flag;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const ERNIE: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), rope_theta: 500_000.0, tied: true, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["ernie4_5"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &ERNIE)?;
    let bias = flag(fields, "use_bias", false)?;
    architecture.biases(bias, bias, bias);
    architecture.interleaved();
    Ok(architecture)
}
