//! Experts and decisions as JSON, for the HTTP APIs and for `slm explain --json`.

use serde_json::{Value, json};

use crate::v1::{Candidate, Citation, Classified, Decision, Expert, ExpertKind, Retrieval, Similarity};

/// The name of a kind of expert.
#[must_use]
pub fn kind(kind: ExpertKind) -> &'static str {
    match kind {
        ExpertKind::SlmModel => "SlmModel",
        ExpertKind::LoraAdapter => "LoraAdapter",
        ExpertKind::ExternalModel => "ExternalModel",
        ExpertKind::Unspecified => "",
    }
}

/// An expert.
#[must_use]
pub fn expert(expert: &Expert) -> Value {
    json!({ "kind": kind(expert.kind()), "name": expert.name, "model": expert.model, "digest": expert.digest })
}

/// A decision, in the words of the protocol; outcomes and scopes in lower case.
#[must_use]
pub fn decision(decision: &Decision) -> Value {
    json!({
        "requested": decision.requested,
        "route": decision.route,
        "chosen": decision.chosen.as_ref().map(expert),
        "reason": decision.reason,
        "worker": decision.worker,
        "candidates": decision.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "classified": decision.classified.as_ref().map(classified),
        "similarity": decision.similarity.as_ref().map(similarity),
    })
}

/// What a route put into a conversation.
#[must_use]
pub fn retrieval(retrieval: &Retrieval) -> Value {
    let citation = |Citation { number, id, source, score }: &Citation| json!({ "number": number, "id": id, "source": source, "score": score });
    let error = Some(&retrieval.error).filter(|error| !error.is_empty());
    json!({ "citations": retrieval.citations.iter().map(citation).collect::<Vec<_>>(), "error": error })
}

fn candidate(candidate: &Candidate) -> Value {
    json!({
        "expert": candidate.expert.as_ref().map(expert),
        "rule": candidate.rule,
        "outcome": word(candidate.outcome().as_str_name(), "CANDIDATE_OUTCOME_"),
        "why_not": candidate.why_not,
        "score": candidate.score,
    })
}

fn classified(classified: &Classified) -> Value {
    json!({
        "scope": word(classified.scope().as_str_name(), "SCOPE_"),
        "label": classified.label,
        "probability": classified.probability,
        "typicality": classified.typicality,
        "accept": classified.accept,
        "out_of_scope": classified.out_of_scope,
    })
}

fn similarity(similarity: &Similarity) -> Value {
    json!({
        "scope": word(similarity.scope().as_str_name(), "SCOPE_"),
        "best": similarity.best,
        "accept": similarity.accept,
        "out_of_scope": similarity.out_of_scope,
    })
}

fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}
