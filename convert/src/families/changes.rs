//! Changes to Llama's layers that several families share.

use crate::architecture::{
    Architecture, Attention, BlockNorms, FeedForward, Layer, Linear, Mixer, Name, Norm, NormKind, QkNorm, QkSpan,
    Residual,
};
use crate::config_error::ConfigError;
use crate::fields::Fields;

impl Architecture {
    /// Applies `change` to each layer, given its index.
    pub(super) fn each(&mut self, change: impl Fn(usize, &mut Layer)) {
        self.layers.iter_mut().enumerate().for_each(|(index, layer)| change(index, layer));
    }

    /// Applies `change` to the attention of each layer that has one, given its index.
    pub(super) fn each_attention(&mut self, change: impl Fn(usize, &mut Attention)) {
        self.each(|index, layer| {
            if let Mixer::Attention(attention) = &mut layer.mixer {
                change(index, attention);
            }
        });
    }

    /// Biases as the flags of config.json say: of queries, keys and values, of the attention output, and of the
    /// feed-forward block.
    pub(super) fn biases(&mut self, qkv: bool, output: bool, feed_forward: bool) {
        self.each_attention(|_, attention| {
            attention.qkv.iter_mut().for_each(|linear| linear.bias = qkv);
            attention.output.bias = output;
        });
        self.each(|_, layer| {
            layer.feed_forward.up.iter_mut().for_each(|linear| linear.bias = feed_forward);
            layer.feed_forward.down.bias = feed_forward;
        });
    }

    /// Norms of queries and keys, over `span`. GGUF calls them `attn_q_norm` and `attn_k_norm`.
    pub(super) fn qk_norms(&mut self, [q, k]: [&str; 2], span: QkSpan, after_rope: bool) {
        let Some(like) = self.final_norm.clone() else { return };
        self.each_attention(|_, attention| {
            let named = |hf: &str, gguf: &str| Norm { name: Name::new(hf, gguf), kind: NormKind::Rms, ..like.clone() };
            let (q, k) = (named(q, "attn_q_norm"), named(k, "attn_k_norm"));
            attention.qk_norm = Some(QkNorm { q, k, span, after_rope });
        });
    }

    /// Norms around both blocks, by names without `.weight`; `None` for a norm that is not there.
    pub(super) fn norms(&mut self, attention: [Option<Name>; 2], feed_forward: [Option<Name>; 2]) {
        let Some(like) = self.final_norm.clone() else { return };
        let block = |[pre, post]: &[Option<Name>; 2]| {
            let named = |name: &Option<Name>| name.clone().map(|name| Norm { name, ..like.clone() });
            BlockNorms { pre: named(pre), post: named(post) }
        };
        let residual = Residual::Sequential { attention: block(&attention), feed_forward: block(&feed_forward) };
        self.each(|_, layer| layer.residual = residual.clone());
    }

    /// Both blocks beside each other, after one norm: that of attention.
    pub(super) fn parallel(&mut self) {
        self.each(|_, layer| {
            if let Residual::Sequential { attention: BlockNorms { pre: Some(norm), .. }, .. } = &layer.residual {
                layer.residual = Residual::Parallel { norm: norm.clone() };
            }
        });
    }

    /// Rotation of neighbouring floats.
    pub(super) fn interleaved(&mut self) {
        self.ropes.iter_mut().for_each(|rope| rope.interleaved = true);
    }

    /// Only layers with a sliding window have a rotation.
    pub(super) fn rope_in_windows_only(&mut self) {
        self.each_attention(|_, attention| attention.rope = attention.rope.filter(|_| attention.window.is_some()));
    }
}

impl Layer {
    /// Gates and values from one linear layer.
    pub(super) fn fuse_gate_up(&mut self, name: Name) {
        self.feed_forward.up = fused(&self.feed_forward.up, name);
    }

    /// Queries, keys and values from one linear layer.
    pub(super) fn fuse_qkv(&mut self, name: Name) {
        if let Mixer::Attention(attention) = &mut self.mixer {
            attention.qkv = fused(&attention.qkv, name);
        }
    }

    /// A feed-forward block without gates.
    pub(super) fn without_gate(&mut self, up: Name, down: Name) {
        let FeedForward { up: linears, down: to, gated, .. } = &mut self.feed_forward;
        linears.truncate(1);
        linears.iter_mut().for_each(|linear| linear.name = up.clone());
        to.name = down;
        *gated = false;
    }
}

fn fused(linears: &[Linear], name: Name) -> Vec<Linear> {
    let outputs = linears.iter().map(|linear| linear.outputs).sum();
    linears.first().map(|first| Linear { name, outputs, ..first.clone() }).into_iter().collect()
}

/// A flag of config.json; absent ones are `default`.
pub(super) fn flag(fields: &Fields<'_>, key: &str, default: bool) -> Result<bool, ConfigError> {
    Ok(fields.opt_flag(key)?.unwrap_or(default))
}

/// A number of config.json; absent ones are `default`.
pub(super) fn number(fields: &Fields<'_>, key: &str, default: f64) -> Result<f32, ConfigError> {
    Ok(fields.opt_number(key)?.unwrap_or(default) as f32)
}
