//! Every name that a request may carry, for the listings of both APIs.

use slm_crds::route::Target;
use slm_proto::v1::{ExpertKind, ModelInfo};

use crate::{
    access::table::Caller,
    decide::absent,
    view::{Entry, Expert, View},
};

/// The names that a caller may use: models, then adapters, then routes, each in the order of the swarm.
pub(crate) fn catalog(view: &View, caller: &Caller) -> Vec<ModelInfo> {
    let swarm = &view.index.swarm;
    let models = swarm.models.iter().map(|model| &model.name);
    let adapters = swarm.adapters.iter().map(|adapter| &adapter.name);
    let routes = swarm.routes.iter().map(|route| &route.name);
    models.chain(adapters).chain(routes).filter(|name| caller.may(name)).filter_map(|name| entry(view, name)).collect()
}

/// One name, if the swarm has it.
pub(crate) fn entry(view: &View, name: &str) -> Option<ModelInfo> {
    Some(match view.index.names.get(name)? {
        // Callers cannot name it.
        Entry::Expert(expert) if expert.is_external() => return None,
        Entry::Expert(expert) => of_expert(view, expert),
        Entry::Route(route) => {
            let resident =
                |target: &Target| view.index.expert(&target.name).is_some_and(|expert| absent(view, expert).is_none());
            ModelInfo {
                name: name.to_owned(),
                kind: "SwarmRoute".to_owned(),
                description: route.description().to_owned(),
                ready: route.targets().any(resident),
                ..Default::default()
            }
        }
    })
}

fn of_expert(view: &View, expert: &Expert) -> ModelInfo {
    let is_adapter = expert.kind == ExpertKind::LoraAdapter;
    let resident: Vec<(&str, &str)> = view
        .workers_of(&expert.model)
        .filter_map(|worker| Some((&*worker.url, worker.resident(expert).ok()?)))
        .collect();
    let holders = view.workers_of(&expert.model).filter(|worker| worker.resident(expert).is_ok());
    let in_slots = holders.filter(|worker| is_adapter && !worker.is_away(expert)).count();
    let state = view.workers_of(&expert.model).find_map(|worker| worker.state.as_deref().ok());
    ModelInfo {
        name: expert.name.clone(),
        kind: if is_adapter { "LoraAdapter" } else { "SlmModel" }.to_owned(),
        model: if is_adapter { expert.model.clone() } else { String::new() },
        description: expert.description.clone(),
        ready: !resident.is_empty(),
        digest: resident.first().map_or(expert.digest.as_str(), |(_, digest)| digest).to_owned(),
        bytes: view.workers_of(&expert.model).find_map(|worker| worker.bytes_of(expert)).unwrap_or(0),
        execution_provider: state.map(|state| state.execution_provider.clone()).unwrap_or_default(),
        flavour: state.map(|state| state.flavour.clone()).unwrap_or_default(),
        nodes: state.map(|state| state.nodes.clone()).unwrap_or_default(),
        workers: resident.into_iter().map(|(url, _)| url.to_owned()).collect(),
        in_slots: u32::try_from(in_slots).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures;

    #[test]
    fn says_what_is_ready_where() {
        let view = fixtures::view(vec![
            fixtures::worker("http://a", Some(fixtures::state(&["banking"]))),
            fixtures::worker("http://b", None),
        ]);
        let rows: Vec<_> = catalog(&view, &Caller::anybody())
            .into_iter()
            .map(|info| (info.name, info.kind, info.ready, info.digest, info.workers.join(","), info.bytes))
            .collect();
        let row = |name: &str, kind: &str, ready, digest: &str, workers: &str, bytes| {
            (name.to_owned(), kind.to_owned(), ready, digest.to_owned(), workers.to_owned(), bytes)
        };
        assert_eq!(
            rows,
            [
                row("smol", "SlmModel", true, "sha256:m", "http://a", 1000),
                row("banking", "LoraAdapter", true, "sha256:b", "http://a", 10),
                row("travel", "LoraAdapter", false, "sha256:t", "", 0),
                row("assistant", "SwarmRoute", true, "", "", 0),
            ]
        );
    }
}
