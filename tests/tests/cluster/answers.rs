//! Everything answers, and says what it says on one machine.

use std::fs;

use anyhow::Result;
use slm_tests::{
    clients::python,
    cluster::{client, router, wait_ready},
    swarm::{Call, Folder, Swarm, repository},
};

const PROMPTS: [(&str, &str); 5] = [
    ("smollm2", "Where is the Eiffel Tower?"),
    ("banking", "put a freeze on my bank account right now"),
    ("travel", "what plug type do they use in denmark"),
    ("kitchen", "find me a good recipe for onion soup"),
    ("assistant", "book me a flight from lisbon to oslo next friday"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_answers_as_one_machine_does() -> Result<()> {
    wait_ready()?;
    let client = client()?;
    // Other bounds than in the cluster, and another company in each batch: an answer must not depend on them.
    let folder = Folder::quickstart("precision: Int4, maxSequences: 2, contextLength: 512")?;
    let route = fs::read_to_string(repository().join("tests/manifests/cluster/route.yaml"))?;
    folder.write("assistant", &route)?;
    let local = Swarm::start(folder.path())?;
    let local_client = local.client()?;
    for (model, prompt) in PROMPTS {
        let call = Call::new(model, prompt);
        let (here, there) = (local_client.ask(&call).await?, client.ask(&call).await?);
        assert_eq!((here.text, here.expert.digest), (there.text, there.expert.digest), "{model}: {prompt}");
    }
    local.stop()?;
    Ok(())
}

/// The same script that runs against `slm up`.
#[test]
fn the_official_openai_client_from_outside_the_pods() -> Result<()> {
    wait_ready()?;
    let expected = repository().join("examples/quickstart/expected.json");
    python("openai_client.py", &[format!("http://{}/v1", router("http")?), expected.display().to_string()])
}
