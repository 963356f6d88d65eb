//! The labels of the quickstart's experts.

use std::{collections::BTreeMap, fs};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::{Call, Client, repository};

/// One prompt of `expected.json`, and the label that its expert gives.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The expert.
    pub expert: String,
    /// What is asked.
    pub prompt: String,
    /// What it answers.
    pub label: String,
}

/// Texts that no expert of the quickstart is for.
pub const OUT_OF_SCOPE: [&str; 6] = [
    "who wrote hamlet",
    "what is the square root of two",
    "my computer does not start any more",
    "who won the world cup in nineteen ninety",
    "sing me a song about the sea",
    "how do i change the oil of my car",
];

/// All of `examples/quickstart/expected.json`.
pub fn labelled() -> Result<Vec<Labelled>> {
    #[derive(Deserialize)]
    struct Expected {
        prompt: String,
        answer: String,
    }
    let expected = fs::read(repository().join("examples/quickstart/expected.json"))?;
    let expected: BTreeMap<String, Vec<Expected>> = serde_json::from_slice(&expected)?;
    let of = |(expert, cases): (String, Vec<Expected>)| {
        cases.into_iter().map(move |case| Labelled { expert: expert.clone(), prompt: case.prompt, label: case.answer })
    };
    Ok(expected.into_iter().flat_map(of).collect())
}

impl Client {
    /// Asks for every label, eight at a time: how many, and what is wrong.
    pub async fn wrong_labels(&self) -> Result<(usize, Vec<String>)> {
        let cases = labelled()?;
        let asked = cases.len();
        let answers = stream::iter(cases).map(|Labelled { expert, prompt, label }| async move {
            let answer = self.ask(&Call::new(&expert, &prompt)).await?;
            anyhow::Ok((answer.text.trim() != label).then(|| format!("{expert}: {prompt:?}: {:?}", answer.text)))
        });
        let wrong: Vec<_> = answers.buffer_unordered(8).try_collect().await?;
        Ok((asked, wrong.into_iter().flatten().collect()))
    }
}
