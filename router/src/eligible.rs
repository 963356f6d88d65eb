//! Eligibility: the workers that have an expert loaded and take requests.

use std::sync::Arc;

use crate::{
    absence::Absence,
    decide::{Decided, unavailable},
    view::Worker,
};

/// Workers on which this request has failed.
#[derive(Debug, Default)]
pub(crate) struct ExcludedWorkers(Vec<(Arc<str>, Exclusion)>);

/// The time for which a worker that failed is not eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exclusion {
    /// Until a state later than this one: it has spoken again.
    UntilNextState(u64),
    /// For the rest of the request.
    Always,
}

/// A request whose expert is loaded on every worker named here, or nowhere.
#[derive(Debug)]
pub(crate) struct Eligible<'v> {
    pub(crate) decided: Decided<'v>,
    pub(crate) workers: Vec<&'v Arc<Worker>>,
    /// Reason for an empty list.
    pub(crate) why_none: Option<Absence>,
}

impl Eligible<'_> {
    /// Only the worker at `url`, if it is one of them.
    pub(crate) fn beside(mut self, url: Option<&str>) -> Self {
        if let Some(worker) = self.workers.iter().find(|worker| Some(&*worker.url) == url) {
            self.workers = vec![*worker];
        }
        self
    }
}

impl ExcludedWorkers {
    /// Excludes a worker until its next state.
    pub(crate) fn push(&mut self, worker: &Worker) {
        self.0.push((Arc::clone(&worker.url), Exclusion::UntilNextState(worker.seen)));
    }

    /// Excludes a worker for the rest of the request.
    pub(crate) fn exclude(&mut self, worker: &Worker) {
        self.0.push((Arc::clone(&worker.url), Exclusion::Always));
    }

    fn contains(&self, worker: &Worker) -> bool {
        let excluded =
            |exclusion| exclusion == Exclusion::Always || exclusion == Exclusion::UntilNextState(worker.seen);
        self.0.iter().any(|(url, exclusion)| *url == worker.url && excluded(*exclusion))
    }
}

impl<'v> Decided<'v> {
    pub(crate) fn eligible(self, tried: &ExcludedWorkers) -> Eligible<'v> {
        let view = self.view;
        let why = unavailable(view, &self.expert, self.policy);
        let has_it = |worker: &&Arc<Worker>| worker.resident(&self.expert).is_ok() && !tried.contains(worker);
        let workers: Vec<&'v Arc<Worker>> = match why {
            None => view.holders(&self.expert).filter(has_it).collect(),
            Some(_) => Vec::new(),
        };
        let why_none = workers.is_empty().then(|| why.unwrap_or(Absence::Failed));
        Eligible { decided: self, workers, why_none }
    }
}

#[cfg(test)]
mod tests {
    use slm_crds::route::DataPolicy;
    use slm_proto::v1::{AdapterPhase, GenerateRequest, WorkerState};

    use super::*;
    use crate::{access::table::Caller, decide::Verdict, resolve::resolve, view::fixtures};

    fn eligible(
        name: &str,
        a: Option<WorkerState>,
        b: Option<WorkerState>,
        tried: &ExcludedWorkers,
    ) -> (Vec<String>, String) {
        let view = fixtures::view(vec![fixtures::worker("http://a", a), fixtures::worker("http://b", b)]);
        let verdict = resolve(&view, name, &Caller::anybody()).expect(name).decide(
            &GenerateRequest::default(),
            None,
            DataPolicy::LocalOnly,
        );
        let Verdict::Ask(decided) = verdict else { panic!("an expert") };
        let eligible = decided.eligible(tried);
        let why_none = eligible.why_none.map(|why| why.to_string()).unwrap_or_default();
        (eligible.workers.iter().map(|worker| worker.url.to_string()).collect(), why_none)
    }

    #[test]
    #[allow(clippy::type_complexity)] // A table.
    fn only_what_a_worker_says_counts() {
        let with = || Some(fixtures::state(&["banking"]));
        let without = || Some(fixtures::state(&[]));
        let changed = |change: fn(&mut WorkerState)| {
            let mut state = fixtures::state(&["banking"]);
            change(&mut state);
            Some(state)
        };
        let retiring = || changed(|state| state.adapters[0].set_phase(AdapterPhase::Retiring));
        let draining = || changed(|state| state.draining = true);
        let other = || changed(|state| state.model = "other".to_owned());
        let cases: [(&str, Option<WorkerState>, Option<WorkerState>, &[&str], &str); 7] = [
            ("smol", without(), with(), &["http://a", "http://b"], ""),
            ("banking", without(), with(), &["http://b"], ""),
            ("banking", retiring(), without(), &[], "worker http://a has not loaded banking"),
            ("banking", draining(), with(), &["http://b"], ""),
            ("smol", draining(), None, &[], "worker http://a is draining"),
            ("smol", None, None, &[], "worker http://a is not connected: connection refused"),
            ("banking", other(), None, &[], "worker http://a serves other, not smol"),
        ];
        for (name, a, b, workers, why) in cases {
            let found = eligible(name, a, b, &ExcludedWorkers::default());
            assert_eq!(found, (workers.iter().map(|url| (*url).to_owned()).collect(), why.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_worker_that_failed_is_passed_over_until_it_speaks_again() {
        let state = |sequence| Some(WorkerState { sequence, ..fixtures::state(&[]) });
        let mut tried = ExcludedWorkers::default();
        tried.push(&fixtures::worker("http://a", state(1)));
        assert_eq!(eligible("smol", state(1), state(1), &tried).0, ["http://b"]);
        assert_eq!(eligible("smol", state(2), state(1), &tried).0, ["http://a", "http://b"]);
        tried.push(&fixtures::worker("http://b", state(1)));
        assert_eq!(eligible("smol", state(1), state(1), &tried).1, "every worker that holds it has failed");
        tried.exclude(&fixtures::worker("http://b", state(1)));
        assert_eq!(eligible("smol", state(2), state(2), &tried).0, ["http://a"]);
    }
}
