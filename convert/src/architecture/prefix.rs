//! Names of checkpoints that were saved without the head of a task, or with one: transformers puts the name of the part before
//! those of its tensors, or leaves it out.

use super::{Architecture, Name};

/// Names of the part without a head, by family; `model` for all others.
const PARTS: [(&str, &str); 7] = [
    ("bert", "bert"),
    ("roberta", "roberta"),
    ("xlm-roberta", "roberta"),
    ("camembert", "roberta"),
    ("distilbert", "distilbert"),
    ("mpnet", "mpnet"),
    ("nomic_bert", "bert"),
];

impl Architecture {
    /// Takes the names that the checkpoint has, if it has the embedding under another one.
    pub(crate) fn take_names(&mut self, has: impl Fn(&str) -> bool) {
        let embedding = self.embedding.weight();
        if has(&embedding) {
            return;
        }
        let part = PARTS.iter().find(|(family, _)| *family == self.family).map_or("model", |(_, part)| part);
        let begin = format!("{part}.");
        if embedding.strip_prefix(&begin).is_some_and(&has) {
            self.rename(&|name| name.strip_prefix(&begin).unwrap_or(name).to_owned());
        } else if has(&format!("{begin}{embedding}")) {
            self.rename(&|name| format!("{begin}{name}"));
        }
    }

    /// Changes all names that are not within a layer, but for the head's.
    fn rename(&mut self, change: &dyn Fn(&str) -> String) {
        let apply = |name: &mut Name| name.hf = change(&name.hf);
        apply(&mut self.embedding);
        self.layers_begin = change(&self.layers_begin);
        self.final_norm.iter_mut().for_each(|norm| apply(&mut norm.name));
        if let Some(inputs) = &mut self.layer_inputs {
            [&mut inputs.embedding, &mut inputs.projection.name, &mut inputs.norm.name].into_iter().for_each(apply);
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.positions.iter_mut().chain(&mut encoder.token_types).for_each(|rows| apply(&mut rows.name));
            encoder.relative_bias.iter_mut().for_each(|bias| apply(&mut bias.name));
            encoder.embedding_norm.iter_mut().for_each(|norm| apply(&mut norm.name));
            let also: Vec<_> = encoder.unused.iter().map(|begin| change(begin)).collect();
            encoder.unused.extend(also);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::families::from_hugging_face;

    #[test]
    fn names_are_those_of_the_file() {
        for (family, first, layers) in [
            ("bert", "bert.embeddings.word_embeddings.weight", "bert.encoder.layer."),
            ("bert", "embeddings.word_embeddings.weight", "encoder.layer."),
            ("camembert", "roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer."),
            ("qwen3", "embed_tokens.weight", "layers."),
            ("qwen3", "model.embed_tokens.weight", "model.layers."),
            ("qwen3", "something.else", "model.layers."),
        ] {
            let config = json!({ "model_type": family, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
                "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 66, "head_dim": 16 });
            let mut model = from_hugging_face("config.json", config.as_object().unwrap()).unwrap();
            model.take_names(|name| name == first);
            assert_eq!(model.layers_begin, layers, "{family}");
            let named = model.tensors().iter().any(|tensor| tensor.name == first);
            assert_eq!(named, first != "something.else", "{family}");
            assert!(
                family != "bert" || model.is_redundant(&first.replace("embeddings.word_embeddings", "pooler.dense"))
            );
        }
    }
}
