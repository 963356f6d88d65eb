//! Decoder graph: inputs and outputs, and the parts common to every precision.

use super::{GraphError, Precision, builder::Builder, fused, plain};
use crate::onnx::{Dim, ElementType, ValueInfo};

/// Adds the decoder to `b`.
pub(super) fn decoder(b: &mut Builder<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<(), GraphError> {
    let layers = b.config().layers;
    declare(b);
    rotary_tables(b)?;
    match b.flavour.precision {
        Precision::F32 => {
            let mut stream = plain::embedding(b)?;
            for layer in 0..layers {
                stream = plain::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            plain::head(b, &stream)
        }
        Precision::Int4 | Precision::Int8 => {
            let mut stream = fused::embedding(b)?;
            for layer in 0..layers {
                stream = fused::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            fused::head(b, stream)
        }
    }
}

/// `cos` and `sin` of every position and frequency, `[context, head_dim / 2]`.
fn rotary_tables(b: &mut Builder<'_>) -> Result<(), GraphError> {
    let (context, config) = (b.flavour.context_length, b.config());
    let frequencies = config.rope.inv_freq(config.head_dim);
    let angles = || (0..context).flat_map(|p| frequencies.iter().map(move |&f| p as f32 * f));
    let shape = [context, frequencies.len()];
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles().map(|a| (a.cos(), a.sin())).unzip();
    b.f32s("rotary.cos", &shape, &cos)?;
    b.f32s("rotary.sin", &shape, &sin)?;
    Ok(())
}

fn declare(b: &mut Builder<'_>) {
    use Dim::{Fixed, Symbol};
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("tokens")]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    b.output(ValueInfo::tensor("logits", ElementType::F32, &[Symbol("wanted"), Fixed(b.config().vocab_size)]));
}
