//! Where the experts of an ensemble are asked: on one worker of each base where that can be, so that their prompts share its batch. Pure.

use std::{collections::HashMap, sync::Arc};

use crate::{
    rank::{is_full, less_busy},
    view::{Expert, View, Worker},
};

/// For each expert, the worker of its base that has room and holds the most of `experts`; `None` for one that no worker holds, or a model
/// outside. `draw` is any random number.
pub(super) fn workers(view: &View, experts: &[Expert], draw: u64) -> Vec<Option<Arc<str>>> {
    let mut of_base: HashMap<&str, Option<&Arc<Worker>>> = HashMap::new();
    let mut places = Vec::new();
    for expert in experts {
        let base = expert.model.as_str();
        let worker = *of_base.entry(base).or_insert_with(|| common(view, experts, base, draw));
        let worker = worker.filter(|worker| worker.resident(expert).is_ok());
        places.push(worker.map(|worker| Arc::clone(&worker.url)));
    }
    places
}

fn common<'v>(view: &'v View, experts: &[Expert], base: &'v str, draw: u64) -> Option<&'v Arc<Worker>> {
    let held = |worker: &Worker| {
        experts.iter().filter(|expert| expert.model == base && worker.resident(expert).is_ok()).count()
    };
    let ranked: Vec<((bool, usize), &Arc<Worker>)> =
        view.workers_of(base).map(|worker| ((!is_full(worker), held(worker)), worker)).collect();
    let most = ranked.iter().map(|(rank, _)| *rank).max()?;
    let best: Vec<&Arc<Worker>> = ranked.iter().filter(|(rank, _)| *rank == most).map(|(_, worker)| *worker).collect();
    less_busy(&best, None, draw)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::view::fixtures;

    fn places(view: &View, names: &[&str]) -> Vec<String> {
        let experts: Vec<Expert> =
            names.iter().map(|name| view.index.expert(name).expect("an expert").clone()).collect();
        let places = workers(view, &experts, 7);
        places.into_iter().map(|place| place.map_or_else(String::new, |url| url.to_string())).collect()
    }

    #[test]
    fn experts_meet_where_most_of_them_are() {
        let view = fixtures::view(vec![
            fixtures::worker("http://a", Some(fixtures::state(&["banking"]))),
            fixtures::worker("http://b", Some(fixtures::state(&["banking", "travel"]))),
            fixtures::worker("http://c", Some(fixtures::state(&[]))),
        ]);
        assert_eq!(places(&view, &["banking", "travel", "smol"]), ["http://b"; 3]);
        // A full worker is no place to meet.
        let full = view.workers_of("smol").find(|worker| &*worker.url == "http://b").expect("a worker");
        full.open.store(8, Ordering::Relaxed);
        assert_eq!(places(&view, &["banking", "travel", "smol"]), ["http://a", "", "http://a"]);
    }

    #[test]
    fn nobody_meets_nowhere() {
        let view = fixtures::view(vec![fixtures::worker("http://a", None)]);
        assert_eq!(places(&view, &["banking", "smol"]), ["", ""]);
    }
}
