//! Generation defaults of a model's authors.

mod ends;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use ends::{EndCandidates, add_ends, is_unmistakable, looks_like_control, well_known_in};

use crate::fields::{Fields, shown};

/// Above it a distribution is noise; also OpenAI's bound.
const TEMPERATURE_MAX: f32 = 2.0;

/// Generation defaults of a model; fields of a request take precedence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationDefaults {
    /// End-of-sequence ids without duplicates, in the order in which the files name them.
    pub eos_token_ids: Vec<u32>,
    /// The same tokens, each with its text and origin.
    #[serde(default)]
    pub ends: Vec<EndToken>,
    /// Begin-of-sequence id.
    pub bos_token_id: Option<u32>,
    /// Whether sampling is the default; `None` if not stated.
    pub do_sample: Option<bool>,
    /// Softmax temperature.
    pub temperature: Option<f32>,
    /// Candidates kept by rank; 0 keeps all.
    pub top_k: Option<u32>,
    /// Candidates kept by mass.
    pub top_p: Option<f32>,
    /// Candidates kept by their share of the most likely one.
    #[serde(default)]
    pub min_p: Option<f32>,
    /// Divisor of the logits of tokens already seen.
    pub repetition_penalty: Option<f32>,
    /// Warnings about values that are not used as they are. Not stored.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// An end-of-sequence token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndToken {
    /// Token id.
    pub id: u32,
    /// Token text; empty if the vocabulary is unknown.
    pub token: String,
    /// File or rule that names it.
    pub named_by: String,
}

/// Result of reading a number.
enum Reading {
    Taken(f32),
    Instead(f32),
    Ignored,
}

impl GenerationDefaults {
    /// Merges another file. Earlier files take precedence, except that EOS ids add up. Fields out of range become
    /// warnings, not errors: they are only defaults.
    pub(crate) fn merge(&mut self, file: &str, map: &Map<String, Value>, vocab_size: usize) {
        use Reading::{Ignored, Instead, Taken};
        let fields = Fields::new(file, map);
        for id in self.token_ids(file, map, "eos_token_id", vocab_size) {
            self.add_end(id, "", file);
        }
        if let Some(id) = self.token_ids(file, map, "bos_token_id", vocab_size).first() {
            self.bos_token_id.get_or_insert(*id);
        }
        match fields.opt_flag("do_sample") {
            Ok(flag) => self.do_sample = self.do_sample.or(flag),
            Err(error) => self.notes.push(format!("{error}; it is ignored")),
        }
        let temperature = self.number(&fields, "temperature", |x| match x {
            x if x < 0.0 => Ignored,
            x if x > TEMPERATURE_MAX => Instead(TEMPERATURE_MAX),
            x => Taken(x),
        });
        let share = |x: f32| match x {
            x if x < 0.0 => Ignored,
            x if x > 1.0 => Instead(1.0),
            x => Taken(x),
        };
        let top_p = self.number(&fields, "top_p", share);
        let min_p = self.number(&fields, "min_p", |x| if x > 1.0 { Ignored } else { share(x) });
        // Negative values mean "all" in other tools.
        let top_k = self.number(&fields, "top_k", |x| match x {
            x if x.fract() != 0.0 => Ignored,
            x if x < 0.0 => Instead(0.0),
            x => Taken(x),
        });
        let penalty = self
            .number(&fields, "repetition_penalty", |x| if (0.01..=100.0).contains(&x) { Taken(x) } else { Ignored });
        self.temperature = self.temperature.or(temperature);
        self.top_p = self.top_p.or(top_p);
        self.min_p = self.min_p.or(min_p);
        self.top_k = self.top_k.or(top_k.map(|k| k as u32));
        self.repetition_penalty = self.repetition_penalty.or(penalty);
    }

    /// One token id or a list of them, within the vocabulary. Others become warnings.
    pub(crate) fn token_ids(&mut self, file: &str, map: &Map<String, Value>, key: &str, vocab_size: usize) -> Vec<u32> {
        let values = match map.get(key) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut ids = Vec::new();
        for value in values.iter().filter(|value| !value.is_null()) {
            // Some writers make floats of whole numbers.
            let whole =
                value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64));
            match whole.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < vocab_size) {
                Some(id) => ids.push(id),
                None => self.notes.push(format!(
                    "{file}: `{key}` = {} is no token id below the vocabulary size {vocab_size}; it is ignored",
                    shown(value)
                )),
            }
        }
        ids
    }

    fn number(&mut self, fields: &Fields<'_>, key: &str, read: impl Fn(f32) -> Reading) -> Option<f32> {
        let value = fields.get(key)?;
        let reading = match value.as_f64().map(|x| x as f32).filter(|x| x.is_finite()) {
            Some(x) => read(x),
            None => Reading::Ignored,
        };
        let (taken, what) = match reading {
            Reading::Taken(x) => return Some(x),
            Reading::Instead(x) => (Some(x), format!("{x} is taken instead")),
            Reading::Ignored => (None, "it is ignored".to_owned()),
        };
        self.notes.push(format!("{}: `{key}` = {} is out of range; {what}", fields.file(), shown(value)));
        taken
    }

    /// Adds an end-of-sequence token; its first origin is kept.
    pub(crate) fn add_end(&mut self, id: u32, token: &str, named_by: &str) {
        if !self.eos_token_ids.contains(&id) {
            self.eos_token_ids.push(id);
            self.ends.push(EndToken { id, token: token.to_owned(), named_by: named_by.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(files: &[Value]) -> GenerationDefaults {
        let mut defaults = GenerationDefaults::default();
        for file in files {
            defaults.merge("generation_config.json", file.as_object().unwrap(), 100);
        }
        defaults
    }

    #[test]
    fn eos_ids_of_all_files_add_up_and_the_first_file_wins_elsewhere() {
        let defaults = merged(&[
            json!({"eos_token_id": [7, 2], "temperature": 0.6, "bos_token_id": 1}),
            json!({"eos_token_id": 2, "temperature": 1.0, "bos_token_id": 5, "top_k": 50}),
        ]);
        assert_eq!(defaults.eos_token_ids, [7, 2]);
        assert_eq!((defaults.temperature, defaults.bos_token_id, defaults.top_k), (Some(0.6), Some(1), Some(50)));
    }

    #[test]
    fn ids_outside_of_the_vocabulary_are_noted_and_the_others_kept() {
        let cases = [
            (json!([2, 100]), "100", vec![2]),
            (json!(-1), "-1", vec![]),
            (json!("</s>"), "\"</s>\"", vec![]),
            (json!(true), "true", vec![]),
            (json!([[3], 4]), "[3]", vec![4]),
        ];
        for (ids, shown, kept) in cases {
            let defaults = merged(&[json!({"eos_token_id": ids, "bos_token_id": 4_294_967_295u32})]);
            assert_eq!(defaults.eos_token_ids, kept);
            assert_eq!(defaults.bos_token_id, None);
            let [eos, bos] = defaults.notes.as_slice() else { panic!("{:?}", defaults.notes) };
            assert!(eos.contains(&format!("`eos_token_id` = {shown} is no token id")), "{eos}");
            assert!(bos.contains("`bos_token_id` = 4294967295"), "{bos}");
        }
    }

    #[test]
    fn sampling_out_of_range_is_noted_and_replaced_by_what_it_means() {
        let cases = [
            (json!({"top_p": 1.5}), "`top_p` = 1.5 is out of range; 1 is taken instead"),
            (json!({"top_p": -0.1}), "`top_p` = -0.1 is out of range; it is ignored"),
            (json!({"temperature": -1}), "`temperature` = -1 is out of range; it is ignored"),
            (json!({"temperature": 9}), "`temperature` = 9 is out of range; 2 is taken instead"),
            (json!({"temperature": "hot"}), "`temperature` = \"hot\" is out of range; it is ignored"),
            (json!({"top_k": -1}), "`top_k` = -1 is out of range; 0 is taken instead"),
            (json!({"repetition_penalty": 0}), "`repetition_penalty` = 0 is out of range; it is ignored"),
            (json!({"do_sample": "yes"}), "`do_sample` is \"yes\"; expected true or false; it is ignored"),
        ];
        for (file, note) in cases {
            let defaults = merged(&[file]);
            assert_eq!(defaults.notes.len(), 1, "{:?}", defaults.notes);
            assert!(defaults.notes[0].contains(note), "{}", defaults.notes[0]);
        }
        let fine = merged(&[json!({"top_p": 0.0, "temperature": 0, "top_k": 0, "min_p": 0.1, "do_sample": null})]);
        assert!(fine.notes.is_empty(), "{:?}", fine.notes);
        assert_eq!((fine.top_p, fine.temperature, fine.top_k, fine.min_p), (Some(0.0), Some(0.0), Some(0), Some(0.1)));
    }
}
