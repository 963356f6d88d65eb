//! Several answers to one prompt: `n`, and `best_of`.

use futures::future::try_join_all;
use slm_proto::v1::{Completion, GenerateRequest};

use super::{Shared, error::ApiError, fields::Fields, names::FieldNames};
use crate::{dispatch::Call, events::Answer};

/// Answers to one prompt.
const MAX: u32 = 64;

/// How many answers a prompt gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Answers that are given.
    pub(super) given: usize,
    /// Answers that are computed, of which the likeliest are given.
    pub(super) computed: usize,
}

impl Choices {
    pub(super) const ONE: Self = Self { given: 1, computed: 1 };

    /// `n`.
    pub(super) fn n(fields: &mut Fields) -> Result<Self, ApiError> {
        let given = count(fields, "n")?.unwrap_or(1);
        Ok(Self { given, computed: given })
    }

    /// `n` and `best_of`, of an answer that is whole unless it is a `stream`.
    pub(super) fn best_of(fields: &mut Fields, stream: bool) -> Result<Self, ApiError> {
        let Self { given, .. } = Self::n(fields)?;
        let Some(computed) = count(fields, "best_of")? else { return Ok(Self { given, computed: given }) };
        let wrong = |why: String| Err(ApiError::param("best_of", format!("`best_of` {why}")));
        match (computed > given, stream) {
            _ if computed < given => wrong(format!("is {computed}, but {given} answers are wanted by `n`")),
            (true, true) => {
                wrong("is for whole answers: the best is known at the end only; leave out `stream`".to_owned())
            }
            _ => Ok(Self { given, computed }),
        }
    }

    /// Begins the answers to each of `requests`, those to one after another. The first answer's first token is there before the others are
    /// asked for, of the same worker: it has the keys and values of the prompt by then, and does not compute them again.
    pub(super) async fn begin(
        self,
        dispatcher: &Shared,
        requests: &[GenerateRequest],
        names: FieldNames,
        call: &Call,
    ) -> Result<Vec<Answer>, ApiError> {
        self.of_one_expert(dispatcher, requests)?;
        let begun = requests.iter().enumerate().map(|(index, request)| async move {
            let refused = |refusal| names.error(refusal, index);
            let asked = self.asked(request, 0);
            let first = dispatcher.generate(asked.as_ref().unwrap_or(request), call).await.map_err(refused)?;
            let worker = first.worker();
            let others = (1..self.computed).map(|place| {
                let (request, worker) = (self.asked(request, place), &worker);
                async move {
                    let Some(request) = request else { return Ok(None) };
                    dispatcher.generate_beside(&request, call, worker).await.map(Some)
                }
            });
            let others = try_join_all(others).await.map_err(refused)?;
            Ok::<_, ApiError>(std::iter::once(first).chain(others.into_iter().flatten()).collect::<Vec<_>>())
        });
        Ok(try_join_all(begun).await?.into_iter().flatten().collect())
    }

    /// Refuses several answers to one prompt where each would be one of several experts.
    fn of_one_expert(self, dispatcher: &Shared, requests: &[GenerateRequest]) -> Result<(), ApiError> {
        let view = dispatcher.view();
        let route = requests.first().filter(|_| self.computed > 1).and_then(|it| view.index.route(&it.model));
        let Some(route) = route.filter(|route| route.ensemble().is_some()) else { return Ok(()) };
        let name = if self.computed > self.given { "best_of" } else { "n" };
        let message = format!(
            "`{name}` is {}, but the route `{}` gives one answer of several experts; leave it out, or name one expert",
            self.computed, route.name
        );
        Err(ApiError::param(name, message))
    }

    /// The request of the answer at `place`; `None` if it is `request` itself.
    fn asked(self, request: &GenerateRequest, place: usize) -> Option<GenerateRequest> {
        let chosen = self.computed > self.given && request.logprobs.is_none();
        if place == 0 && !chosen {
            return None;
        }
        let mut request = request.clone();
        if chosen {
            request.logprobs = Some(0);
        }
        // The answers of one seed differ, and are the same the next time.
        if let Some(seed) = request.sampling.as_mut().and_then(|sampling| sampling.seed.as_mut()) {
            *seed = seed.wrapping_add(place as u64);
        }
        Some(request)
    }

    /// The answers that are given, of those that were computed.
    pub(super) fn chosen(self, completions: Vec<Completion>) -> Vec<Completion> {
        if self.computed == self.given {
            return completions;
        }
        let mut completions = completions.into_iter();
        let mut chosen = Vec::new();
        loop {
            let mut answers: Vec<Completion> = completions.by_ref().take(self.computed).collect();
            if answers.is_empty() {
                return chosen;
            }
            answers.sort_by(|one, other| likelihood(other).total_cmp(&likelihood(one)));
            answers.truncate(self.given);
            chosen.append(&mut answers);
        }
    }
}

fn count(fields: &mut Fields, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(count) = fields.take_as::<u32>(name, "an integer from 1 to 64")? else { return Ok(None) };
    if count == 0 || count > MAX {
        return Err(ApiError::param(name, format!("`{name}` has to be an integer from 1 to {MAX}, not {count}")));
    }
    Ok(Some(count as usize))
}

/// The mean log-probability of its tokens, as OpenAI ranks answers.
fn likelihood(completion: &Completion) -> f64 {
    let tokens = &completion.logprobs;
    let sum: f64 = tokens.iter().map(|token| f64::from(token.logprob)).sum();
    // A count of tokens is exact.
    #[allow(clippy::cast_precision_loss)]
    let count = tokens.len() as f64;
    if tokens.is_empty() { f64::NEG_INFINITY } else { sum / count }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use slm_proto::v1::{Sampling, TokenLogprob};

    use super::*;

    fn read(body: &Value, stream: bool) -> Result<Choices, ApiError> {
        Choices::best_of(&mut Fields::new(body.as_object().expect("an object").clone()), stream)
    }

    #[test]
    fn numbers_of_answers() {
        assert_eq!(read(&json!({}), true), Ok(Choices::ONE));
        assert_eq!(read(&json!({ "n": 4 }), true), Ok(Choices { given: 4, computed: 4 }));
        assert_eq!(read(&json!({ "n": 2, "best_of": 3 }), false), Ok(Choices { given: 2, computed: 3 }));
        for (body, stream, param, words) in [
            (json!({ "n": 0 }), false, "n", "from 1 to 64, not 0"),
            (json!({ "n": 65 }), false, "n", "from 1 to 64, not 65"),
            (json!({ "n": "two" }), false, "n", "from 1 to 64, not \"two\""),
            (json!({ "n": 3, "best_of": 2 }), false, "best_of", "is 2, but 3 answers are wanted"),
            (json!({ "best_of": 2 }), true, "best_of", "leave out `stream`"),
        ] {
            let error = read(&body, stream).expect_err(words);
            assert_eq!(error.body.param.as_deref(), Some(param), "{words}");
            assert!(error.body.message.contains(words), "{}", error.body.message);
        }
    }

    #[test]
    fn answers_of_one_seed_differ() {
        let sampling = Sampling { seed: Some(7), ..Default::default() };
        let request = GenerateRequest { sampling: Some(sampling), ..Default::default() };
        let four = Choices { given: 4, computed: 4 };
        assert!(four.asked(&request, 0).is_none());
        let seed = |place| four.asked(&request, place).and_then(|request| request.sampling?.seed);
        assert_eq!((seed(1), seed(3)), (Some(8), Some(10)));
        let best = Choices { given: 1, computed: 2 };
        assert_eq!(best.asked(&request, 0).and_then(|request| request.logprobs), Some(0));
    }

    #[test]
    fn the_likeliest_of_each_prompt_are_given() {
        let answer = |text: &str, logprobs: &[f32]| Completion {
            text: text.to_owned(),
            logprobs: logprobs.iter().map(|logprob| TokenLogprob { logprob: *logprob, ..Default::default() }).collect(),
            ..Default::default()
        };
        let answers = vec![
            answer("a", &[-1.0, -3.0]),
            answer("b", &[-1.5]),
            answer("c", &[]),
            answer("d", &[-9.0]),
            answer("e", &[-0.5, -0.5]),
            answer("f", &[-0.7]),
        ];
        let texts = |choices: Choices| {
            choices.chosen(answers.clone()).into_iter().map(|answer| answer.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(Choices { given: 2, computed: 3 }), ["b", "a", "e", "f"]);
        assert_eq!(texts(Choices { given: 3, computed: 3 }).len(), 6);
    }
}
