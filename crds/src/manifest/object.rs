//! From a document to an object.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, LazyLock},
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Located,
    problem::{Fault, Problem},
    structure, validate,
    yaml::{Entry, Node, Tree},
};
use crate::{
    API_VERSION, ExternalModel, LoraAdapter, SlmModel, SwarmRoute,
    nearest::{did_you_mean, nearest},
    schema::Kind,
};

pub(super) enum Object {
    Model(Box<Located<SlmModel>>),
    Adapter(Box<Located<LoraAdapter>>),
    External(Box<Located<ExternalModel>>),
    Route(Box<Located<SwarmRoute>>),
}

/// A document that is not a valid object.
pub(super) struct Refused {
    pub(super) problems: Vec<Problem>,
    /// Its identity, if known.
    pub(super) identity: Option<(Kind, String)>,
}

/// Schema of each kind for manifests. Built once, because the derive walks every type.
static SCHEMAS: LazyLock<HashMap<Kind, Arc<Value>>> =
    LazyLock::new(|| Kind::LOCAL.into_iter().map(|kind| (kind, Arc::new(manifest_schema(kind)))).collect());

/// The objects of a document: itself, or the items of a `List`.
pub(super) fn objects(document: Node) -> Vec<Node> {
    let text = |name: &str| document.get(name).and_then(|entry| entry.value.text()).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let own = version == API_VERSION && kind.strip_suffix("List").is_some_and(|kind| Kind::named(kind).is_some());
    let item = kind.strip_suffix("List").unwrap_or_default().to_owned();
    let is_list = own || (version == "v1" && kind == "List");
    let Tree::Map(entries) = document.tree else { return vec![document] };
    if !is_list {
        return vec![Node { tree: Tree::Map(entries), ..document }];
    }
    let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.tree);
    let Some(Tree::List(mut items)) = items else { return Vec::new() };
    for node in items.iter_mut().filter(|_| own) {
        // Items of a typed list may omit both.
        let line = node.line;
        let Tree::Map(entries) = &mut node.tree else { continue };
        for (key, value) in [("apiVersion", API_VERSION), ("kind", item.as_str())] {
            if !entries.iter().any(|entry| entry.key == key) {
                let value = Node { line, tree: Tree::Scalar(value.into()) };
                entries.push(Entry { key: key.to_owned(), line, value });
            }
        }
    }
    items
}

/// Fields that the API server adds to `metadata`, as shown by `kubectl get -o yaml`.
const SERVER_METADATA: [&str; 11] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An object without fields that only the API server writes.
fn as_written(document: &Node) -> Node {
    let mut document = document.clone();
    if let Tree::Map(entries) = &mut document.tree {
        entries.retain(|entry| entry.key != "status");
        for entry in entries.iter_mut().filter(|entry| entry.key == "metadata") {
            if let Tree::Map(metadata) = &mut entry.value.tree {
                metadata.retain(|entry| !SERVER_METADATA.contains(&entry.key.as_str()));
            }
        }
    }
    document
}

pub(super) fn read(file: &Path, document: &Node) -> Result<Object, Refused> {
    let document = &as_written(document);
    let kind = kind(document).map_err(|(line, path, fault)| Refused {
        problems: vec![Problem { file: file.to_owned(), line, object: String::new(), path, fault }],
        identity: None,
    })?;
    match kind {
        Kind::SlmModel => typed(kind, file, document).map(Box::new).map(Object::Model),
        Kind::LoraAdapter => typed(kind, file, document).map(Box::new).map(Object::Adapter),
        Kind::ExternalModel => typed(kind, file, document).map(Box::new).map(Object::External),
        Kind::SwarmRoute => typed(kind, file, document).map(Box::new).map(Object::Route),
        Kind::AcceleratorProfile => {
            let fault =
                Fault::UnknownKind("AcceleratorProfile is a kind of clusters; one machine needs none".to_owned());
            let line = document.get("kind").map_or(document.line, |entry| entry.line);
            let problem =
                Problem { file: file.to_owned(), line, object: String::new(), path: "kind".to_owned(), fault };
            Err(Refused { problems: vec![problem], identity: None })
        }
    }
}

/// The CRD's schema with user-written `metadata` fields and without the status.
fn manifest_schema(kind: Kind) -> Value {
    let mut schema = kind.schema();
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    schema["properties"]["metadata"] = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1 },
            "namespace": { "type": "string", "minLength": 1 },
            "labels": texts,
            "annotations": texts,
        },
    });
    schema["properties"]["apiVersion"] = json!({ "type": "string" });
    schema["properties"]["kind"] = json!({ "type": "string" });
    schema["required"] = json!(["metadata", "spec"]);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("status");
    }
    schema
}

fn kind(document: &Node) -> Result<Kind, (u32, String, Fault)> {
    let unknown = |line, path: &str, what| Err((line, path.to_owned(), Fault::UnknownKind(what)));
    if !matches!(document.tree, Tree::Map(_)) {
        return unknown(document.line, "", format!("expected an object with apiVersion: {API_VERSION} and a kind"));
    }
    let field = |name: &str| document.get(name).map(|entry| (entry.line, entry.value.text().unwrap_or_default()));
    match field("apiVersion") {
        None => return unknown(document.line, "apiVersion", format!("missing; expected {API_VERSION}")),
        Some((_, version)) if version == API_VERSION => {}
        Some((line, version)) => {
            return unknown(line, "apiVersion", format!("unknown apiVersion `{version}`; expected {API_VERSION}"));
        }
    }
    let names = Kind::LOCAL.map(Kind::name);
    let expected = format!("expected one of {}", names.join(", "));
    match field("kind") {
        None => unknown(document.line, "kind", format!("missing; {expected}")),
        Some((line, name)) => match Kind::named(name) {
            Some(kind) => Ok(kind),
            None => {
                let suggestion = did_you_mean(&nearest(name, names));
                let suggestion = if suggestion.is_empty() { ";".to_owned() } else { suggestion };
                unknown(line, "kind", format!("unknown kind `{name}`{suggestion} {expected}"))
            }
        },
    }
}

/// Takes fields without a value away, as the API server does.
fn prune(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn typed<T: DeserializeOwned + serde::Serialize>(
    kind: Kind,
    file: &Path,
    document: &Node,
) -> Result<Located<T>, Refused> {
    let name = document.get("metadata").and_then(|metadata| metadata.value.get("name")?.value.text());
    let object = name.map_or_else(|| kind.name().to_owned(), |name| format!("{} {name}", kind.name()));
    let problem = |line, path: &str, fault| Problem {
        file: file.to_owned(),
        line,
        object: object.clone(),
        path: path.to_owned(),
        fault,
    };
    let refused = |problems| Refused { problems, identity: name.map(|name| (kind, name.to_owned())) };

    let schema = SCHEMAS.get(&kind).cloned().unwrap_or_default();
    let mut findings = Vec::new();
    structure::check(&schema, document, "", &mut findings);
    if !findings.is_empty() {
        let problems = findings.into_iter().map(|finding| problem(finding.line, &finding.path, finding.fault));
        return Err(refused(problems.collect()));
    }

    // Serde accepts what the schema accepts; if they ever differ, serde decides.
    let mut json = document.json();
    prune(&mut json);
    let typed = serde_json::from_value::<T>(json);
    let checked = typed.and_then(|object| serde_json::to_value(&object).map(|json| (object, json)));
    let (typed, json) =
        checked.map_err(|error| refused(vec![problem(document.line, "", Fault::Invalid(error.to_string()))]))?;
    let mut lines = HashMap::new();
    document.lines("", &mut lines);
    let mut broken = Vec::new();
    validate::check(&schema, &json, "", &mut broken);
    if !broken.is_empty() {
        let problems = broken.into_iter().map(|broken| {
            // Rules on the whole object are about its name.
            let path = if broken.path.is_empty() { "metadata.name" } else { &broken.path };
            let line = super::line_of(&lines, path).unwrap_or(document.line);
            problem(line, &broken.path, Fault::Invalid(broken.message))
        });
        return Err(refused(problems.collect()));
    }
    Ok(Located { object: typed, file: file.to_owned(), line: document.line, lines })
}
