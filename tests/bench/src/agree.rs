//! Both servers mean the same adapter: before their speed with one is compared, their greedy answers are.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    RANK,
    adapters::RandomAdapter,
    llama::{LlamaOptions, LlamaServer},
    load::{Endpoint, Request},
    lora_gguf,
    model::Model,
    prompts::Prompts,
    served::{Served, Swarm},
};

const PROMPTS: usize = 16;
const PROMPT: usize = 32;
const ANSWER: usize = 16;
/// Makes the noise of an adapter loud enough to change answers, yet not so loud that nothing is left of them.
const ALPHA: f32 = RANK as f32 * 64.0;

/// Starts both with one loud adapter, and compares how their answers begin.
pub(crate) async fn check(slm: &Path, program: &Path, dir: &Path, model: &Model) -> Result<()> {
    let config = &model.bundle.info.architecture;
    let adapter = RandomAdapter { alpha: ALPHA, ..RandomAdapter::new(config, RANK, 1 << 32) };
    let (peft, gguf) = (dir.join("loud"), dir.join("loud.gguf"));
    adapter.write_peft(&peft)?;
    lora_gguf::write(&gguf, &adapter, model)?;
    let swarm =
        Swarm { model: model.path().to_owned(), sequences: 1, rank_max: RANK, adapters: vec![peft], guesses: false };
    let ours = Served::start(slm, &dir.join("loud-manifest"), &swarm).await?;
    // The file whose blocks our weights are, so that what differs is the adapter.
    let wanted = LlamaOptions { model: model.path().to_owned(), sequences: 1, adapters: vec![gguf] };
    let theirs = LlamaServer::start(program, &dir.join("loud.log"), &wanted).await?;

    let mut prompts = Prompts::new(&model.bundle)?;
    // Letters that answers have in common before they part: of both bases, of both with the adapter, and of ours with
    // and without it.
    let (mut bases, mut adapted, mut unchanged) = (0, 0, 0);
    for prompt in prompts.next(PROMPTS, PROMPT) {
        let our_base = answer(&ours.endpoint, &prompt, None).await?;
        let our_adapted = answer(&ours.endpoint, &prompt, Some(0)).await?;
        bases += shared(&our_base, &answer(&theirs.endpoint, &prompt, None).await?);
        adapted += shared(&our_adapted, &answer(&theirs.endpoint, &prompt, Some(0)).await?);
        unchanged += shared(&our_base, &our_adapted);
    }
    let [bases, adapted, unchanged] = [bases, adapted, unchanged].map(|letters| letters / PROMPTS);
    eprintln!(
        "letters before answers part: {bases} between the servers, {adapted} with the same adapter, {unchanged} between \
         adapter and base"
    );
    // Their arithmetic is not the same to the last bit, so answers part some time; with a wrong adapter, at once.
    ensure!(adapted >= 2 * unchanged, "llama-server and the swarm do not mean the same adapter");
    ours.stop().await?;
    theirs.stop().await
}

async fn answer(endpoint: &Endpoint, prompt: &[u32], adapter: Option<usize>) -> Result<String> {
    let mut load = endpoint.ask(Request { prompt: prompt.to_vec(), adapter, answer: ANSWER, rule: None }).await?;
    Ok(load.answers.swap_remove(0).text)
}

/// Letters with which both begin.
fn shared(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
}
