//! LoraAdapter controller: validates the object and reports its residency; the fleet controller loads it.

mod status;

use std::sync::Arc;

use kube::runtime::controller::Action;
use slm_crds::{LoraAdapter, route::TargetKind, schema::Kind};

use crate::{
    conditions::Verdict,
    context::{Context, Error},
    name_conflicts::name_taken,
    objects::Objects,
    reconcile::Reconciled,
    source,
};

impl Reconciled for LoraAdapter {
    async fn reconcile(self: Arc<Self>, context: Arc<Context>) -> Result<Action, Error> {
        if self.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        match validate(&self, &context.objects) {
            Ok(()) => status::residency(&context, &self).await,
            Err(refused) => status::refused(&context, &self, &refused).await,
        }
    }

    async fn refuse(&self, context: &Context, verdict: &Verdict) -> Result<Action, Error> {
        status::refused(context, self, verdict).await
    }
}

fn validate(adapter: &LoraAdapter, objects: &Objects) -> Result<(), Verdict> {
    if let Some(taken) = name_taken(adapter, objects) {
        return Err(taken);
    }
    if let Some(why) = source::unreachable(&adapter.spec.source.uri) {
        return Err(Verdict::wrong("SourceUnreachable", why));
    }
    let name = &adapter.spec.model_ref.name;
    if objects.model(name).is_some() {
        return Ok(());
    }
    let unreadable = objects.unreadable(Kind::SlmModel, name);
    let dangling = || objects.known().dangling(TargetKind::SlmModel, name).map(|dangling| dangling.to_string());
    let why = match unreadable.or_else(dangling) {
        Some(why) => why,
        None => format!("the SlmModel `{name}` does not own its name: an older object does"),
    };
    Err(Verdict::wrong("ModelNotFound", format!("{why}; this adapter waits for it")))
}
