//! Feed-forward blocks with experts: one node, in both forms of the decoder.

use super::{
    EXPERTS, GraphError, OPERATOR_DOMAIN, Precision,
    builder::Builder,
    common::{activation_name, tensor},
};
use crate::{
    architecture::{Experts, FeedForward, Linear},
    checkpoint::{Checkpoint, CheckpointError},
    onnx::Attribute,
    quantize::{Bits, quantize_alike},
};

/// What a node does beside the block itself.
#[derive(Default)]
pub(super) struct Around<'a> {
    /// Value that the result is added to; empty for none.
    pub(super) residual: &'a str,
    /// Gain and bias of the norm before the block; empty for none.
    pub(super) norm: [String; 2],
    /// Attributes of the norm, and the factor of the result.
    pub(super) attributes: Vec<Attribute>,
}

/// Adds the experts of `layer`, applied to `x`; gives the name of the result.
pub(super) fn experts(
    b: &mut Builder<'_>,
    layer: usize,
    of: &Experts,
    x: &str,
    around: Around<'_>,
) -> Result<String, GraphError> {
    let FeedForward { size, activation, gated, up, down, .. } = &b.architecture().layers[layer].feed_forward;
    let hidden = b.architecture().hidden_size;
    let prefix = b.architecture().layer_prefix(layer);
    let router = tensor(b, &of.router.within(&prefix).weight())?;
    let [up, down] = [stack(b, layer, of, "up", up)?, stack(b, layer, of, "down", std::slice::from_ref(down))?];
    let number = |name: &str, number: usize| Attribute::int(name, number as i64);
    let Around { residual, norm: [gain, norm_bias], mut attributes } = around;
    attributes.extend([
        number("used", of.used),
        number("normalized", usize::from(of.normalized)),
        number("inputs", hidden),
        number("size", *size),
        number("outputs", hidden),
        Attribute::string("up_format", up.format),
        Attribute::string("down_format", down.format),
        Attribute::string("activation", activation_name(*activation)),
        number("gated", usize::from(*gated)),
        number("residual", usize::from(!residual.is_empty())),
    ]);
    let out = format!("layers.{layer}.experts.out");
    let inputs = [x, &router, &up.weights, &down.weights, residual, &gain, &norm_bias];
    b.node(OPERATOR_DOMAIN, EXPERTS, &inputs, &[&out], attributes);
    Ok(out)
}

/// The matrices of all experts as one initializer.
struct Stack {
    weights: String,
    format: &'static str,
}

/// Adds the matrices of all experts, each of linear layers whose outputs stand side by side.
fn stack(b: &mut Builder<'_>, layer: usize, of: &Experts, name: &str, linears: &[Linear]) -> Result<Stack, GraphError> {
    let prefix = b.architecture().layer_prefix(layer);
    let tensors = |expert: usize| {
        let within = of.expert(expert).within(&prefix);
        linears.iter().map(|linear| linear.name.within(&within).weight()).collect::<Vec<_>>()
    };
    let tensors: Vec<_> = (0..of.count).map(tensors).collect();
    let packed =
        |bits: Bits| quantize_alike(b.checkpoint, &tensors, bits).map(|(format, bytes)| (format.name(), bytes));
    let (format, bytes) = match b.flavour.precision {
        Precision::F32 | Precision::F16 => ("f32", floats(b.checkpoint, tensors.iter().flatten())?),
        Precision::Int4 => packed(Bits::Four)?,
        Precision::Int8 => packed(Bits::Eight)?,
    };
    let weights = format!("layers.{layer}.experts.{name}");
    b.bytes(&weights, &[bytes.len()], &bytes)?;
    Ok(Stack { weights, format })
}

fn floats<'t>(checkpoint: &Checkpoint, tensors: impl Iterator<Item = &'t String>) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = Vec::new();
    for tensor in tensors {
        bytes.extend_from_slice(bytemuck::cast_slice(&checkpoint.tensor(tensor)?.data));
    }
    Ok(bytes)
}
