//! Manifests that are taken, and messages for those that are not.

use std::{fs, path::PathBuf};

use slm_crds::{
    manifest::{self, Manifests, Problems},
    route::DataPolicy,
};

const GOOD: &str = "\
apiVersion: slmswarm.io/v1alpha1
kind: SlmModel
metadata:
  name: smol
spec:
  source:
    uri: file:models/smol.gguf
---
apiVersion: slmswarm.io/v1alpha1
kind: LoraAdapter
metadata:
  name: banking
spec:
  modelRef: {name: smol}
  source: {uri: 'file:///adapters/banking'}
  scale: 2
---
apiVersion: slmswarm.io/v1alpha1
kind: SwarmRoute
metadata:
  name: assistant
spec:
  rules:
    - when: text.matches(\"(?i)account\")
      to: {kind: LoraAdapter, name: banking}
  fallback: {kind: SlmModel, name: smol}
---
apiVersion: slmswarm.io/v1alpha1
kind: ExternalModel
metadata:
  name: large
spec:
  url: https://api.example.com/v1
  model: gpt-large
  secretRef: {name: large-key}
  price: {input: 2.5, output: 10}
";

fn read(text: &str) -> Result<Manifests, Problems> {
    manifest::from_texts([(PathBuf::from("swarm.yaml"), text.to_owned())])
}

#[test]
fn a_set_is_read_with_its_defaults_and_lines() {
    let manifests = read(GOOD).expect("good");
    let model = &manifests.models[0];
    assert_eq!(model.object.spec.runtime.max_sequences, 8);
    assert_eq!((model.object.spec.adapters.slots, model.object.spec.adapters.max_rank), (16, 64));
    assert_eq!(manifests.adapters[0].object.spec.scale, Some(2.0));
    assert_eq!((model.line, model.line_of("spec.source.uri"), model.line_of("spec.source.digest")), (1, 7, 6));
    assert_eq!(manifests.routes[0].line_of("spec.rules[0].to.name"), 25);
    assert_eq!(manifests.routes[0].object.spec.data_policy, DataPolicy::LocalOnly);
    let external = &manifests.externals[0].object.spec;
    assert_eq!((external.timeout_seconds, external.concurrency), (60, 16));
    let price = external.price.as_ref().expect("a price");
    assert_eq!((price.output, price.currency.as_str()), (10.0, "USD"));
}

/// `kubectl get -o yaml` of one object and of several, and what the API server answers itself.
#[test]
fn exports_of_the_api_server_are_manifests() {
    let metadata = "metadata:
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}
  creationTimestamp: \"2026-11-01T00:00:00Z\"
  finalizers: [slmswarm.io/unload]
  generation: 3
  managedFields:
    - {manager: kubectl, operation: Update, fieldsV1: {'f:spec': {}}}
  name: smol
  namespace: default
  ownerReferences: []
  resourceVersion: \"812\"
  uid: 4be0643f-1d98-573b-97cd-ca98a65347dd
";
    let spec = "spec: {source: {uri: 'file:smol.gguf'}}
status: {readyReplicas: 1, conditions: [{type: Ready, status: 'True'}], unheard: of}
";
    let head = "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\n";
    let one = format!("{head}{metadata}{spec}");
    let model = read(&one).expect("one").models.remove(0).object;
    assert_eq!((model.metadata.name.as_deref(), model.metadata.uid), (Some("smol"), None));

    let indented = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let item = |text: &str| indented(text).replacen("    ", "  - ", 1);
    let list = format!("apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n{}", item(&one));
    assert_eq!(read(&list).expect("a list").models.len(), 1);
    let bare = format!("{metadata}{spec}");
    let own = format!("apiVersion: slmswarm.io/v1alpha1\nkind: SlmModelList\nitems:\n{}", item(&bare));
    assert_eq!(read(&own).expect("a list of one kind").models.len(), 1);
    assert!(read("apiVersion: v1\nkind: List\nitems: []\n").expect("nothing").is_empty());

    let wrong = list.replace("uri: 'file:smol.gguf'", "uir: x");
    let problem = read(&wrong).expect_err("wrong").to_string();
    assert!(problem.contains("SlmModel smol: spec.source.uir") && problem.starts_with("swarm.yaml:19:"), "{problem}");
}

/// Field to change, its new value, and the expected message.
const REFUSALS: &[(&str, &str, &str)] = &[
    (
        "    uri: file:models",
        "    uir: file:models",
        "swarm.yaml:7: SlmModel smol: spec.source.uir: unknown field; did you mean `uri`? Expected one of digest, secretRef, uri",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: hf://org",
        "swarm.yaml:7: SlmModel smol: spec.source.uri: must be oci://REGISTRY/REPOSITORY:TAG, hf://ORG/REPO, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, https://…, pvc://CLAIM/PATH, or a file: URI, absolute as in file:///models/x.gguf or relative to the manifest's folder as in file:models/x.gguf",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: file:m\n    digest: sha256:12",
        "swarm.yaml:8: SlmModel smol: spec.source.digest: must be sha256: followed by 64 lower-case hexadecimal digits",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: file:m\n  runtime: {precision: int4}",
        "swarm.yaml:8: SlmModel smol: spec.runtime.precision: expected one of Auto, F32, F16, Int4, Int8, found the string \"int4\"; did you mean `Int4` or `Int8`?",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: file:m\n  runtime:\n    maxSequences: eight",
        "swarm.yaml:9: SlmModel smol: spec.runtime.maxSequences: expected an integer from 1 to 256, found the string \"eight\"",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: file:m\n  runtime:\n    maxSequences: 0",
        "swarm.yaml:9: SlmModel smol: spec.runtime.maxSequences: expected an integer from 1 to 256, found 0",
    ),
    (
        "    uri: file:models/smol.gguf",
        "    uri: [a]",
        "swarm.yaml:7: SlmModel smol: spec.source.uri: expected a string, found a list",
    ),
    (
        "  name: smol\nspec",
        "  name: Smol_1\nspec",
        "swarm.yaml:4: SlmModel Smol_1: metadata.name must be a DNS-1123 label: at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit",
    ),
    (
        "kind: SlmModel\n",
        "kind: SlmModell\n",
        "swarm.yaml:2: kind: unknown kind `SlmModell`; did you mean `SlmModel`? expected one of SlmModel, LoraAdapter, ExternalModel, SwarmRoute",
    ),
    (
        "  modelRef: {name: smol}\n",
        "",
        "swarm.yaml:14: LoraAdapter banking: spec.modelRef: missing; expected a map with name",
    ),
    (
        "  scale: 2",
        "  scale: 0",
        "swarm.yaml:16: LoraAdapter banking: spec.scale: must be a finite number above 0 (at most 1000000)",
    ),
    (
        "  scale: 2",
        "  scale: .nan",
        "swarm.yaml:16: LoraAdapter banking: spec.scale: expected a number, found the string \".nan\"",
    ),
    (
        "  modelRef: {name: smol}",
        "  modelRef: {name: smoll}",
        "swarm.yaml:14: LoraAdapter banking: spec.modelRef.name: no SlmModel is named `smoll`; did you mean `smol`?",
    ),
    (
        "  name: banking\nspec",
        "  name: smol\nspec",
        "swarm.yaml:12: LoraAdapter smol: metadata.name: the name `smol` is taken by the SlmModel at swarm.yaml:4; models, adapters, external models and routes share one space of names",
    ),
    (
        "to: {kind: LoraAdapter, name: banking}",
        "to: {kind: SlmModel, name: banking}",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to.name: no SlmModel is named `banking`; it is a LoraAdapter",
    ),
    (
        "text.matches(\"(?i)account\")",
        "txt.contains('a')",
        "swarm.yaml:24: SwarmRoute assistant: spec.rules[0].when: unknown variable `txt`; did you mean `text`? Rules see text, messages, metadata and model",
    ),
    (
        "  fallback: {kind: SlmModel, name: smol}\n",
        "",
        "swarm.yaml:23: SwarmRoute assistant: spec.fallback: missing; expected a map with kind, name",
    ),
    (
        "  name: assistant\n",
        "  name: assistant\n  namespace: [x]\n",
        "swarm.yaml:22: SwarmRoute assistant: metadata.namespace: expected a string, found a list",
    ),
    (
        "https://api.example.com/v1",
        "https://user:pass@api.example.com/v1",
        "swarm.yaml:33: ExternalModel large: spec.url: must be http:// or https:// with a host, and a path where there is one: without user, query and spaces",
    ),
    (
        "https://api.example.com/v1",
        "api.example.com/v1",
        "swarm.yaml:33: ExternalModel large: spec.url: must be http:// or https:// with a host, and a path where there is one: without user, query and spaces",
    ),
    (
        "output: 10}",
        "output: 10, currency: Euro}",
        "swarm.yaml:36: ExternalModel large: spec.price.currency: expected at most 3 characters, found 4",
    ),
    (
        "output: 10}",
        "output: 10, currency: eur}",
        "swarm.yaml:36: ExternalModel large: spec.price.currency: must be a code of ISO 4217: three capital letters, such as USD",
    ),
    (
        "input: 2.5",
        "input: -2.5",
        "swarm.yaml:36: ExternalModel large: spec.price.input: expected a number from 0 to 1000000, found -2.5",
    ),
    ("  model: gpt-large\n", "", "swarm.yaml:33: ExternalModel large: spec.model: missing; expected a string"),
    (
        "  name: large\nspec",
        "  name: smol\nspec",
        "swarm.yaml:31: ExternalModel smol: metadata.name: the name `smol` is taken by the SlmModel at swarm.yaml:4; models, adapters, external models and routes share one space of names",
    ),
    (
        "to: {kind: LoraAdapter, name: banking}",
        "to: {kind: ExternalModel, name: large}",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to: the ExternalModel `large` is never asked under `dataPolicy: LocalOnly`; set Redacted or AllowExternal, or name another target",
    ),
    (
        "to: {kind: LoraAdapter, name: banking}",
        "to: {kind: SlmModel, name: large}",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to.name: no SlmModel is named `large`; it is an ExternalModel",
    ),
];

/// Each case changes the good set at one place; the message is all that is reported.
#[test]
fn refusals_name_line_field_and_remedy() {
    for (from, to, message) in REFUSALS {
        assert!(GOOD.contains(from), "{from}");
        let problems = read(&GOOD.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(problems.lines().next() == Some(*message), "{to}:\n  {problems}\nexpected\n  {message}");
    }
}

/// Text of a route that may ask an external model, its replacement, and the expected message.
const OUTSIDE: &[(&str, &str, &str)] = &[
    (
        "{kind: ExternalModel, name: large}",
        "{kind: ExternalModel, name: larg}",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to.name: no ExternalModel is named `larg`; did you mean `large`?",
    ),
    (
        "{kind: ExternalModel, name: large}",
        "{kind: ExternalModel, name: banking}",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to.name: no ExternalModel is named `banking`; it is a LoraAdapter",
    ),
    (
        "dataPolicy: Redacted",
        "dataPolicy: redacted",
        "swarm.yaml:26: SwarmRoute assistant: spec.dataPolicy: expected one of LocalOnly, Redacted, AllowExternal, found the string \"redacted\"; did you mean `Redacted`?",
    ),
    (
        "dataPolicy: Redacted",
        "dataPolicy: LocalOnly",
        "swarm.yaml:25: SwarmRoute assistant: spec.rules[0].to: the ExternalModel `large` is never asked under `dataPolicy: LocalOnly`; set Redacted or AllowExternal, or name another target",
    ),
    (
        "dataPolicy: Redacted",
        "dataPolicy: Redacted\n  classifier: {model: {kind: ExternalModel, name: large}, targets: [{kind: SlmModel, name: smol}]}",
        "swarm.yaml:27: SwarmRoute assistant: spec.classifier.model: the ExternalModel `large` has the task Generate; a classifier is a LoraAdapter with a head (`slm route train`) on a SlmModel with `task: Embed`, or has the task Classify",
    ),
    (
        "dataPolicy: Redacted",
        "dataPolicy: Redacted\n  similarity: {encoder: {kind: ExternalModel, name: large}, targets: [{kind: ExternalModel, name: large}]}",
        "swarm.yaml:27: SwarmRoute assistant: spec.similarity.encoder: the ExternalModel `large` has the task Generate; an encoder needs Embed: name a SlmModel with `task: Embed`, or a LoraAdapter on one",
    ),
];

#[test]
fn routes_that_lead_outside() {
    let to = ("{kind: LoraAdapter, name: banking}", "{kind: ExternalModel, name: large}");
    let good = GOOD.replacen(to.0, to.1, 1).replacen("  fallback", "  dataPolicy: Redacted\n  fallback", 1);
    let manifests = read(&good).expect("good");
    assert_eq!(manifests.routes[0].object.spec.data_policy, DataPolicy::Redacted);
    for (from, to, message) in OUTSIDE {
        assert!(good.contains(from), "{from}");
        let problems = read(&good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(problems.lines().next() == Some(*message), "{to}:\n  {problems}\nexpected\n  {message}");
    }
}

/// Text of a route with an ensemble and a shadow, its replacement, and how the first message goes on behind its place.
const TOGETHER: &[(&str, &str, &str)] = &[
    (
        "[{kind: SlmModel, name: smol}, {kind: LoraAdapter, name: banking}]",
        "[{kind: SlmModel, name: smol}]",
        "experts: ",
    ),
    ("name: banking}]", "name: bankin}]", "experts[1].name: no LoraAdapter is named `bankin`; did you mean `banking`?"),
    (
        "name: banking}]",
        "name: assistant}]",
        "experts[1].name: `assistant` is the route itself; a target is a SlmModel, a LoraAdapter or an ExternalModel",
    ),
    (
        "LoraAdapter, name: banking}]",
        "SwarmRoute, name: assistant}]",
        "experts[1].kind: expected one of SlmModel, LoraAdapter, ExternalModel, found",
    ),
    (
        "LoraAdapter, name: banking}]",
        "SlmModel, name: smol}]",
        "experts[1]: the SlmModel `smol` is listed before; list each target once",
    ),
    (
        "LoraAdapter, name: banking}]",
        "ExternalModel, name: large}]",
        "experts[1]: the ExternalModel `large` is never asked under `dataPolicy: LocalOnly`",
    ),
    (
        "combine: Vote",
        "combine: vote",
        "combine: expected one of Vote, Best, Judge, found the string \"vote\"; did you mean `Vote`?",
    ),
    ("combine: Vote", "combine: Judge", "judge must be set when combine is Judge, and only then"),
    (
        "combine: Vote",
        "combine: Vote, judge: {kind: SlmModel, name: smol}",
        "judge must be set when combine is Judge, and only then",
    ),
    ("minimumAnswers: 2", "minimumAnswers: 3", "minimumAnswers must be at most the number of experts"),
    ("minimumAnswers: 2", "minimumAnswers: 0", "minimumAnswers: "),
    ("percent: 5", "percent: 101", "percent: "),
    (
        "to: {kind: SlmModel, name: smol}, percent",
        "to: {kind: SlmModel, name: small}, percent",
        "to.name: no SlmModel is named `small`; did you mean `smol`?",
    ),
    (
        "percent: 5}",
        "percent: 5}\n  cascade: {targets: [{kind: SlmModel, name: smol}], confidence: {accept: 0.5}}",
        "must not have both ensemble and cascade: ",
    ),
];

#[test]
fn routes_that_ask_several() {
    let parts = "  ensemble: {experts: [{kind: SlmModel, name: smol}, {kind: LoraAdapter, name: banking}], combine: Vote, minimumAnswers: 2}\n  \
                 shadow: {to: {kind: SlmModel, name: smol}, percent: 5}\n  fallback";
    let good = GOOD.replacen("  fallback", parts, 1);
    let manifests = read(&good).expect("good");
    let ensemble = manifests.routes[0].object.spec.ensemble.as_ref().expect("an ensemble");
    assert_eq!((ensemble.minimum_answers, ensemble.timeout_milliseconds), (2, 30_000));
    assert!(read(&good.replacen(", minimumAnswers: 2", "", 1)).is_ok());
    for (from, to, message) in TOGETHER {
        assert!(good.contains(from), "{from}");
        let problems = read(&good.replacen(from, to, 1)).expect_err(to).to_string();
        let first = problems.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("swarm.yaml:2") && first.contains(message),
            "{to}:\n  {problems}\nexpected\n  {message}"
        );
    }
}

#[test]
fn every_problem_is_reported_in_order() {
    let text = "\
apiVersion: slmswarm.io/v1alpha1
kind: SlmModel
metadata: {name: a, lables: {x: y}}
spec: {source: {uri: 'file:x', digset: 1}, runtime: {threads: 0}, colour: red}
---
apiVersion: v1
kind: ConfigMap
---
kind: SlmModel
---
just text
";
    let problems = read(text).expect_err("wrong throughout");
    let lines: Vec<u32> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 4, 4, 4, 6, 9, 11], "{problems}");
    assert!(problems.to_string().contains("apiVersion: unknown apiVersion `v1`; expected slmswarm.io/v1alpha1"));
}

#[test]
fn adapters_without_a_slot() {
    let text = GOOD.replace("smol.gguf", "smol.gguf\n  adapters: {slots: 0}");
    let message = read(&text).expect_err("no slot").to_string();
    assert!(message.contains("SlmModel `smol` has 0 adapter slots, and 0 other adapters are pinned"), "{message}");

    let adapter = |name: &str, pin: bool| {
        format!(
            "---\napiVersion: slmswarm.io/v1alpha1\nkind: LoraAdapter\nmetadata: {{name: {name}}}\nspec: {{modelRef: {{name: base}}, \
             source: {{uri: 'file:x'}}, placement: {{pin: {pin}, replicas: 2}}}}\n"
        )
    };
    let base = "apiVersion: slmswarm.io/v1alpha1\nkind: SlmModel\nmetadata: {name: base}\nspec: {source: {uri: 'file:x'}, \
                adapters: {slots: 1, hostCacheBytes: 0}}\n";
    let all = |pins: [bool; 3]| {
        format!("{base}{}", ["a", "b", "c"].iter().zip(pins).map(|(name, pin)| adapter(name, pin)).collect::<String>())
    };
    assert!(read(&all([false; 3])).is_ok(), "there may be more adapters than slots");
    let problems = read(&all([true, false, false])).expect_err("the pinned one has the slot");
    assert_eq!(problems.iter().count(), 2, "{problems}");
    let problems = read(&all([true, true, false])).expect_err("two pinned ones for one slot");
    assert_eq!(problems.iter().count(), 3, "{problems}");
    let wrong =
        read(&adapter("a", false).replace("replicas: 2", "replicas: 0")).expect_err("no workers at all").to_string();
    assert!(wrong.contains("spec.placement.replicas"), "{wrong}");
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let message = manifest::read(folder.path()).expect_err("empty").to_string();
    assert!(message.contains("holds no manifest"), "{message}");

    fs::write(folder.path().join("b.yaml"), GOOD).expect("written");
    fs::write(folder.path().join(".hidden.yaml"), "{").expect("written");
    fs::write(folder.path().join("notes.txt"), "{").expect("written");
    let manifests = manifest::read(folder.path()).expect("good");
    assert_eq!(manifests.models[0].folder(), folder.path());

    fs::write(folder.path().join("a.yml"), b"a: 1\nb: \xff\n").expect("written");
    fs::write(folder.path().join("c.yaml"), "a: [\n").expect("written");
    let problems = manifest::read(folder.path()).expect_err("two files are wrong").to_string();
    assert!(problems.contains("a.yml:2: not UTF-8"), "{problems}");
    assert!(problems.contains("c.yaml:") && problems.contains("not YAML"), "{problems}");

    let missing = manifest::read(&folder.path().join("nothing")).expect_err("not there").to_string();
    assert!(missing.contains("nothing: cannot be read"), "{missing}");
}

#[test]
fn what_has_the_name_of_a_manifest_and_is_no_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("folder.yaml")).expect("a folder");
    std::os::unix::fs::symlink("/nowhere/model.yaml", folder.path().join("link.yaml")).expect("a link");
    let problems = manifest::read(folder.path()).expect_err("problems").to_string();
    assert!(problems.contains("folder.yaml") && problems.contains("not a regular file"), "{problems}");
    assert!(problems.contains("link.yaml") && problems.contains("a link to a file that is not there"), "{problems}");
}

#[test]
fn a_field_without_a_value_is_one_that_is_not_there() {
    let nulls = "\
apiVersion: slmswarm.io/v1alpha1
kind: SlmModel
metadata: {name: smol, namespace: null, labels: null, annotations: {a: null}}
spec:
  source: {uri: 'file:models/smol.gguf', digest: null, secretRef: null}
  replicas: null
  runtime: {accelerator: null, precision: null, contextLength: null, maxSequences: null, kvCache: {bytes: null},
    prefixCache: null, speculative: {method: null}, threads: ~}
  adapters: {slots: null, maxRank:}
  rollout: {maxSurge: null}
  pod: null
  expert: {description: null}
status: null
---
apiVersion: slmswarm.io/v1alpha1
kind: LoraAdapter
metadata: {name: banking}
spec:
  modelRef: {name: smol}
  source: {uri: 'file:///adapters/banking'}
  scale: null
---
apiVersion: slmswarm.io/v1alpha1
kind: SwarmRoute
metadata: {name: assistant}
spec:
  description: null
  rules: null
  fallback: {kind: SlmModel, name: smol}
";
    let manifests = read(nulls).expect("nulls");
    let spec = &manifests.models[0].object.spec;
    assert_eq!((spec.replicas, spec.runtime.max_sequences, spec.adapters.slots), (1, 8, 16));
    assert_eq!(manifests.adapters[0].object.spec.scale, None);
    assert!(manifests.routes[0].object.spec.rules.is_empty());

    // One that has to be there is missing, and one that is not known stays unknown.
    for (change, message) in [
        (("{uri: 'file:models/smol.gguf', digest: null, secretRef: null}", "{uri: null}"), "spec.source.uri"),
        (("replicas: null", "replicsa: null"), "did you mean `replicas`?"),
        (("rules: null", "rules: [null]"), "spec.rules[0]"),
    ] {
        let problems = read(&nulls.replace(change.0, change.1)).expect_err(change.1).to_string();
        assert!(problems.contains(message), "{problems}");
    }
}
