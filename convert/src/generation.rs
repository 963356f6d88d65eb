//! What the authors of a model say about generating with it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::ConfigError;
use crate::fields::Fields;

/// Defaults that came with a model; what a request says wins over them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// Tokens that end an answer, without duplicates; the first is the one the authors named first.
    pub eos_token_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Whether the authors sample; `None` where they do not say.
    pub do_sample: Option<bool>,
    /// Softmax temperature.
    pub temperature: Option<f32>,
    /// Candidates kept by rank.
    pub top_k: Option<u32>,
    /// Candidates kept by mass.
    pub top_p: Option<f32>,
    /// Divisor of the logits of tokens already seen.
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Takes in what one more file says. What an earlier file said stays, except that EOS ids add up.
    ///
    /// # Errors
    /// Names the field that is not of its type, or the id outside of the vocabulary.
    pub(crate) fn merge(&mut self, file: &str, map: &Map<String, Value>, vocab_size: usize) -> Result<(), ConfigError> {
        let fields = Fields::new(file, map);
        for id in fields.token_ids("eos_token_id", vocab_size)? {
            self.add_eos(id);
        }
        if let Some(id) = fields.token_ids("bos_token_id", vocab_size)?.first() {
            self.bos_token_id.get_or_insert(*id);
        }
        self.do_sample = self.do_sample.or(fields.opt_flag("do_sample")?);
        self.temperature = self.temperature.or(fields.opt_number("temperature")?.map(|x| x as f32));
        self.top_k = self.top_k.or(fields.opt_size("top_k")?.and_then(|k| u32::try_from(k).ok()));
        self.top_p = self.top_p.or(fields.opt_number("top_p")?.map(|x| x as f32));
        let penalty = fields.opt_number("repetition_penalty")?.map(|x| x as f32);
        self.repetition_penalty = self.repetition_penalty.or(penalty);
        Ok(())
    }

    pub(crate) fn add_eos(&mut self, id: u32) {
        if !self.eos_token_ids.contains(&id) {
            self.eos_token_ids.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(files: &[Value]) -> Result<GenerationDefaults, ConfigError> {
        let mut defaults = GenerationDefaults::default();
        for file in files {
            defaults.merge("generation_config.json", file.as_object().unwrap(), 100)?;
        }
        Ok(defaults)
    }

    #[test]
    fn eos_ids_of_all_files_add_up_and_the_first_file_wins_elsewhere() {
        let defaults = merged(&[
            json!({"eos_token_id": [7, 2], "temperature": 0.6, "bos_token_id": 1}),
            json!({"eos_token_id": 2, "temperature": 1.0, "bos_token_id": 5, "top_k": 50}),
        ]);
        let defaults = defaults.unwrap();
        assert_eq!(defaults.eos_token_ids, [7, 2]);
        assert_eq!((defaults.temperature, defaults.bos_token_id, defaults.top_k), (Some(0.6), Some(1), Some(50)));
    }

    #[test]
    fn an_id_outside_of_the_vocabulary_is_named() {
        let message = merged(&[json!({"eos_token_id": [2, 100]})]).unwrap_err().to_string();
        assert!(message.contains("eos_token_id") && message.contains("100"), "{message}");
    }
}
