//! Classification of a request by its route, once for each request, however often it is decided while it waits: by the route's
//! rules; when none of them is true by its classifier; and when that does not accept the text by the similarity to examples (`scores`).
//!
//! Rules are evaluated off the connection's thread: on a blocking thread, as many at a time as there are cores, and where they are
//! expensive again from the start on a background thread, callers in turn. `slm_crds::rule::Budget` bounds their cost,
//! whatever the request.

use std::{collections::HashMap, sync::Arc};

use slm_crds::rule::{Budget, Facts, RuleError, Turn};
use slm_pool::FairPool;
use slm_proto::v1::{GenerateRequest, generate_request::Input};
use tokio::sync::Semaphore;

use crate::{
    access::table::Caller,
    route::Route,
    scores::{Classifiers, Comparer, Labelled, Scope, ScoreError, Similar},
    view::{Entry, View},
};

/// Outcomes of a route for one request. Kept for as long as the route is the same.
#[derive(Debug)]
pub(crate) struct Outcomes {
    route: Arc<Route>,
    pub(crate) rules: Vec<Result<bool, RuleError>>,
    /// Of a route with a classifier, unless its rules have decided.
    pub(crate) labelled: Option<Result<Labelled, ScoreError>>,
    /// Of a route with a similarity, unless its rules or its classifier have decided.
    pub(crate) similar: Option<Result<Similar, ScoreError>>,
}

/// Operations of rules that are cheap, a hundredth of the whole budget.
const CHEAP: u64 = 10_000;

/// The evaluator of rules and scores.
pub(crate) struct Classifier {
    permits: Arc<Semaphore>,
    expensive: FairPool,
    classifiers: Classifiers,
    comparer: Comparer,
}

impl Classifier {
    /// A classifier that evaluates expensive rules in that pool.
    pub(crate) fn new(expensive: FairPool, classifiers: Classifiers, comparer: Comparer) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { permits: Arc::new(Semaphore::new(cores)), expensive, classifiers, comparer }
    }

    /// Makes `outcomes` those of the route that `request` names in `view`, if it names one.
    pub(crate) async fn classify(
        &self,
        view: &View,
        request: &GenerateRequest,
        caller: &Caller,
        outcomes: &mut Option<Outcomes>,
    ) {
        let Some(Entry::Route(route)) = view.index.names.get(&request.model) else { return };
        if outcomes.as_ref().is_some_and(|known| Arc::ptr_eq(&known.route, route)) {
            return;
        }
        let mut found = if route.rules.is_empty() {
            evaluate(route, &facts(request), Budget::new(CHEAP))
        } else {
            self.run(route, request, caller).await
        };
        if let Some(classifier) = route.classifier().filter(|_| !found.decides()) {
            let labelled = self.classifiers.label(&route.name, classifier, text(request), caller.tenant());
            found.labelled = Some(labelled.await);
        }
        if let Some(similarity) = route.similarity().filter(|_| !found.decides()) {
            let compared = self.comparer.compare(route, &similarity.encoder, text(request), caller.tenant());
            found.similar = Some(compared.await);
        }
        *outcomes = Some(found);
    }

    async fn run(&self, route: &Arc<Route>, request: &GenerateRequest, caller: &Caller) -> Outcomes {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (shared, facts) = (Arc::clone(route), Arc::new(facts(request)));
        let (of_cheap, of_expensive) = (Arc::clone(&facts), (Arc::clone(route), facts));
        let cheap = tokio::task::spawn_blocking(move || {
            let outcomes = evaluate(&shared, &of_cheap, Budget::new(CHEAP));
            drop(permit);
            outcomes
        });
        match cheap.await {
            Err(error) => failed(route, &error),
            Ok(outcomes) if outcomes.rules.contains(&Err(RuleError::Cost)) => {
                let (route, facts) = of_expensive;
                let shared = Arc::clone(&route);
                let all = move || evaluate(&shared, &facts, Budget::default());
                self.expensive.run(&caller.tenant().into(), all).await.unwrap_or_else(|error| failed(&route, &error))
            }
            Ok(outcomes) => outcomes,
        }
    }
}

impl Outcomes {
    fn of_rules(route: &Arc<Route>, rules: Vec<Result<bool, RuleError>>) -> Self {
        Self { route: Arc::clone(route), rules, labelled: None, similar: None }
    }

    /// Whether what is there decides.
    fn decides(&self) -> bool {
        let rejects = self.route.rejects_on_error();
        let labelled = match &self.labelled {
            Some(Ok(labelled)) => labelled.scope == Scope::In,
            Some(Err(_)) => rejects,
            None => false,
        };
        labelled || self.rules.iter().any(|rule| *rule == Ok(true) || rule.is_err() && rejects)
    }
}

fn failed(route: &Arc<Route>, error: &dyn std::fmt::Display) -> Outcomes {
    tracing::error!(route = route.name, %error, "the evaluation of the rules failed");
    let failed = RuleError::Evaluation("internal error of the router; its log says more".to_owned());
    Outcomes::of_rules(route, vec![Err(failed); route.rules.len()])
}

/// All rules share one budget: a rule that spends it leaves nothing to those after it.
pub(crate) fn evaluate(route: &Arc<Route>, facts: &Facts, mut budget: Budget) -> Outcomes {
    let rules = route.rules.iter().map(|compiled| match &compiled.rule {
        Ok(rule) => rule.holds(facts, &mut budget),
        Err(error) => Err(error.clone()),
    });
    Outcomes::of_rules(route, rules.collect())
}

/// The facts of a request, as rules see them.
pub(crate) fn facts(request: &GenerateRequest) -> Facts {
    let metadata: &HashMap<String, String> = &request.metadata;
    let messages = match &request.input {
        Some(Input::Messages(messages)) => &messages.messages[..],
        _ => &[],
    };
    let turns = messages.iter().map(|message| Turn { role: &message.role, content: &message.content });
    Facts::new(&request.model, text(request), turns, metadata)
}

/// The last message of a user, or the prompt; empty for token ids.
pub(crate) fn text(request: &GenerateRequest) -> &str {
    match &request.input {
        Some(Input::Messages(messages)) => {
            let last = messages.messages.iter().rev().find(|message| message.role == "user");
            last.map_or("", |message| &message.content)
        }
        Some(Input::Prompt(prompt)) => prompt,
        Some(Input::TokenIds(_)) | None => "",
    }
}

#[cfg(test)]
mod tests {
    use slm_crds::rule::Rule;
    use slm_pool::Priority;

    use tokio::sync::watch;

    use super::*;
    use crate::{
        fleet::Channels,
        metrics::Metrics,
        scores::{Kept, Readers},
        view::{Index, fixtures},
    };

    #[test]
    fn text_is_the_last_user_message() {
        let messages = ["system", "user", "assistant"].map(|role| slm_proto::v1::Message {
            role: role.to_owned(),
            content: format!("{role} account"),
            ..Default::default()
        });
        let request = GenerateRequest {
            input: Some(Input::Messages(slm_proto::v1::Messages { messages: messages.into() })),
            ..Default::default()
        };
        let rule = Rule::compile("text == 'user account' && size(messages) == 3").expect("compiles");
        assert_eq!(rule.holds(&facts(&request), &mut Budget::default()), Ok(true));
    }

    #[tokio::test]
    async fn rules_are_evaluated_once_for_each_version_of_their_route() {
        let view = fixtures::view(vec![]);
        let request = GenerateRequest {
            model: "assistant".to_owned(),
            input: Some(Input::Prompt("my card".to_owned())),
            ..Default::default()
        };
        let readers = Readers::new(watch::channel(Arc::default()).1, Channels::default());
        let metrics = Arc::new(Metrics::new());
        let comparer = Comparer::new(readers.clone(), Kept::default(), Arc::clone(&metrics));
        let classifiers = Classifiers::new(readers, Kept::default(), metrics);
        let classifier = Classifier::new(FairPool::new("test", Priority::Background, 1), classifiers, comparer);
        let mut outcomes = None;
        classifier.classify(&view, &request, &Caller::anybody(), &mut outcomes).await;
        let first = outcomes.as_ref().expect("a route").rules.as_ptr();
        // Another snapshot with the same route, then one where the route differs.
        let same = View {
            index: Arc::new(Index::new(Arc::new(fixtures::swarm()), &view.index)),
            workers: vec![],
            egress: vec![],
        };
        classifier.classify(&same, &request, &Caller::anybody(), &mut outcomes).await;
        assert_eq!(outcomes.as_ref().expect("a route").rules.as_ptr(), first);
        let mut swarm = fixtures::swarm();
        swarm.routes[0].spec.rules.truncate(1);
        let other = View { index: Arc::new(Index::new(Arc::new(swarm), &view.index)), workers: vec![], egress: vec![] };
        classifier.classify(&other, &request, &Caller::anybody(), &mut outcomes).await;
        assert_eq!(outcomes.expect("a route").rules, [Ok(true)]);
    }

    #[test]
    fn a_rule_that_spends_the_budget_leaves_nothing_to_the_next() {
        let mut swarm = fixtures::swarm();
        let rules = &mut swarm.routes[0].spec.rules;
        rules[0].when = "metadata.exists(a, metadata.exists(b, a + b == 'no'))".to_owned();
        rules[1].when = "true".to_owned();
        let index = Index::new(Arc::new(swarm), &Index::default());
        let Some(Entry::Route(route)) = index.names.get("assistant") else { panic!("a route") };
        let request = GenerateRequest {
            metadata: (0..10_000).map(|key| (key.to_string(), String::new())).collect(),
            ..Default::default()
        };
        let outcomes = evaluate(route, &facts(&request), Budget::default());
        assert_eq!(outcomes.rules, [Err(RuleError::Cost), Err(RuleError::Cost)]);
    }
}
