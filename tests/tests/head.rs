//! A route with a trained head: `slm route train`, the swarm that takes the head, `slm route eval`.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use slm_proto::v1::Scope;
use slm_tests::{
    embeddings::minilm,
    swarm::{Call, Folder, OUT_OF_SCOPE, Swarm, base, labelled, output, slm},
};

/// The quickstart with an encoder, and the route `finder` whose head is the adapter `finder-head`. Two of three texts of the quickstart are
/// trained on; the rest, and what is out of scope, is for the evaluation.
fn finder() -> Result<Folder> {
    let folder = Folder::quickstart("precision: Int4, contextLength: 256")?;
    let (mut train, mut held_out) = (String::new(), "text,label,expert\n".to_owned());
    for (place, case) in labelled()?.into_iter().enumerate() {
        match place % 3 {
            0 | 1 => writeln!(train, "{}", json!({ "text": case.prompt, "label": case.expert }))?,
            _ => writeln!(held_out, "\"{}\",{},", case.prompt, case.expert)?,
        }
    }
    OUT_OF_SCOPE.iter().try_for_each(|text| writeln!(held_out, "{text},,"))?;
    std::fs::write(folder.path().join("train.jsonl"), train)?;
    std::fs::write(folder.path().join("held-out.csv"), held_out)?;
    let encoder = base("minilm", &minilm()?, "precision: F32, maxSequences: 8");
    folder.write("encoder", &encoder.replacen("spec:\n", "spec:\n  task: Embed\n", 1))?;
    let target = |name: &str| json!({ "kind": "LoraAdapter", "name": name });
    let object = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "slmswarm.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let head = json!({ "modelRef": { "name": "minilm" }, "source": { "uri": "file:head" } });
    folder.write("head", &object("LoraAdapter", "finder-head", head).to_string())?;
    let targets = ["banking", "travel", "kitchen"].map(target);
    let route = json!({
        // Few texts say little of what is typical.
        "classifier": {
            "model": target("finder-head"),
            "targets": targets,
            "falseRejections": 0.3,
        },
        "outOfScope": { "reject": "I know about banking, travel and kitchens only." },
        "fallback": { "kind": "SlmModel", "name": "smollm2" },
    });
    folder.write("finder", &object("SwarmRoute", "finder", route).to_string())?;
    let plain = json!({ "fallback": { "kind": "SlmModel", "name": "smollm2" } });
    folder.write("plain", &object("SwarmRoute", "plain", plain).to_string())?;
    Ok(folder)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_head_is_trained_taken_and_evaluated() -> Result<()> {
    let folder = finder()?;
    let (train, held_out) = (text(&folder.path().join("train.jsonl")), text(&folder.path().join("held-out.csv")));
    // Without its head the route has nobody to ask, and its fallback answers.
    let swarm = Swarm::start(folder.path())?;
    let client = swarm.client()?;
    let decision = client.explain(&Call::new("finder", "book a flight to rome")).await?;
    ensure!(
        decision.reason.contains("the classifier `finder-head` is not loaded on any worker"),
        "{}",
        decision.reason
    );

    let server = swarm.grpc.trim_start_matches("http://").to_owned();
    let manifests = text(folder.path());
    let args = ["route", "train", "finder", "--data", &train, "-f", &manifests, "--running", "--server", &server];
    let (code, said, err) = output(&mut slm(&args)?)?;
    ensure!(code == 0 && said.contains("head of 3 labels in") && said.contains("held out in 5 parts"), "{said}{err}");

    // The swarm takes it as any new version of an adapter.
    let found = loop {
        let decision = client.explain(&Call::new("finder", "book a flight to rome")).await?;
        if let Some(classified) = decision.classified.clone() {
            break (decision, classified);
        }
    };
    let (decision, classified) = found;
    assert_eq!(decision.chosen.as_ref().map(|chosen| chosen.name.as_str()), Some("travel"), "{decision:?}");
    ensure!(classified.label == "travel" && classified.scope() == Scope::In, "{classified:?}");

    let plot = folder.path().join("calibration.png");
    let eval = ["route", "eval", "finder", "--data", &held_out, "--server", &server, "--plot", &text(&plot)];
    let (code, said, err) = output(&mut slm(&eval)?)?;
    ensure!(code == 0 && said.contains("expected in lines, chosen in columns"), "{said}{err}");
    println!("{said}");
    let (code, said, err) = output(slm(&eval)?.args(["--json", "--out-of-scope-share", "0.2"]))?;
    ensure!(code == 0, "{said}{err}");
    let report: Value = serde_json::from_str(&said)?;
    ensure!(report["in_scope"] == 12 && report["out_of_scope"] == 6, "{report}");
    let [accuracy, recall] = ["accuracy", "recall"].map(|key| report[key].as_f64().unwrap_or_default());
    ensure!(accuracy >= 0.7 && recall >= 0.5, "{report}");
    ensure!(std::fs::read(&plot)?.starts_with(b"\x89PNG"), "no picture");

    // Labels over HTTP, as of any classifier.
    let request = json!({ "model": "finder-head", "input": ["book a flight to rome", "how much money do i have"] });
    let answer = reqwest::Client::new().post(format!("{}/v1/classify", swarm.http)).json(&request).send().await?;
    let answer: Value = answer.json().await?;
    let labels: Vec<_> = answer["data"].as_array().context("data")?.iter().map(|one| one["label"].clone()).collect();
    assert_eq!(labels, ["travel", "banking"], "{answer}");

    // A head that is damaged is refused by name, and the one before stays.
    let weights = folder.path().join("head/head.safetensors");
    let good = std::fs::read(&weights)?;
    std::fs::write(&weights, &good[..good.len() / 2])?;
    swarm.until_said("the file is damaged");
    let decision = client.explain(&Call::new("finder", "book a flight to paris")).await?;
    assert_eq!(decision.chosen.as_ref().map(|chosen| chosen.name.as_str()), Some("travel"), "{decision:?}");
    swarm.stop()?;
    Ok(())
}

/// What a person who trains a head is told.
#[test]
fn what_cannot_be_trained_is_refused() -> Result<()> {
    let folder = finder()?;
    let manifests = text(folder.path());
    let data = folder.path().join("bad.jsonl");
    let train = |route: &str, lines: &str| -> Result<(i32, String)> {
        std::fs::write(&data, lines)?;
        let (code, _, err) = output(&mut slm(&["route", "train", route, "--data", &text(&data), "-f", &manifests])?)?;
        Ok((code, err))
    };
    let good = "{\"text\": \"a\", \"label\": \"travel\"}\n";
    for (route, lines, message) in [
        ("nobody", good, "no SwarmRoute is named `nobody`"),
        ("plain", good, "the SwarmRoute `plain` has no spec.classifier"),
        ("finder", "text,label\n", "bad.jsonl:1: "),
        (
            "finder",
            "{\"text\": \"a\", \"label\": \"sports\"}\n",
            "the label `sports` is of `sports`, which is no target",
        ),
        ("finder", good, "the data have 1 label; a head needs at least two"),
        (
            "finder",
            "{\"text\": \"a\", \"label\": \"travel\"}\n{\"text\": \"b\", \"label\": \"banking\"}\n",
            "the label `banking` has one text; each needs at least two",
        ),
    ] {
        let (code, err) = train(route, lines)?;
        ensure!(code != 0 && err.contains(message), "{route} {lines}: {err}");
    }
    let route = std::fs::read_to_string(folder.path().join("finder.yaml"))?;
    for (from, to, message) in [
        (
            "\"name\":\"finder-head\"",
            "\"name\":\"banking\"",
            "the LoraAdapter `banking` has the task Generate; a classifier is",
        ),
        ("\"falseRejections\":0.3", "\"thresholds\":{\"accept\":0.9,\"outOfScope\":0.5}", "a head has no thresholds"),
        ("\"falseRejections\":0.3", "\"labels\":{\"x\":\"smollm2\"}", "`smollm2` is not in spec.classifier.targets"),
    ] {
        ensure!(route.contains(from), "{from}");
        folder.write("finder", &route.replacen(from, to, 1))?;
        Swarm::refused(folder.path(), &[], &[])?.assert_refused(2, &["finder.yaml", message]);
    }
    Ok(())
}
