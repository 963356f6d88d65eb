//! Tensors of an architecture: names, shapes, and what is done to them.

use super::{
    Architecture, Attention, DeltaRule, Experts, FeedForward, KeyValues, Layer, LayerInputs, Linear, Mixer, Name, Norm,
    NormKind, QkSpan, RelativeBias, Residual, Rows, ShortConvolution,
};

/// A tensor that the model needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorSpec {
    /// Hugging Face name.
    pub(crate) name: String,
    /// Name in a GGUF file.
    pub(crate) gguf: String,
    /// `[outputs, inputs]` of a linear layer, `[vocabulary, hidden]` of the embedding, `[width]` of a norm or bias.
    pub(crate) shape: Vec<usize>,
    pub(crate) transform: Transform,
    /// Place of the matrix of an expert in a tensor with those of all.
    pub(crate) stack: Option<Stack>,
}

/// A tensor with the matrices of all experts of a layer, `[experts, outputs, inputs]`, and the place of one of them in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stack {
    /// Name in a Hugging Face checkpoint that has no tensor for each expert, as transformers 5 keeps them in memory. In a
    /// GGUF file it is [`TensorSpec::gguf`].
    pub(crate) name: String,
    /// Shape of the tensor of that name. That in a GGUF file has the outputs of one linear layer only.
    pub(crate) shape: [usize; 3],
    /// Index of the expert.
    pub(crate) expert: usize,
    /// Its first output in the tensor of that name.
    pub(crate) output: usize,
}

/// What is done to a tensor when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transform {
    Nothing,
    /// Hugging Face stores the values minus one.
    AddOne,
    /// GGUF stores rows of each of so many heads with the halves of a rotation side by side.
    SplitPairs {
        heads: usize,
    },
    /// `[channels, 1, kernel]`, which GGUF stores as `[channels, kernel]`.
    Convolution,
    /// GGUF stores minus the exponentials of the values.
    LogOfNegative,
}

impl Architecture {
    /// All tensors, in the order in which they are used.
    pub(crate) fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = Tensors(Vec::new());
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        let root = Name::new("", "");
        all.add(&root, &self.embedding, ".weight", vec![vocab, hidden], Transform::Nothing);
        if let Some(LayerInputs { size, embedding, projection, norm, .. }) = &self.layer_inputs {
            let width = self.layers.len() * size;
            all.add(&root, embedding, ".weight", vec![vocab, width], Transform::Nothing);
            all.linear(&root, projection);
            all.norm(&root, norm, *size);
        }
        if let Some(encoder) = &self.encoder {
            for Rows { name, count, .. } in encoder.positions.iter().chain(&encoder.token_types) {
                all.add(&root, name, ".weight", vec![*count, hidden], Transform::Nothing);
            }
            if let Some(RelativeBias { name, buckets }) = &encoder.relative_bias {
                let heads = self.layers.iter().find_map(Layer::attention).map_or(0, |attention| attention.heads);
                all.add(&root, name, ".weight", vec![*buckets, heads], Transform::Nothing);
            }
            encoder.embedding_norm.iter().for_each(|norm| all.norm(&root, norm, hidden));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let prefix = self.layer_prefix(index);
            match &layer.residual {
                Residual::Sequential { attention, feed_forward } => {
                    let norms = [&attention.pre, &attention.post, &feed_forward.pre, &feed_forward.post];
                    norms.into_iter().flatten().for_each(|norm| all.norm(&prefix, norm, hidden));
                }
                Residual::Parallel { norm } => all.norm(&prefix, norm, hidden),
                Residual::Normed { attention, feed_forward } => {
                    [attention, feed_forward].into_iter().for_each(|norm| all.norm(&prefix, norm, hidden));
                }
            }
            all.mixer(&prefix, &layer.mixer);
            layer.input.iter().for_each(|input| all.norm(&prefix, &input.norm, hidden));
            layer.output_scale.iter().for_each(|name| all.add(&prefix, name, "", vec![1], Transform::Nothing));
            layer.linears().for_each(|linear| all.linear(&prefix, linear));
            if let Some(experts) = &layer.feed_forward.experts {
                all.experts(&prefix, &layer.feed_forward, experts, hidden);
            }
        }
        self.final_norm.iter().for_each(|norm| all.norm(&root, norm, hidden));
        if !self.head.tied {
            all.add(&root, &self.head.name, ".weight", vec![vocab, hidden], Transform::Nothing);
        }
        if self.head.bias {
            all.add(&root, &self.head.name, ".bias", vec![vocab], Transform::Nothing);
        }
        all.0
    }

    /// Whether a Hugging Face checkpoint may hold this tensor beside those of [`Architecture::tensors`]: rotary frequencies
    /// follow from the configuration, a tied head is the embedding, and keys and values that are those of another layer need
    /// no weights.
    pub(crate) fn is_redundant(&self, name: &str) -> bool {
        let in_layer = |name: &str| -> Option<bool> {
            let (layer, name) = name.strip_prefix(&self.layers_begin)?.split_once('.')?;
            let of = self.layers.get(layer.parse::<usize>().ok()?)?.attention()?.kv;
            let unused = ["k_proj.", "v_proj.", "k_norm.", "v_norm."];
            let name = name.strip_prefix("self_attn.")?;
            Some(matches!(of, KeyValues::OfLayer(_)) && unused.iter().any(|unused| name.starts_with(unused)))
        };
        in_layer(name) == Some(true)
            || name.ends_with(".rotary_emb.inv_freq")
            || self.encoder.as_ref().is_some_and(|encoder| encoder.is_unused(name))
            || (self.head.tied && name.strip_suffix(".weight") == Some(&self.head.name.hf))
    }
}

struct Tensors(Vec<TensorSpec>);

impl Tensors {
    fn add(&mut self, prefix: &Name, name: &Name, suffix: &str, shape: Vec<usize>, transform: Transform) {
        let whole = |prefix: &str, name: &str| format!("{prefix}{name}{suffix}");
        let (hf, gguf) = (whole(&prefix.hf, &name.hf), whole(&prefix.gguf, &name.gguf));
        self.0.push(TensorSpec { name: hf, gguf, shape, transform, stack: None });
    }

    /// Tensors of a token mixer beside those of its linear layers.
    fn mixer(&mut self, prefix: &Name, mixer: &Mixer) {
        match mixer {
            Mixer::Attention(attention) => self.attention(prefix, attention),
            Mixer::ShortConvolution(ShortConvolution { width, kernel, convolution, bias, .. }) => {
                self.add(prefix, convolution, ".weight", vec![*width, 1, *kernel], Transform::Convolution);
                if *bias {
                    self.add(prefix, convolution, ".bias", vec![*width], Transform::Nothing);
                }
            }
            Mixer::DeltaRule(rule) => {
                let DeltaRule { value_heads, value_dim, kernel, convolution, decay, step, norm, .. } = rule;
                let shape = vec![rule.channels(), 1, *kernel];
                self.add(prefix, convolution, ".weight", shape, Transform::Convolution);
                self.add(prefix, decay, "", vec![*value_heads], Transform::LogOfNegative);
                self.add(prefix, step, "", vec![*value_heads], Transform::Nothing);
                self.norm(prefix, norm, *value_dim);
            }
        }
    }

    fn attention(&mut self, prefix: &Name, attention: &Attention) {
        let Some(norms) = &attention.qk_norm else { return };
        let widths = match norms.span {
            QkSpan::Head => [attention.head_dim; 2],
            QkSpan::Token => [attention.q_size(), attention.kv_size()],
        };
        self.norm(prefix, &norms.q, widths[0]);
        if !matches!(attention.kv, KeyValues::OfLayer(_)) {
            self.norm(prefix, &norms.k, widths[1]);
        }
    }

    fn experts(&mut self, prefix: &Name, block: &FeedForward, experts: &Experts, hidden: usize) {
        self.add(prefix, &experts.router, ".weight", vec![experts.count, hidden], Transform::Nothing);
        let stack = |name: &str, linears: &[Linear]| {
            let outputs = linears.iter().map(|linear| linear.outputs).sum();
            let inputs = linears.first().map_or(0, |linear| linear.inputs);
            let name = format!("{}{}.{name}", prefix.hf, experts.prefix);
            Stack { name, shape: [experts.count, outputs, inputs], expert: 0, output: 0 }
        };
        let down = std::slice::from_ref(&block.down);
        for expert in 0..experts.count {
            let within = experts.expert(expert).within(prefix);
            for (mut stack, linears) in
                [(stack("gate_up_proj", &block.up), &block.up[..]), (stack("down_proj", down), down)]
            {
                stack.expert = expert;
                for linear in linears {
                    let shape = vec![linear.outputs, linear.inputs];
                    self.add(&within, &linear.name, ".weight", shape, Transform::Nothing);
                    if let Some(last) = self.0.last_mut() {
                        last.stack = Some(stack.clone());
                    }
                    stack.output += linear.outputs;
                }
            }
        }
    }

    fn norm(&mut self, prefix: &Name, norm: &Norm, width: usize) {
        let transform = if norm.minus_one { Transform::AddOne } else { Transform::Nothing };
        self.add(prefix, &norm.name, ".weight", vec![width], transform);
        if norm.kind == (NormKind::Layer { bias: true }) {
            self.add(prefix, &norm.name, ".bias", vec![width], Transform::Nothing);
        }
    }

    fn linear(&mut self, prefix: &Name, linear: &Linear) {
        let transform = linear.gguf_pairs.map_or(Transform::Nothing, |heads| Transform::SplitPairs { heads });
        self.add(prefix, &linear.name, ".weight", vec![linear.outputs, linear.inputs], transform);
        if linear.bias {
            self.add(prefix, &linear.name, ".bias", vec![linear.outputs], transform);
        }
    }
}
