//! A swarm that finds its expert by examples: MiniLM as the encoder, and the quickstart's experts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use slm_proto::v1::Scope;
use slm_tests::{
    embeddings::minilm,
    swarm::{Call, Folder, OUT_OF_SCOPE, Swarm, base, labelled, output, slm},
};

const MESSAGE: &str = "I know about banking, travel and kitchens.";

/// The quickstart with examples for its experts, an encoder, and the route `finder`. Every other text of the quickstart is an
/// example; the others, with their experts, are what is asked.
fn finder() -> Result<(Folder, Vec<(String, String)>)> {
    let folder = Folder::quickstart("precision: Int4, contextLength: 256")?;
    let mut examples: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut asked = Vec::new();
    for (place, case) in labelled()?.into_iter().enumerate() {
        match place % 2 {
            0 => examples.entry(case.expert).or_default().push(case.prompt),
            _ => asked.push((case.expert, case.prompt)),
        }
    }
    let targets: Vec<_> = examples.keys().map(|name| json!({ "kind": "LoraAdapter", "name": name })).collect();
    for (name, examples) in examples {
        let path = folder.path().join(format!("{name}.yaml"));
        let manifest = std::fs::read_to_string(path)?;
        folder.write(&name, &format!("{manifest}  expert: {}\n", json!({ "examples": examples })))?;
    }
    let encoder = base("minilm", &minilm()?, "precision: F32, maxSequences: 8");
    folder.write("encoder", &encoder.replacen("spec:\n", "spec:\n  task: Embed\n", 1))?;
    let route = json!({
        "apiVersion": "slmswarm.io/v1alpha1",
        "kind": "SwarmRoute",
        "metadata": { "name": "finder" },
        "spec": {
            // Six examples of each are few, and not much alike.
            "similarity": {
                "encoder": { "kind": "SlmModel", "name": "minilm" }, "targets": targets, "falseRejections": 0.2,
            },
            "outOfScope": { "message": MESSAGE },
            "fallback": { "kind": "SlmModel", "name": "smollm2" },
        },
    });
    folder.write("finder", &route.to_string())?;
    Ok((folder, asked))
}

#[tokio::test]
async fn experts_are_found_by_their_examples() -> Result<()> {
    let (folder, asked) = finder()?;
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let mut right = 0;
    for (expert, prompt) in &asked {
        let decision = client.explain(&Call::new("finder", prompt)).await?;
        let found = decision.chosen.as_ref().map(|chosen| chosen.name.as_str());
        let similarity = decision.similarity.context("a similarity")?;
        println!("{expert}: {prompt}: {found:?} {:.3} {:?}", similarity.best, similarity.scope());
        right += usize::from(found == Some(expert));
    }
    println!("{right} of {} find their expert", asked.len());
    let mut out = 0;
    for prompt in OUT_OF_SCOPE {
        let decision = client.explain(&Call::new("finder", prompt)).await?;
        let similarity = decision.similarity.context("a similarity")?;
        println!("{prompt}: {:.3}, out of scope below {:.3}", similarity.best, similarity.out_of_scope);
        out += usize::from(similarity.scope() == Scope::Out);
    }
    println!("{out} of {} are out of scope", OUT_OF_SCOPE.len());
    ensure!(right >= 12 && out >= 5, "{right} {out}");

    // The expert answers, and the route itself.
    let (expert, prompt) = asked.first().context("a text")?;
    let answer = client.ask(&Call::new("finder", prompt)).await?;
    assert_eq!(&answer.expert.name, expert);
    let server = swarm.grpc.trim_start_matches("http://").to_owned();
    let (code, said, err) = output(&mut slm(&["run", "finder", OUT_OF_SCOPE[0], "--server", &server])?)?;
    assert_eq!((code, said.trim()), (0, MESSAGE), "{err}");
    let (code, said, err) = output(&mut slm(&["explain", "finder", prompt, "--server", &server])?)?;
    assert!(
        code == 0 && said.contains(&format!("finder -> {expert}")) && said.contains("by similarity 0."),
        "{said}{err}"
    );
    let (code, said, err) = output(&mut slm(&["explain", "finder", OUT_OF_SCOPE[0], "--server", &server])?)?;
    assert!(code == 0 && said.contains("finder -> the route's own message"), "{said}{err}");
    swarm.stop()?;
    Ok(())
}

/// What a person who writes such a route is told.
#[test]
fn routes_that_cannot_compare_are_refused() -> Result<()> {
    let (folder, _) = finder()?;
    let route = folder.path().join("finder.yaml");
    let good = std::fs::read_to_string(&route)?;
    for (from, to, message) in [
        ("\"name\":\"minilm\"", "\"name\":\"minilmm\"", "no SlmModel is named `minilmm`; did you mean `minilm`?"),
        (
            "\"name\":\"minilm\"",
            "\"name\":\"smollm2\"",
            "the SlmModel `smollm2` has the task Generate; an encoder needs Embed",
        ),
        ("\"name\":\"travel\"", "\"name\":\"kitchen\"", "the LoraAdapter `kitchen` is listed before"),
        (
            "{\"kind\":\"LoraAdapter\",\"name\":\"travel\"}",
            "{\"kind\":\"SlmModel\",\"name\":\"smollm2\"}",
            "the SlmModel `smollm2` has nothing in spec.expert.examples",
        ),
        ("\"message\":", "\"reject\":\"no\",\"message\":", "must have exactly one of to, message and reject"),
        (
            "\"targets\":",
            "\"thresholds\":{\"accept\":0.3,\"outOfScope\":0.5},\"targets\":",
            "outOfScope must be at most accept",
        ),
        ("\"falseRejections\":0.2", "\"falseRejections\":0.9", "falseRejections"),
    ] {
        ensure!(good.contains(from), "{from}");
        folder.write("finder", &good.replacen(from, to, 1))?;
        Swarm::refused(folder.path(), &[], &[])?.assert_refused(2, &["finder.yaml", message]);
    }
    Ok(())
}
