//! SwarmRoute controller: reports whether a route can work. Routers watch routes themselves.

use std::sync::Arc;

use kube::{ResourceExt as _, runtime::controller::Action};
use slm_crds::{
    SwarmRoute, SwarmRouteSpec,
    expert::Expert,
    model::Task,
    route::{SwarmRouteStatus, Target, TargetKind},
    rule,
    schema::Kind,
    selection::{Referred, itself, unfit},
};

use crate::{
    conditions::Verdict,
    context::{Context, Error},
    name_conflicts::name_taken,
    objects::Objects,
    reconcile::Reconciled,
};

impl Reconciled for SwarmRoute {
    async fn reconcile(self: Arc<Self>, context: Arc<Context>) -> Result<Action, Error> {
        if self.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let verdict = verdict(&self, &context.objects);
        self.refuse(&context, &verdict).await
    }

    async fn refuse(&self, context: &Context, verdict: &Verdict) -> Result<Action, Error> {
        let former = self.status.clone().unwrap_or_default();
        let next = |conditions| SwarmRouteStatus { observed_generation: self.metadata.generation, conditions };
        context.report(self, &former.conditions, verdict, next, self.status.as_ref()).await
    }
}

fn verdict(route: &SwarmRoute, objects: &Objects) -> Verdict {
    if let Some(taken) = name_taken(route, objects) {
        return taken;
    }
    for (number, rule) in (1..).zip(&route.spec.rules) {
        if let Err(error) = rule::check(&rule.when) {
            return Verdict::wrong("InvalidRule", format!("spec.rules[{}].when (rule {number}): {error}", number - 1));
        }
    }
    for (place, target) in route.spec.references() {
        if let Some(fault) = itself(&route.name_any(), target) {
            return Verdict::wrong("UnfitReference", format!("{place}: {fault}"));
        }
        let (kind, there) = match target.kind {
            TargetKind::SlmModel => (Kind::SlmModel, objects.model(&target.name).is_some()),
            TargetKind::LoraAdapter => (Kind::LoraAdapter, objects.adapter(&target.name).is_some()),
            TargetKind::ExternalModel => (Kind::ExternalModel, objects.external(&target.name).is_some()),
        };
        if there {
            continue;
        }
        // The list of known names is built only for the message.
        let dangling = || objects.known().dangling(target.kind, &target.name).map(|dangling| dangling.to_string());
        let why = match objects.unreadable(kind, &target.name).or_else(dangling) {
            Some(why) => why,
            None => format!("the {} `{}` does not own its name: an older object does", target.kind, target.name),
        };
        return Verdict::wrong("TargetNotFound", format!("{why}; its rules are passed over until there is one"));
    }
    if let Some((path, unfit)) = unfit(&route.spec, |target| referred(objects, target)).into_iter().next() {
        return Verdict::wrong("UnfitReference", format!("{path}: {unfit}"));
    }
    let SwarmRouteSpec { rules, classifier, similarity, ensemble, .. } = &route.spec;
    let by = |targets: Option<usize>, what: &str| {
        targets.map_or_else(String::new, |targets| format!(", {targets} targets by {what}"))
    };
    let labelled = by(classifier.as_ref().map(|classifier| classifier.targets.len()), "label");
    let similar = by(similarity.as_ref().map(|similarity| similarity.targets.len()), "similarity");
    let together = ensemble.as_ref().map_or_else(String::new, |it| format!(", {} experts together", it.experts.len()));
    Verdict::ready(format!("{} rules{labelled}{similar}{together} and a fallback", rules.len()))
}

/// What a route reads of an object that owns its name.
fn referred(objects: &Objects, target: &Target) -> Option<Referred> {
    let examples = |expert: &Option<Expert>| expert.as_ref().map_or(0, |expert| expert.examples.len());
    match target.kind {
        TargetKind::SlmModel => {
            let model = objects.model(&target.name)?;
            Some(Referred { task: Some(model.spec.task), examples: examples(&model.spec.expert) })
        }
        TargetKind::LoraAdapter => {
            let adapter = objects.adapter(&target.name)?;
            let task = objects.model(&adapter.spec.model_ref.name).map(|model| model.spec.task);
            Some(Referred { task, examples: examples(&adapter.spec.expert) })
        }
        TargetKind::ExternalModel => {
            let external = objects.external(&target.name)?;
            Some(Referred { task: Some(Task::Generate), examples: examples(&external.spec.expert) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fixtures::{object, world};

    #[test]
    fn routes_that_lead_outside() {
        let mut world = world();
        world.model("smol", 1);
        world.external("large", 1);
        let verdict = |objects: &Objects, name: &str, policy: &str| {
            let spec = json!({ "fallback": { "kind": "ExternalModel", "name": name }, "dataPolicy": policy });
            let verdict = verdict(&object("SwarmRoute", "assistant", 1, spec), objects);
            (verdict.reason.into_owned(), verdict.message)
        };
        assert_eq!(verdict(&world.objects, "large", "Redacted").0, "Ready");
        for (name, policy, reason, says) in [
            ("large", "LocalOnly", "UnfitReference", "spec.fallback: the ExternalModel `large` is never asked"),
            ("larg", "Redacted", "TargetNotFound", "no ExternalModel is named `larg`; did you mean `large`?"),
            ("smol", "Redacted", "TargetNotFound", "no ExternalModel is named `smol`; it is a SlmModel"),
        ] {
            let (found, message) = verdict(&world.objects, name, policy);
            assert!(found == reason && message.starts_with(says), "{found}: {message}");
        }
        // An older model has the name.
        world.model("large", 0);
        let (reason, message) = verdict(&world.objects, "large", "Redacted");
        assert_eq!(reason, "TargetNotFound");
        assert!(message.contains("does not own its name"), "{message}");
    }

    #[test]
    fn routes_that_ask_several() {
        let mut world = world();
        world.model("smol", 1);
        world.external("large", 1);
        let smol = json!({ "kind": "SlmModel", "name": "smol" });
        let large = json!({ "kind": "ExternalModel", "name": "large" });
        let route = |experts: Value, judge: &Value, shadow: &Value| {
            let ensemble = json!({ "experts": experts, "combine": "Judge", "judge": judge });
            let shadow = json!({ "to": shadow, "percent": 5 });
            let policy = "AllowExternal";
            let spec = json!({ "ensemble": ensemble, "shadow": shadow, "fallback": smol, "dataPolicy": policy });
            let verdict = verdict(&object("SwarmRoute", "assistant", 1, spec), &world.objects);
            (verdict.reason.into_owned(), verdict.message)
        };
        let (reason, message) = route(json!([smol, large]), &smol, &large);
        assert_eq!((reason.as_str(), message.as_str()), ("Ready", "0 rules, 2 experts together and a fallback"));
        let named = |name: &str| json!({ "kind": "SlmModel", "name": name });
        for (experts, judge, shadow, reason, says) in [
            (json!([smol, named("smo")]), &smol, &smol, "TargetNotFound", "no SlmModel is named `smo`"),
            (json!([smol, large]), &named("judge"), &smol, "TargetNotFound", "no SlmModel is named `judge`"),
            (json!([smol, large]), &smol, &named("gone"), "TargetNotFound", "no SlmModel is named `gone`"),
            (json!([smol, large]), &large, &smol, "UnfitReference", "spec.ensemble.judge: the ExternalModel `large`"),
            (
                json!([smol, named("assistant")]),
                &smol,
                &smol,
                "UnfitReference",
                "spec.ensemble.experts[1]: `assistant` is",
            ),
        ] {
            let (found, message) = route(experts, judge, shadow);
            assert!(found == reason && message.starts_with(says), "{found}: {message}");
        }
    }

    #[test]
    fn an_external_model_neither_labels_nor_embeds() {
        let mut world = world();
        world.external("large", 1);
        let large = json!({ "kind": "ExternalModel", "name": "large" });
        for (part, says) in [
            (json!({ "classifier": { "model": large, "targets": [large] } }), "a classifier is"),
            (json!({ "similarity": { "encoder": large, "targets": [large] } }), "an encoder needs Embed"),
        ] {
            let mut spec = json!({ "fallback": large, "dataPolicy": "AllowExternal" });
            spec.as_object_mut().expect("a spec").extend(part.as_object().expect("a part").clone());
            let verdict = verdict(&object("SwarmRoute", "assistant", 1, spec), &world.objects);
            assert!(verdict.reason == "UnfitReference" && verdict.message.contains(says), "{}", verdict.message);
        }
    }
}
