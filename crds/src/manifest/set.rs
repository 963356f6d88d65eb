//! Checks across all objects of a set.

use std::collections::HashMap;

use kube::ResourceExt as _;

use super::{
    Located, Manifests,
    problem::{Fault, Problem},
};
use crate::{
    expert::Expert,
    model::Task,
    names::{Claim, Known, NameTaken, holders},
    route::{Target, TargetKind},
    rule,
    schema::Kind,
    selection::{Referred, itself, unfit},
};

/// All problems between objects. `broken` are objects that exist but could not be read.
pub(super) fn check(manifests: &Manifests, broken: &[(Kind, String)]) -> Vec<Problem> {
    let everyone = everyone(manifests);
    let mut problems = Vec::new();
    names(&everyone, &mut problems);
    namespaces(&everyone, &mut problems);
    let known = known(&everyone, broken);
    adapters(manifests, &known, &mut problems);
    routes(manifests, &known, &mut problems);
    problems
}

/// An object of any kind.
struct Any<'a> {
    kind: Kind,
    name: String,
    namespace: Option<String>,
    file: &'a std::path::Path,
    line: u32,
    name_line: u32,
    namespace_line: u32,
}

fn everyone(manifests: &Manifests) -> Vec<Any<'_>> {
    fn any<T: kube::ResourceExt>(kind: Kind, located: &Located<T>) -> Any<'_> {
        Any {
            kind,
            name: located.object.name_any(),
            namespace: located.object.namespace(),
            file: &located.file,
            line: located.line,
            name_line: located.line_of("metadata.name"),
            namespace_line: located.line_of("metadata.namespace"),
        }
    }
    let models = manifests.models.iter().map(|model| any(Kind::SlmModel, model));
    let adapters = manifests.adapters.iter().map(|adapter| any(Kind::LoraAdapter, adapter));
    let externals = manifests.externals.iter().map(|external| any(Kind::ExternalModel, external));
    let routes = manifests.routes.iter().map(|route| any(Kind::SwarmRoute, route));
    let mut everyone: Vec<Any<'_>> = models.chain(adapters).chain(externals).chain(routes).collect();
    everyone.sort_by_key(|object| (object.file, object.line));
    everyone
}

impl Any<'_> {
    fn problem(&self, line: u32, path: &str, fault: Fault) -> Problem {
        let object = format!("{} {}", self.kind.name(), self.name);
        Problem { file: self.file.to_owned(), line, object, path: path.to_owned(), fault }
    }
}

fn names(everyone: &[Any<'_>], problems: &mut Vec<Problem>) {
    // Manifests have no age: of two claims, the one read first wins.
    let claims = everyone.iter().enumerate();
    let holders = holders(claims.map(|(age, object)| (object.name.clone(), Claim { age, kind: object.kind })));
    for (place, object) in everyone.iter().enumerate() {
        let holder = holders.get(&object.name).filter(|holder| holder.age != place);
        let Some(other) = holder.and_then(|holder| everyone.get(holder.age)) else { continue };
        let other = format!("{} at {}:{}", other.kind.name(), other.file.display(), other.name_line);
        let fault = NameTaken { name: object.name.clone(), other };
        problems.push(object.problem(object.name_line, "metadata.name", fault.into()));
    }
}

fn namespaces(everyone: &[Any<'_>], problems: &mut Vec<Problem>) {
    let mut named = everyone.iter().filter_map(|object| Some((object, object.namespace.as_deref()?)));
    let Some((other, first)) = named.next() else { return };
    for (object, found) in named.filter(|(_, found)| *found != first) {
        let other = format!("{} {}", other.kind.name(), other.name);
        let fault = Fault::Namespaces { found: found.to_owned(), first: first.to_owned(), other };
        problems.push(object.problem(object.namespace_line, "metadata.namespace", fault));
    }
}

/// Names that references may point to.
fn known(everyone: &[Any<'_>], broken: &[(Kind, String)]) -> Known {
    let read = everyone.iter().map(|object| (object.kind, &object.name));
    let all: Vec<(Kind, &String)> = read.chain(broken.iter().map(|(kind, name)| (*kind, name))).collect();
    let of = |wanted: Kind| all.iter().filter(|(kind, _)| *kind == wanted).map(|(_, name)| (*name).clone()).collect();
    Known { models: of(Kind::SlmModel), adapters: of(Kind::LoraAdapter), externals: of(Kind::ExternalModel) }
}

fn adapters(manifests: &Manifests, known: &Known, problems: &mut Vec<Problem>) {
    let mut pinned: HashMap<&str, u32> = HashMap::new();
    for adapter in manifests.adapters.iter().filter(|adapter| adapter.object.spec.placement.pin) {
        *pinned.entry(&adapter.object.spec.model_ref.name).or_default() += 1;
    }
    for adapter in &manifests.adapters {
        let name = &adapter.object.spec.model_ref.name;
        let mut push = |path, fault| problems.push(located(Kind::LoraAdapter, adapter, path, fault));
        if let Some(fault) = known.dangling(TargetKind::SlmModel, name) {
            push("spec.modelRef.name", fault.into());
        }
        let own = u32::from(adapter.object.spec.placement.pin);
        let others = pinned.get(name.as_str()).map_or(0, |pinned| pinned - own);
        let model = manifests.models.iter().find(|model| model.object.name_any() == *name);
        if let Some(slots) = model.map(|model| model.object.spec.adapters.slots).filter(|slots| others >= *slots) {
            push("spec.modelRef.name", Fault::NoSlot { model: name.clone(), slots, pinned: others });
        }
    }
}

fn routes(manifests: &Manifests, known: &Known, problems: &mut Vec<Problem>) {
    for route in &manifests.routes {
        let spec = &route.object.spec;
        let mut push = |path: &str, fault| problems.push(located(Kind::SwarmRoute, route, path, fault));
        for (path, target) in spec.references() {
            if let Some(fault) = itself(&route.object.name_any(), target) {
                push(&format!("{path}.name"), fault.into());
            } else if let Some(fault) = known.dangling(target.kind, &target.name) {
                push(&format!("{path}.name"), fault.into());
            }
        }
        for (path, fault) in unfit(spec, |target| referred(manifests, target)) {
            push(&path, fault.into());
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            if let Err(error) = rule::check(&rule.when) {
                push(&format!("spec.rules[{index}].when"), error.into());
            }
        }
    }
}

/// What routes read of an object among the manifests.
fn referred(manifests: &Manifests, target: &Target) -> Option<Referred> {
    let model = |name: &str| manifests.models.iter().find(|model| model.object.name_any() == name);
    let task = |name: &str| model(name).map(|model| model.object.spec.task);
    let examples = |expert: &Option<Expert>| expert.as_ref().map_or(0, |expert| expert.examples.len());
    match target.kind {
        TargetKind::SlmModel => {
            let spec = &model(&target.name)?.object.spec;
            Some(Referred { task: Some(spec.task), examples: examples(&spec.expert) })
        }
        TargetKind::LoraAdapter => {
            let adapter = manifests.adapters.iter().find(|adapter| adapter.object.name_any() == target.name)?;
            let spec = &adapter.object.spec;
            Some(Referred { task: task(&spec.model_ref.name), examples: examples(&spec.expert) })
        }
        TargetKind::ExternalModel => {
            let external = manifests.externals.iter().find(|external| external.object.name_any() == target.name)?;
            Some(Referred { task: Some(Task::Generate), examples: examples(&external.object.spec.expert) })
        }
    }
}

fn located<T: kube::ResourceExt>(kind: Kind, located: &Located<T>, path: &str, fault: Fault) -> Problem {
    Problem {
        file: located.file.clone(),
        line: located.line_of(path),
        object: format!("{} {}", kind.name(), located.object.name_any()),
        path: path.to_owned(),
        fault,
    }
}
