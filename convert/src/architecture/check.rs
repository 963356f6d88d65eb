//! Checks of an architecture: shapes that no graph can be built from.

use slm_kernels::states::{HEAD_DIM_MAX, KERNEL_MAX, LANES};

use super::{Architecture, Attention, DeltaRule, KeyValues, Layer, Mixer, RelativeBias};
use crate::config_error::ConfigError;

/// No real model comes near; below this, products of two dimensions cannot overflow.
const DIMENSION_MAX: usize = 1 << 24;
/// No real model has more.
pub(crate) const LAYERS_MAX: usize = 1024;
/// Experts of all layers together; the largest models known have 25 thousand.
const EXPERTS_MAX: usize = 1 << 16;

impl Architecture {
    /// Refuses shapes that no graph can be built from; `file` is named in errors.
    pub(crate) fn check(&self, file: &str) -> Result<(), ConfigError> {
        let check = Check { file };
        check.size("hidden size", self.hidden_size, DIMENSION_MAX)?;
        check.size("vocabulary size", self.vocab_size, DIMENSION_MAX)?;
        check.size("context length", self.context_length, DIMENSION_MAX)?;
        check.size("number of layers", self.layers.len(), LAYERS_MAX)?;
        self.final_norm.iter().try_for_each(|norm| check.epsilon(norm.epsilon))?;
        if let Some(inputs) = &self.layer_inputs {
            check.size("size of the input of a layer", inputs.size, DIMENSION_MAX / self.layers.len())?;
        }
        if let Some(encoder) = &self.encoder {
            encoder.embedding_norm.iter().try_for_each(|norm| check.epsilon(norm.epsilon))?;
            if let Some(bias) = &encoder.relative_bias {
                check.buckets(bias.buckets)?;
            }
            for rows in encoder.positions.iter().chain(&encoder.token_types) {
                check.size("number of position embeddings or token types", rows.count, DIMENSION_MAX)?;
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            check.size("intermediate size", layer.feed_forward.size, DIMENSION_MAX)?;
            check.mixer(&self.layers[..index], &layer.mixer)?;
            if let Some(experts) = &layer.feed_forward.experts {
                check.size("number of experts", experts.count, EXPERTS_MAX / self.layers.len())?;
                check.size("number of experts of a token", experts.used, experts.count)?;
            }
            if let Some(attention) = layer.attention()
                && let Some(rope) = attention.rope.and_then(|rope| self.ropes.get(rope))
            {
                rope.check(attention.head_dim, file)?;
            }
        }
        Ok(())
    }
}

struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn wrong(&self, field: &str, found: impl ToString, expected: &str) -> ConfigError {
        ConfigError::Wrong {
            file: self.file.to_owned(),
            field: field.to_owned(),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    fn size(&self, field: &str, value: usize, max: usize) -> Result<(), ConfigError> {
        match value {
            0 => Err(self.wrong(field, value, &format!("between 1 and {max}"))),
            _ if value > max => Err(self.wrong(field, value, &format!("between 1 and {max}"))),
            _ => Ok(()),
        }
    }

    /// Two sides, each with distances one by one and on a scale.
    fn buckets(&self, buckets: usize) -> Result<(), ConfigError> {
        let most = 4 * RelativeBias::DISTANCE_MAX;
        if buckets.is_multiple_of(4) && (4..most).contains(&buckets) {
            return Ok(());
        }
        Err(self.wrong("number of buckets of distances", buckets, &format!("a multiple of 4 below {most}")))
    }

    fn epsilon(&self, epsilon: f32) -> Result<(), ConfigError> {
        if epsilon.is_finite() && epsilon >= 0.0 {
            return Ok(());
        }
        Err(self.wrong("rms_norm_eps", epsilon, "a small positive number"))
    }

    fn mixer(&self, before: &[Layer], mixer: &Mixer) -> Result<(), ConfigError> {
        match mixer {
            Mixer::Attention(attention) => {
                self.attention(attention)?;
                self.shared(before, attention)
            }
            Mixer::ShortConvolution(of) => {
                self.size("width of a convolution", of.width, DIMENSION_MAX)?;
                self.kernel(of.kernel)
            }
            Mixer::DeltaRule(of) => self.delta_rule(of),
        }
    }

    /// A convolution over one token would have no state.
    fn kernel(&self, kernel: usize) -> Result<(), ConfigError> {
        if (2..=KERNEL_MAX).contains(&kernel) {
            return Ok(());
        }
        Err(self.wrong("tokens of a convolution", kernel, &format!("between 2 and {KERNEL_MAX}")))
    }

    fn delta_rule(&self, of: &DeltaRule) -> Result<(), ConfigError> {
        let DeltaRule { key_heads, value_heads, key_dim, value_dim, kernel, .. } = *of;
        self.kernel(kernel)?;
        self.size("number of key heads of linear attention", key_heads, DIMENSION_MAX)?;
        self.size("number of value heads of linear attention", value_heads, DIMENSION_MAX)?;
        let divided = format!("a multiple of {key_heads} key heads");
        if !value_heads.is_multiple_of(key_heads) {
            return Err(self.wrong("number of value heads of linear attention", value_heads, &divided));
        }
        for dim in [key_dim, value_dim] {
            if dim == 0 || dim > HEAD_DIM_MAX || !dim.is_multiple_of(LANES) {
                let expected = format!("a multiple of {LANES} up to {HEAD_DIM_MAX}");
                return Err(self.wrong("head dimension of linear attention", dim, &expected));
            }
        }
        self.size("width of linear attention", value_heads * key_dim.max(value_dim), DIMENSION_MAX / 4)
    }

    /// Keys and values of another layer must be there, and of the same shape.
    fn shared(&self, before: &[Layer], attention: &Attention) -> Result<(), ConfigError> {
        let KeyValues::OfLayer(source) = attention.kv else { return Ok(()) };
        let shape = |attention: &Attention| (attention.heads, attention.kv_heads, attention.head_dim);
        let fits =
            |source: &Attention| shape(source) == shape(attention) && !matches!(source.kv, KeyValues::OfLayer(_));
        if before.get(source).and_then(Layer::attention).is_some_and(fits) {
            return Ok(());
        }
        let expected = "an earlier layer with keys and values of its own and heads of the same size";
        Err(self.wrong("layer whose keys and values are shared", source, expected))
    }

    fn attention(&self, attention: &Attention) -> Result<(), ConfigError> {
        let Attention { heads, kv_heads, head_dim, .. } = *attention;
        self.size("number of attention heads", heads, DIMENSION_MAX)?;
        self.size("number of key/value heads", kv_heads, DIMENSION_MAX)?;
        self.size("head dimension", head_dim, DIMENSION_MAX)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.wrong("number of key/value heads", kv_heads, &format!("a divisor of {heads} heads")));
        }
        if !head_dim.is_multiple_of(2) {
            let expected = "an even number, as rotary embedding turns pairs";
            return Err(self.wrong("head dimension", head_dim, expected));
        }
        if heads * head_dim > DIMENSION_MAX {
            return Err(self.wrong(
                "head dimension",
                head_dim,
                &format!("heads x dimension of at most {DIMENSION_MAX}"),
            ));
        }
        if attention.window == Some(0) {
            return Err(self.wrong("sliding window", 0, "at least 1, or null"));
        }
        if !(attention.scale.is_finite() && attention.scale > 0.0) {
            return Err(self.wrong("scale of attention", attention.scale, "a positive number"));
        }
        Ok(())
    }
}
