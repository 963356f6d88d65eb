//! SwarmRoute to a verdict: routers follow routes by themselves, this tells people whether theirs can work.

use std::sync::Arc;

use futures::StreamExt as _;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use slm_crds::{
    LoraAdapter, SlmModel, SwarmRoute,
    route::{SwarmRouteStatus, Target, TargetKind},
    rule,
};
use slm_watch::Patience;
use tokio_util::sync::CancellationToken;

use crate::{
    conditions::Verdict,
    context::{Context, Error, again},
    ended,
    objects::Objects,
    taken::name_taken,
};

/// Runs until `stop`.
pub(crate) async fn run(context: Arc<Context>, namespace: String, stop: CancellationToken) {
    let client = context.client.clone();
    let any = watcher::Config::default;
    let controller = Controller::new(Api::<SwarmRoute>::namespaced(client.clone(), &namespace), any());
    let (of_models, of_adapters) = (controller.store(), controller.store());
    controller
        .watches(Api::<SlmModel>::namespaced(client.clone(), &namespace), any(), move |model| {
            leading_to(&of_models, &model.name_any())
        })
        .watches(Api::<LoraAdapter>::namespaced(client, &namespace), any(), move |adapter| {
            leading_to(&of_adapters, &adapter.name_any())
        })
        .trigger_backoff(Patience::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, again, context)
        .for_each(ended)
        .await;
}

fn targets(route: &SwarmRoute) -> impl Iterator<Item = &Target> {
    route.spec.rules.iter().map(|rule| &rule.to).chain([&route.spec.fallback])
}

fn leading_to(routes: &Store<SwarmRoute>, name: &str) -> Vec<ObjectRef<SwarmRoute>> {
    let all = routes.state();
    let concerned = all.iter().filter(|route| targets(route).any(|target| target.name == name));
    concerned.map(|route| ObjectRef::from_obj(route.as_ref())).collect()
}

async fn reconcile(route: Arc<SwarmRoute>, context: Arc<Context>) -> Result<Action, Error> {
    if route.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let verdict = verdict(&route, &context.objects);
    let former = route.status.clone().unwrap_or_default();
    let next = |conditions| SwarmRouteStatus { observed_generation: route.metadata.generation, conditions };
    context.report(&*route, &former.conditions, &verdict, next, route.status.as_ref()).await
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
    let namespace = route.namespace().unwrap_or_default();
    for target in targets(route) {
        let there = match target.kind {
            TargetKind::SlmModel => objects.models.get(&ObjectRef::new(&target.name).within(&namespace)).is_some(),
            TargetKind::LoraAdapter => objects.adapters.get(&ObjectRef::new(&target.name).within(&namespace)).is_some(),
        };
        // Names are listed only for the message.
        let dangling = if there { None } else { objects.known().dangling(target.kind, &target.name) };
        if let Some(dangling) = dangling {
            let what = format!("{dangling}; its rules are passed over until there is one");
            return Verdict::wrong("TargetNotFound", what);
        }
    }
    Verdict::ready(format!("{} rules and a fallback", route.spec.rules.len()))
}
