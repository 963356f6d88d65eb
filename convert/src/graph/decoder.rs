//! Decoder graph: inputs and outputs, and the parts common to every precision.

use super::{GraphError, Precision, builder::Builder, fused, plain};
use crate::onnx::{Dim, ElementType, ValueInfo};

/// Adds the decoder to `b`.
pub(super) fn decoder(b: &mut Builder<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<(), GraphError> {
    let layers = b.architecture().layers.len();
    declare(b);
    rotary_tables(b)?;
    match b.flavour.precision {
        Precision::F32 => {
            let mut stream = plain::embedding(b)?;
            for layer in 0..layers {
                stream = plain::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            plain::head(b, stream)
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

/// Tables of each rotary embedding: cosines and sines of every position and pair, `[context, dim / 2]`, multiplied by
/// its attention factor.
fn rotary_tables(b: &mut Builder<'_>) -> Result<(), GraphError> {
    let context = b.flavour.context_length;
    for (index, rope) in b.architecture().ropes.iter().enumerate() {
        let frequencies = rope.inv_freq(context);
        let angles = (0..context).flat_map(|p| frequencies.iter().map(move |&f| p as f32 * f));
        let factor = rope.attention_factor;
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|a| (factor * a.cos(), factor * a.sin())).unzip();
        let shape = [context, frequencies.len()];
        b.f32s(&format!("rotary.{index}.cos"), &shape, &cos)?;
        b.f32s(&format!("rotary.{index}.sin"), &shape, &sin)?;
    }
    Ok(())
}

fn declare(b: &mut Builder<'_>) {
    use Dim::{Fixed, Symbol};
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("tokens")]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    b.output(ValueInfo::tensor("logits", ElementType::F32, &[Symbol("wanted"), Fixed(b.architecture().vocab_size)]));
}
