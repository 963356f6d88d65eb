//! `slm explain`: the routing decision for a prompt, with its reasons.

use std::fmt::Write as _;

use clap::Args;
use slm_proto::{
    json,
    v1::{Candidate, CandidateOutcome, Decision},
};

use crate::connection::{Client, PromptArgs, ServerArgs, refused};
use slm_console::{
    exit::Failure,
    output::{self, short_digest},
    style::{self, styled},
};

/// Says which expert would answer a prompt now, and why, without generating anything.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  slm explain assistant \"book me a flight to oslo\"\n  \
    slm explain assistant \"hello\" --metadata tenant=acme --json")]
pub struct ExplainArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// Print the decision as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs it.
pub async fn execute(args: ExplainArgs) -> Result<(), Failure> {
    let mut request = args.prompt.request()?;
    request.explain = true;
    let mut client = Client::connect(&args.server).await?;
    let decision = client.swarm.explain(request).await.map_err(|status| refused(&status))?.into_inner();
    if args.json { output::json(&json::decision(&decision)) } else { output::text(&words(&decision)) }
}

/// A decision for people.
pub fn words(decision: &Decision) -> String {
    let mut text = String::new();
    let chosen = decision.chosen.clone().unwrap_or_default();
    let model = if chosen.model.is_empty() || chosen.model == chosen.name {
        String::new()
    } else {
        format!(" on {}", chosen.model)
    };
    let is_asked = |candidate: &Candidate| candidate.outcome() == CandidateOutcome::Asked;
    let answers = match &decision.chosen {
        None if decision.candidates.iter().any(is_asked) => styled(style::HEAD, "one of several experts"),
        Some(_) => format!("{} ({}{model})", styled(style::HEAD, &chosen.name), json::kind(chosen.kind())),
        None => styled(style::HEAD, "the route's own message"),
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "{} -> {answers}", decision.requested);
    let _ = writeln!(text, "  because  {}", decision.reason);
    if !decision.worker.is_empty() {
        let _ = writeln!(text, "  worker   {}", decision.worker);
    }
    if !chosen.digest.is_empty() {
        let _ = writeln!(text, "  digest   {}", short_digest(&chosen.digest));
    }
    for candidate in &decision.candidates {
        let _ = writeln!(text, "  {}", candidate_words(candidate));
    }
    text
}

fn candidate_words(candidate: &Candidate) -> String {
    let expert = candidate.expert.clone().unwrap_or_default();
    let (mark, colour) = match candidate.outcome() {
        CandidateOutcome::Chosen => ("chosen  ", style::GOOD),
        CandidateOutcome::Asked => ("asked   ", style::GOOD),
        CandidateOutcome::RuleError | CandidateOutcome::NotResident => ("not     ", style::WARN),
        _ => ("not     ", style::DIM),
    };
    let why_not = if candidate.why_not.is_empty() { String::new() } else { format!(": {}", candidate.why_not) };
    let score = candidate.score.map(|score| format!(" {score:.2}")).unwrap_or_default();
    format!("{} {} by {}{score}{why_not}", styled(colour, mark), expert.name, shortened(&candidate.rule))
}

/// The beginning of a rule is enough to know it by.
fn shortened(rule: &str) -> String {
    const MOST: usize = 60;
    if rule.chars().count() <= MOST {
        return rule.to_owned();
    }
    let beginning: String = rule.chars().take(MOST).collect();
    format!("{beginning}…")
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{Expert, ExpertKind};

    use super::*;

    #[test]
    fn several_experts_in_words() {
        let candidate = |name: &str, rule: &str, outcome: CandidateOutcome, why_not: &str| Candidate {
            expert: Some(Expert { name: name.to_owned(), ..Default::default() }),
            rule: rule.to_owned(),
            outcome: outcome.into(),
            why_not: why_not.to_owned(),
            score: None,
        };
        let decision = Decision {
            requested: "team".to_owned(),
            reason: "no rule matched: ensemble of 2".to_owned(),
            candidates: vec![
                candidate("banking", "ensemble", CandidateOutcome::Asked, ""),
                candidate("travel", "ensemble", CandidateOutcome::NotResident, "not loaded"),
            ],
            ..Default::default()
        };
        let text = anstream::adapter::strip_str(&words(&decision)).to_string();
        assert_eq!(
            text,
            "team -> one of several experts\n  because  no rule matched: ensemble of 2\n  asked    banking by \
             ensemble\n  not      travel by ensemble: not loaded\n"
        );
    }

    #[test]
    fn a_decision_in_words() {
        let expert = Expert {
            kind: ExpertKind::LoraAdapter.into(),
            name: "banking".to_owned(),
            model: "smollm2".to_owned(),
            digest: "sha256:0123456789abcdef".to_owned(),
        };
        let decision = Decision {
            requested: "assistant".to_owned(),
            route: "assistant".to_owned(),
            chosen: Some(expert),
            reason: "rule 1 matched: text.matches(\"bank\")".to_owned(),
            ..Default::default()
        };
        let text = anstream::adapter::strip_str(&words(&decision)).to_string();
        assert_eq!(
            text,
            "assistant -> banking (LoraAdapter on smollm2)\n  because  rule 1 matched: text.matches(\"bank\")\n  \
             digest   0123456789ab\n"
        );
    }
}
