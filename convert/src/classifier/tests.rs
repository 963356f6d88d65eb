use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::families::from_hugging_face;
use crate::peft::LoraPair;

/// config.json of a small classifier with two labels, with `changes`.
fn config(changes: &Value) -> Map<String, Value> {
    let mut map = json!({
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 4, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8, "max_position_embeddings": 8,
        "id2label": { "0": "no", "1": "yes" }
    });
    let map = map.as_object_mut().expect("an object");
    map.extend(changes.as_object().expect("an object").clone());
    map.clone()
}

fn read(
    changes: &Value,
    outputs: usize,
    reader: fn(&Source<'_>) -> Result<Classifier, CheckpointError>,
) -> Result<Classifier, String> {
    let config = config(changes);
    let mut architecture = from_hugging_face("config.json", &config).expect("a supported model");
    architecture.take_names(|name| name.starts_with("bert.") || name.starts_with("roberta."));
    let tensors: BTreeMap<&str, Vec<usize>> = [
        ("bert.pooler.dense.weight", vec![4, 4]),
        ("bert.pooler.dense.bias", vec![4]),
        ("classifier.weight", vec![outputs, 4]),
        ("classifier.bias", vec![outputs]),
        ("classifier.dense.weight", vec![4, 4]),
        ("classifier.out_proj.weight", vec![outputs, 4]),
        ("head.dense.weight", vec![4, 4]),
        ("head.norm.weight", vec![4]),
    ]
    .into();
    let tensor = |name: &str| match tensors.get(name) {
        Some(shape) => Ok(Tensor { shape: shape.clone(), data: vec![0.5; shape.iter().product()] }),
        None => Err(CheckpointError::MissingTensor { path: "m".into(), tensor: name.to_owned() }),
    };
    let source =
        Source { file: Path::new("m/config.json"), config: &config, architecture: &architecture, tensor: &tensor };
    reader(&source).map_err(|error| error.to_string())
}

#[test]
fn a_head_is_that_of_its_family() {
    let bert = read(&json!({}), 2, Classifier::labeller).unwrap();
    assert_eq!(bert.modules(), ["bert.pooler.dense", "classifier"]);
    assert_eq!((bert.pooling, bert.layers[0].activation), (Pooling::First, DenseActivation::Tanh));
    assert_eq!(bert.labels, ["no", "yes"]);
    let roberta = read(&json!({ "model_type": "roberta" }), 2, Classifier::labeller).unwrap();
    assert_eq!(roberta.modules(), ["classifier.dense", "classifier.out_proj"]);
    let modern = json!({ "model_type": "modernbert", "classifier_pooling": "mean", "classifier_activation": "silu" });
    let modern = read(&modern, 2, Classifier::labeller).unwrap();
    assert_eq!((modern.pooling, modern.layers[0].activation), (Pooling::Mean, DenseActivation::Silu));
    assert!(modern.layers[0].norm.is_some() && modern.layers[0].bias == [0.0; 4], "no biases");
}

#[test]
fn scores_are_what_the_configuration_says() {
    let labeller = |changes: Value, outputs| read(&changes, outputs, Classifier::labeller).map(|head| head.scores);
    assert_eq!(labeller(json!({}), 2), Ok(Scores::Softmax));
    assert_eq!(labeller(json!({ "id2label": { "0": "spam" } }), 1), Ok(Scores::Sigmoid));
    assert_eq!(labeller(json!({ "problem_type": "multi_label_classification" }), 2), Ok(Scores::Sigmoid));
    assert_eq!(labeller(json!({ "problem_type": "regression" }), 2), Ok(Scores::Identity));
    let reranker = |changes: Value| read(&changes, 1, Classifier::reranker).map(|head| head.scores);
    assert_eq!(reranker(json!({})), Ok(Scores::Sigmoid));
    let identity = "torch.nn.modules.linear.Identity";
    assert_eq!(reranker(json!({ "sentence_transformers": { "activation_fn": identity } })), Ok(Scores::Identity));
    assert_eq!(reranker(json!({ "sbert_ce_default_activation_function": identity })), Ok(Scores::Identity));
    assert_eq!(reranker(json!({ "sentence_transformers": { "version": "4.1.0" } })), Ok(Scores::Sigmoid));
}

#[test]
fn a_head_that_is_not_there_is_refused_by_name() {
    type Reader = fn(&Source<'_>) -> Result<Classifier, CheckpointError>;
    let (rerank, label): (Reader, Reader) = (Classifier::reranker, Classifier::labeller);
    for (changes, outputs, reader, words) in [
        (json!({ "architectures": ["BertModel"] }), 1, rerank, "`architectures` is BertModel, which has no head"),
        (json!({ "architectures": ["BertForTokenClassification"] }), 2, label, "need a checkpoint of"),
        (json!({ "architectures": null }), 2, label, "`architectures` is empty"),
        (json!({}), 2, rerank, "the model has 2 labels; a model that reranks has one: set spec.task to Classify"),
        (
            json!({ "id2label": null }),
            2,
            label,
            "field `id2label` is missing; spec.task Classify needs a name for each",
        ),
        (json!({ "id2label": { "0": "a" } }), 2, label, "a name for each of the model's 2 labels"),
        (json!({ "id2label": { "0": "a", "2": "b" } }), 2, label, "from \"0\" on"),
        (json!({ "problem_type": "other" }), 2, label, "problem_type"),
        (json!({ "sentence_transformers": { "activation_fn": "torch.nn.Tanh" } }), 1, rerank, "activation_fn"),
        (json!({ "model_type": "modernbert", "classifier_pooling": "max" }), 2, label, "classifier_pooling"),
        (json!({ "model_type": "modernbert", "classifier_activation": "mish" }), 2, label, "classifier_activation"),
        (json!({ "model_type": "qwen3", "head_dim": 2 }), 1, rerank, "for Rerank and Classify"),
        (json!({ "model_type": "distilbert", "dim": 4, "n_heads": 2, "hidden_dim": 8 }), 1, rerank, "pre_classifier"),
    ] {
        let refusal = read(&changes, outputs, reader).unwrap_err();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn an_adapter_replaces_tensors_and_adds_pairs() {
    let head = read(&json!({}), 1, Classifier::reranker).unwrap();
    let matrix = |values: [f32; 4]| crate::peft::Matrix::in_memory(values);
    let pair = LoraPair { rank: 1, scaling: 2.0, a: matrix([1.0, 2.0, 3.0, 4.0]), b: matrix([1.0, 0.0, 0.0, 10.0]) };
    let changes = HeadChanges {
        saved: [("classifier.weight".to_owned(), vec![7.0; 4])].into(),
        pairs: [("bert.pooler.dense".to_owned(), pair)].into(),
    };
    let changed = head.changed(&changes, 0.5);
    assert_eq!(changed.layers[1].weight, [7.0; 4]);
    assert_eq!(changed.layers[1].bias, head.layers[1].bias);
    assert_eq!(changed.layers[0].weight[..5], [1.5, 2.5, 3.5, 4.5, 0.5]);
    assert_eq!(changed.layers[0].weight[12..], [10.5, 20.5, 30.5, 40.5]);
}
