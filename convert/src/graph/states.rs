//! Token mixers with a state of fixed size for each sequence: one node, in both forms of the decoder.

use super::{
    DELTA_RULE, GraphError, OPERATOR_DOMAIN, SHORT_CONVOLUTION, builder::Builder, common::tensor, plain::transposed,
};
use crate::{
    architecture::{DeltaRule, Name, ShortConvolution},
    onnx::Attribute,
};

/// Gated short convolution of `layer` over the result of its first linear layer; gives the name of the result.
pub(super) fn short_convolution(
    b: &mut Builder<'_>,
    layer: usize,
    of: &ShortConvolution,
    x: &str,
) -> Result<String, GraphError> {
    let name = of.convolution.within(&b.architecture().layer_prefix(layer));
    let weights = convolution(b, &name, of.kernel)?;
    let bias = if of.bias { tensor(b, &name.bias())? } else { String::new() };
    let number = |name: &str, number: usize| Attribute::int(name, number as i64);
    let attributes = vec![
        number("layer", layer),
        number("width", of.width),
        number("kernel", of.kernel),
        number("bias", usize::from(of.bias)),
    ];
    let out = format!("layers.{layer}.mixed");
    b.node(OPERATOR_DOMAIN, SHORT_CONVOLUTION, &[x, &weights, &bias], &[&out], attributes);
    Ok(out)
}

/// Gated delta rule of `layer` over the results of its first linear layers; gives the name of the result.
pub(super) fn delta_rule(b: &mut Builder<'_>, layer: usize, of: &DeltaRule, x: &str) -> Result<String, GraphError> {
    let prefix = b.architecture().layer_prefix(layer);
    let weights = convolution(b, &of.convolution.within(&prefix), of.kernel)?;
    let rates = of.decay.within(&prefix).hf;
    let mut decay = b.checkpoint.tensor(&rates)?;
    decay.data.iter_mut().for_each(|rate| *rate = rate.exp());
    b.f32s(&rates, &decay.shape, &decay.data)?;
    let steps = tensor(b, &of.step.within(&prefix).hf)?;
    let gain = tensor(b, &of.norm.name.within(&prefix).weight())?;
    let number = |name: &str, number: usize| Attribute::int(name, number as i64);
    let attributes = vec![
        number("layer", layer),
        number("key_heads", of.key_heads),
        number("value_heads", of.value_heads),
        number("key_dim", of.key_dim),
        number("value_dim", of.value_dim),
        number("kernel", of.kernel),
        Attribute::float("epsilon", of.norm.epsilon),
    ];
    let out = format!("layers.{layer}.mixed");
    b.node(OPERATOR_DOMAIN, DELTA_RULE, &[x, &weights, &rates, &steps, &gain], &[&out], attributes);
    Ok(out)
}

/// Adds the weights of a convolution of each channel by itself, `[kernel, channels]`; gives their name.
fn convolution(b: &mut Builder<'_>, name: &Name, kernel: usize) -> Result<String, GraphError> {
    let name = name.weight();
    let tensor = b.checkpoint.tensor(&name)?;
    b.f32s(&name, &[kernel, tensor.data.len() / kernel.max(1)], &transposed(&tensor.data, kernel))?;
    Ok(name)
}
