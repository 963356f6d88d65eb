//! Decoder graph: inputs and outputs, and the parts common to every precision.

use super::{Form, GraphError, Precision, builder::Builder, encoder, fused, plain, rows};
use crate::onnx::{Dim, ElementType, ValueInfo};

/// Adds the decoder to `b`.
pub(super) fn decoder(b: &mut Builder<'_>, progress: &mut dyn FnMut(usize, usize)) -> Result<(), GraphError> {
    let layers = b.architecture().layers.len();
    match b.flavour.form {
        Form::Paged => declare(b),
        Form::States => encoder::declare(b),
        Form::Gqa | Form::Standard | Form::Delta => rows::declare(b)?,
    }
    match (b.flavour.form, b.flavour.precision) {
        (Form::Gqa | Form::Standard | Form::Delta, _)
        | (Form::Paged | Form::States, Precision::F32 | Precision::F16) => {
            let mut stream = plain::embedding(b)?;
            for layer in 0..layers {
                stream = plain::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            if b.flavour.form == Form::States { plain::states(b, stream) } else { plain::head(b, stream) }
        }
        (Form::Paged | Form::States, Precision::Int4 | Precision::Int8) => {
            let mut stream = fused::embedding(b)?;
            for layer in 0..layers {
                stream = fused::layer(b, layer, stream)?;
                progress(layer + 1, layers);
            }
            if b.flavour.form == Form::States { fused::states(b, &stream) } else { fused::head(b, stream) }
        }
    }
}

fn declare(b: &mut Builder<'_>) {
    use Dim::{Fixed, Symbol};
    b.input(ValueInfo::tensor("input_ids", ElementType::I64, &[Symbol("tokens")]));
    b.input(ValueInfo::tensor("logits_indices", ElementType::I64, &[Symbol("wanted")]));
    b.output(ValueInfo::tensor("logits", ElementType::F32, &[Symbol("wanted"), Fixed(b.architecture().vocab_size)]));
}
