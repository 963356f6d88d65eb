//! Prompts for the text between a prefix and a suffix: fill in the middle.
//!
//! Models that were trained for it have control tokens for the three parts, whose names are those of the models' own tokenizers and
//! whose order is that of their documentation.

use tokenizers::Tokenizer;

/// Control tokens of one family.
struct Marks {
    prefix: &'static str,
    suffix: &'static str,
    /// Before what the model writes; none where the prefix comes last.
    middle: Option<&'static str>,
}

/// `StarCoder` and Granite Code; Qwen Coder and `CodeGemma`; `DeepSeek` Coder; Code Llama; Codestral.
const FAMILIES: [Marks; 5] = [
    Marks { prefix: "<fim_prefix>", suffix: "<fim_suffix>", middle: Some("<fim_middle>") },
    Marks { prefix: "<|fim_prefix|>", suffix: "<|fim_suffix|>", middle: Some("<|fim_middle|>") },
    Marks {
        prefix: "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
        suffix: "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
        middle: Some("<\u{ff5c}fim\u{2581}end\u{ff5c}>"),
    },
    Marks { prefix: "\u{2581}<PRE>", suffix: "\u{2581}<SUF>", middle: Some("\u{2581}<MID>") },
    Marks { prefix: "[PREFIX]", suffix: "[SUFFIX]", middle: None },
];
/// Control tokens that end such an answer, besides those of the model.
const ENDS: [&str; 7] =
    ["<|fim_pad|>", "<|file_sep|>", "<|repo_name|>", "<|file_separator|>", "<file_sep>", "<fim_pad>", "\u{2581}<EOT>"];

/// Control tokens of a model that fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Infill {
    prefix: u32,
    suffix: u32,
    middle: Option<u32>,
}

impl Infill {
    /// Those of a vocabulary, if it has all of one family.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        FAMILIES.iter().find_map(|marks| {
            let middle = match marks.middle {
                Some(middle) => Some(tokenizer.token_to_id(middle)?),
                None => None,
            };
            let [prefix, suffix] = [marks.prefix, marks.suffix].map(|name| tokenizer.token_to_id(name));
            Some(Self { prefix: prefix?, suffix: suffix?, middle })
        })
    }

    /// The prompt, without what the tokenizer puts before a text.
    pub(super) fn prompt(&self, before: &[u32], after: &[u32]) -> Vec<u32> {
        match self.middle {
            Some(middle) => [&[self.prefix], before, &[self.suffix], after, &[middle]].concat(),
            None => [&[self.suffix], after, &[self.prefix], before].concat(),
        }
    }
}

/// Ids of the control tokens that end what is filled in.
pub(super) fn ends(tokenizer: &Tokenizer) -> Vec<u32> {
    ENDS.iter().filter_map(|name| tokenizer.token_to_id(name)).collect()
}

#[cfg(test)]
mod tests {
    use tokenizers::{AddedToken, models::bpe::BPE};

    use super::*;

    fn tokenizer(names: &[&str]) -> Tokenizer {
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.add_special_tokens(&names.iter().map(|&name| AddedToken::from(name, true)).collect::<Vec<_>>());
        tokenizer
    }

    #[test]
    fn parts_are_in_the_order_of_the_family() {
        let starcoder = Infill::of(&tokenizer(&["<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"])).unwrap();
        assert_eq!(starcoder.prompt(&[10], &[11, 12]), [0, 10, 2, 11, 12, 1]);
        let codestral = Infill::of(&tokenizer(&["[PREFIX]", "[SUFFIX]"])).unwrap();
        assert_eq!(codestral.prompt(&[10], &[11, 12]), [1, 11, 12, 0, 10]);
        assert_eq!(Infill::of(&tokenizer(&["<fim_prefix>", "<fim_suffix>"])), None, "no middle");
    }

    #[test]
    fn a_pad_or_the_next_file_ends_an_answer() {
        assert_eq!(ends(&tokenizer(&["<fim_prefix>", "<fim_pad>", "<file_sep>"])), [2, 1]);
    }
}
