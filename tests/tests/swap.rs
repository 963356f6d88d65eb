//! Experts are replaced, added and removed while others generate: no request fails, and every stream is exactly the
//! greedy answer of the one version it began with.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use slm_tests::swarm::{Answer, Call, Client, Folder, Swarm, adapter, quickstart_adapter, worker_state_until};

const CLIENTS: usize = 8;
/// At least; it goes on until the additions are done.
const REPLACEMENTS: usize = 100;
const ADDITIONS: usize = 50;
/// Adapters that take turns under one name.
const VERSIONS: [&str; 2] = ["banking", "travel"];
/// Tokens of every answer, whatever comes: long enough that most streams see a change.
const TOKENS: u32 = 8;
/// In Int4 the bits of a token's logits do not depend on what else is in the batch.
const RUNTIME: &str = "precision: Int4, maxSequences: 10, contextLength: 256";

/// Raw and short: most steps decode, in batches of every size.
const PROMPTS: [&str; 4] = [
    "put a freeze on my bank account right now",
    "book me a flight from lisbon to oslo next friday",
    "find me a good recipe for onion soup",
    "how do you say good evening in portuguese",
];

/// Greedy answers, by digest of what answers and prompt.
type References = HashMap<(String, &'static str), String>;

/// What every client knows.
struct Scene {
    client: Client,
    references: References,
    /// All additions are done.
    added: AtomicBool,
    /// All changes are done.
    over: AtomicBool,
    answers: AtomicUsize,
    /// Answers that `swapped` gave, by version.
    versions: [AtomicUsize; 2],
    digests: [String; 2],
}

impl Scene {
    fn check(&self, prompt: &'static str, answer: &Answer) -> Result<()> {
        let key = (answer.expert.digest.clone(), prompt);
        let reference =
            self.references.get(&key).with_context(|| format!("an unknown version: {:?}", answer.expert))?;
        ensure!(
            *reference == answer.text,
            "{} ({}) to {prompt:?}: {:?}, alone {reference:?}",
            answer.expert.name,
            answer.expert.digest,
            answer.text
        );
        self.answers.fetch_add(1, Ordering::Relaxed);
        if let Some(version) = self.digests.iter().position(|digest| *digest == answer.expert.digest)
            && answer.expert.name == "swapped"
        {
            self.versions[version].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The answers of everything that ever runs here, each computed with nothing else running.
async fn references(client: &Client, folder: &Folder) -> Result<(References, [String; 2])> {
    let mut references = References::new();
    let mut digests = Vec::new();
    let mut last = String::new();
    for version in VERSIONS {
        folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter(version)))?;
        last = client.until_replaced("swapped", &last).await?;
        digests.push(last.clone());
        answer_alone(client, "swapped", &mut references).await?;
    }
    folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter(VERSIONS[0])))?;
    client.until_replaced("swapped", &last).await?;
    answer_alone(client, "steady", &mut references).await?;
    answer_alone(client, "smollm2", &mut references).await?;
    for prompt in PROMPTS {
        let said: BTreeSet<_> = references.iter().filter(|((_, of), _)| *of == prompt).map(|(_, text)| text).collect();
        ensure!(
            said.len() == 4,
            "{prompt:?}: two of four say the same, so one taken for the other would not show: {said:?}"
        );
    }
    Ok((references, [digests[0].clone(), digests[1].clone()]))
}

async fn answer_alone(client: &Client, model: &str, references: &mut References) -> Result<()> {
    for prompt in PROMPTS {
        let answer = client.ask(&Call::continuing(model, prompt, TOKENS)).await?;
        references.insert((answer.expert.digest, prompt), answer.text);
    }
    Ok(())
}

/// Streams without pause until it is over.
async fn ask_without_pause(scene: Arc<Scene>, number: usize) -> Result<()> {
    for round in number.. {
        if scene.over.load(Ordering::Relaxed) {
            break;
        }
        let prompt = PROMPTS[round % PROMPTS.len()];
        // Mostly the expert that is being replaced, among others that are not.
        let model = ["swapped", "steady", "swapped", "smollm2", "swapped"][round % 5];
        let answer = scene.client.ask(&Call::continuing(model, prompt, TOKENS)).await?;
        scene.check(prompt, &answer)?;
    }
    Ok(())
}

async fn replace(scene: &Scene, folder: &Folder) -> Result<usize> {
    let mut round = 0;
    while round < REPLACEMENTS || !scene.added.load(Ordering::Relaxed) {
        round += 1;
        let (from, to) = (&scene.digests[(round + 1) % 2], &scene.digests[round % 2]);
        folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter(VERSIONS[round % 2])))?;
        let now = scene.client.until_replaced("swapped", from).await?;
        ensure!(now == *to, "replacement {round}: {now} instead of {to}");
        if round % 9 == 0 {
            // What is listed is what new requests get.
            let stream = scene.client.stream(Call::continuing("swapped", PROMPTS[0], TOKENS).request()).await?;
            let digest = stream.started.expert.as_ref().map(|expert| expert.digest.clone());
            ensure!(digest.as_deref() == Some(now.as_str()), "replacement {round} is listed, but {digest:?} answers");
            scene.check(PROMPTS[0], &stream.rest().await?)?;
        }
    }
    Ok(round)
}

async fn add_and_remove(scene: &Scene, folder: &Folder) -> Result<()> {
    for round in 0..ADDITIONS {
        folder.write("guest", &adapter("guest", "smollm2", &quickstart_adapter("travel")))?;
        scene.client.until("guest", |model| model.is_some_and(|model| model.ready)).await?;
        let prompt = PROMPTS[round % PROMPTS.len()];
        let stream = scene.client.stream(Call::continuing("guest", prompt, TOKENS).request()).await?;
        // It is removed under the running stream, which ends as it began.
        folder.remove("guest")?;
        let (gone, answer) = tokio::join!(scene.client.until("guest", |model| model.is_none()), stream.rest());
        gone?;
        scene.check(prompt, &answer?)?;
    }
    scene.added.store(true, Ordering::Relaxed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_added_and_removed_under_load() -> Result<()> {
    let folder = Folder::quickstart(RUNTIME)?;
    for name in ["banking", "travel", "kitchen"] {
        folder.remove(name)?;
    }
    folder.write("steady", &adapter("steady", "smollm2", &quickstart_adapter("kitchen")))?;
    folder.write("swapped", &adapter("swapped", "smollm2", &quickstart_adapter("banking")))?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let worker = client.worker_of("smollm2").await?;
    let (references, digests) = references(&client, &folder).await?;
    let scene = Arc::new(Scene {
        client,
        references,
        added: AtomicBool::new(false),
        over: AtomicBool::new(false),
        answers: AtomicUsize::new(0),
        versions: Default::default(),
        digests,
    });

    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(ask_without_pause(Arc::clone(&scene), number))).collect();
    let changed = tokio::try_join!(replace(&scene, &folder), add_and_remove(&scene, &folder));
    scene.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let (replacements, ()) = changed?;

    let versions = scene.versions.each_ref().map(|count| count.load(Ordering::Relaxed));
    let answers = scene.answers.load(Ordering::Relaxed);
    println!("{answers} answers, {versions:?} of the two versions of one expert, {replacements} replacements");
    assert!(versions.iter().all(|&count| count > 0), "one version never answered: {versions:?}");
    // Nothing is left of the versions that are gone.
    worker_state_until(&worker, |state| {
        state.sequences_running == 0
            && state.adapters.len() == 2
            && state.adapters.iter().all(|a| a.active_requests == 0)
    })
    .await?;
    Ok(())
}
