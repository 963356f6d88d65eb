//! Answers: a tensor for each output, with a value for each text.

use slm_proto::v1::{Completion, EmbedResponse, Finished, Started, Usage};

use super::{EMBEDDING, describe::OUTPUTS, request::Form};
use crate::http::head::finish_reason;

/// An output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: &'static str,
    pub(crate) values: Values,
}

/// One for each text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// BYTES.
    Texts(Vec<String>),
    /// UINT32.
    Counts(Vec<u32>),
    /// FP32, rows of the same size one after the other.
    Vectors { rows: usize, floats: Vec<f32> },
}

impl Values {
    pub(crate) fn datatype(&self) -> &'static str {
        match self {
            Self::Texts(_) => "BYTES",
            Self::Counts(_) => "UINT32",
            Self::Vectors { .. } => "FP32",
        }
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Texts(texts) => vec![texts.len()],
            Self::Counts(counts) => vec![counts.len()],
            Self::Vectors { rows, floats } => vec![*rows, floats.len().checked_div(*rows).unwrap_or(0)],
        }
    }

    /// Little-endian; a text after its length in four bytes.
    pub(crate) fn raw(&self) -> Vec<u8> {
        match self {
            Self::Counts(counts) => counts.iter().flat_map(|count| count.to_le_bytes()).collect(),
            Self::Vectors { floats, .. } => floats.iter().flat_map(|float| float.to_le_bytes()).collect(),
            Self::Texts(texts) => {
                let mut raw = Vec::with_capacity(texts.iter().map(|text| 4 + text.len()).sum());
                for text in texts {
                    raw.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
                    raw.extend_from_slice(text.as_bytes());
                }
                raw
            }
        }
    }
}

/// The vectors of texts.
pub(crate) fn vectors(answer: EmbedResponse) -> Vec<Output> {
    let rows = answer.embeddings.len();
    let floats = answer.embeddings.into_iter().flat_map(|embedding| embedding.values).collect();
    vec![Output { name: EMBEDDING, values: Values::Vectors { rows, floats } }]
}

/// What is known of one answer, or of a part of it.
struct Part<'a> {
    text: String,
    reason: &'a str,
    usage: Usage,
}

/// Whole answers.
pub(crate) fn whole(form: &Form, completions: Vec<Completion>) -> Vec<Output> {
    let parts = completions.into_iter().enumerate().map(|(index, completion)| {
        let (reason, usage) = (finish_reason(completion.reason()), completion.usage.unwrap_or_default());
        let text = match form.before.get(index) {
            Some(before) => format!("{before}{}", completion.text),
            None => completion.text,
        };
        Part { text, reason, usage }
    });
    outputs(form, &parts.collect::<Vec<_>>())
}

/// A part of a streamed answer, of which only the text is known.
pub(crate) fn piece(form: &Form, text: String) -> Vec<Output> {
    let wanted = form.outputs.iter().find(|name| **name == OUTPUTS[0].name);
    wanted.map(|name| Output { name, values: Values::Texts(vec![text]) }).into_iter().collect()
}

/// The end of a streamed answer, without text.
pub(crate) fn finished(form: &Form, finished: &Finished) -> Vec<Output> {
    let (reason, usage) = (finish_reason(finished.reason()), finished.usage.unwrap_or_default());
    outputs(form, &[Part { text: String::new(), reason, usage }])
}

fn outputs(form: &Form, parts: &[Part<'_>]) -> Vec<Output> {
    let texts = |text: fn(&Part<'_>) -> String| Values::Texts(parts.iter().map(text).collect());
    let counts = |count: fn(&Part<'_>) -> u32| Values::Counts(parts.iter().map(count).collect());
    let values = |name: &str| match name {
        "finish_reason" => texts(|part| part.reason.to_owned()),
        "num_input_tokens" => counts(|part| part.usage.prompt_tokens),
        "num_output_tokens" => counts(|part| part.usage.completion_tokens),
        _ => texts(|part| part.text.clone()),
    };
    form.outputs.iter().map(|name| Output { name, values: values(name) }).collect()
}

/// The model or adapter that answers.
pub(crate) fn expert(started: Option<&Started>) -> Option<String> {
    Some(started?.expert.as_ref()?.name.clone())
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::FinishReason;

    use super::*;

    fn form(outputs: &[&'static str]) -> Form {
        Form { outputs: outputs.to_vec(), before: Vec::new() }
    }

    #[test]
    fn one_value_for_each_text() {
        let answer = |text: &str, tokens| Completion {
            text: text.to_owned(),
            reason: FinishReason::Length.into(),
            usage: Some(Usage { prompt_tokens: 3, completion_tokens: tokens, ..Default::default() }),
            ..Default::default()
        };
        let form = Form {
            before: vec!["1".to_owned(), "2".to_owned()],
            ..form(&["num_output_tokens", "text_output", "finish_reason"])
        };
        let outputs = whole(&form, vec![answer("a", 1), answer("b", 2)]);
        let texts = |texts: [&str; 2]| Values::Texts(texts.map(str::to_owned).to_vec());
        assert_eq!(
            outputs,
            [
                Output { name: "num_output_tokens", values: Values::Counts(vec![1, 2]) },
                Output { name: "text_output", values: texts(["1a", "2b"]) },
                Output { name: "finish_reason", values: texts(["length", "length"]) },
            ]
        );
        assert_eq!(outputs[0].values.raw(), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(outputs[1].values.raw(), b"\x02\0\0\x001a\x02\0\0\x002b");
    }

    #[test]
    fn vectors_are_the_rows_of_one_tensor() {
        let embeddings = [[1.0, 2.0], [3.0, 4.0]].map(|values| slm_proto::v1::Embedding { values: values.into() });
        let outputs = vectors(EmbedResponse { embeddings: embeddings.into(), ..EmbedResponse::default() });
        let values = &outputs[0].values;
        assert_eq!((outputs[0].name, values.datatype(), values.shape()), ("embedding", "FP32", vec![2, 2]));
        assert_eq!(values.raw()[4..8], 2.0_f32.to_le_bytes());
    }

    #[test]
    fn streams_say_at_their_end_what_is_known_then() {
        let form = form(&["text_output", "finish_reason"]);
        assert_eq!(
            piece(&form, "a".to_owned()),
            [Output { name: "text_output", values: Values::Texts(vec!["a".to_owned()]) }]
        );
        let names: Vec<_> = finished(&form, &Finished::default()).iter().map(|output| output.name).collect();
        assert_eq!(names, ["text_output", "finish_reason"]);
    }
}
