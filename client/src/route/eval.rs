//! `slm route eval`: how often a route is right.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use slm_head::{Answer, Data, Report};
use slm_proto::{
    trailers,
    v1::{CandidateOutcome, Decision, GenerateRequest, Message, Messages, generate_request::Input},
};
use tokio::task::JoinSet;
use tonic::Status;

use crate::{
    connection::{Client, ServerArgs, refused},
    swarm::SwarmArgs,
};
use slm_console::{
    exit::{self, Failure},
    output,
};

/// Requests at a time.
const AT_ONCE: usize = 8;
/// Mistakes that are listed.
const SHOWN: usize = 10;

/// Prints how often a route is right about labelled texts.
///
/// Each text is decided as a request is, and nothing is generated. A text without a label is out of scope; a route says so by its
/// classifier or its similarity, or by its fallback if it has rules only. Texts that could not be scored are counted apart.
#[derive(Args, Debug)]
#[command(after_help = "The data are those of `slm route train`.\n\nExamples:\n  \
    slm route eval assistant --data held-out.jsonl -f swarm --plot calibration.png\n  \
    slm route eval assistant --data held-out.csv --out-of-scope-share 0.18 --json")]
pub struct EvalArgs {
    /// Name of the SwarmRoute.
    route: String,
    /// File with the texts.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Draw the calibration of the probabilities into this PNG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Share of texts out of scope where the route is used, for the precision [default: that of the data].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    out_of_scope_share: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    swarm: SwarmArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Runs it.
pub(super) async fn execute(args: EvalArgs) -> Result<(), Failure> {
    let file = args.data.clone();
    let data = exit::blocking(move || Data::read(&file).map_err(Failure::usage)).await?;
    args.swarm.ask(async |server| eval(server, &args, &data).await).await
}

async fn eval(server: &ServerArgs, args: &EvalArgs, data: &Data) -> Result<(), Failure> {
    let client = Client::connect(server).await?;
    let bar = ProgressBar::new(data.texts.len() as u64);
    let mut texts = data.texts.iter();
    let mut open = JoinSet::new();
    let mut answers = Vec::with_capacity(data.texts.len());
    loop {
        while open.len() < AT_ONCE
            && let Some(text) = texts.next()
        {
            let expected = text.label.and_then(|label| data.labels.get(label)).map(|label| label.expert.clone());
            open.spawn(answer(client.clone(), args.route.clone(), text.text.clone(), expected));
        }
        let Some(done) = open.join_next().await else { break };
        answers.push(done.map_err(Failure::failed)??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = Report::of(&answers);
    if let Some(plot) = &args.plot {
        report.plot(plot).map_err(|error| Failure::failed(format!("--plot {}: {error}", plot.display())))?;
    }
    if args.json { show_json(args, &report) } else { show(args, &report) }
}

async fn answer(mut client: Client, route: String, text: String, expected: Option<String>) -> Result<Answer, Failure> {
    let message = Message { role: "user".to_owned(), content: text, ..Message::default() };
    let request = GenerateRequest {
        model: route,
        input: Some(Input::Messages(Messages { messages: vec![message] })),
        explain: true,
        ..GenerateRequest::default()
    };
    match client.swarm.explain(request).await {
        Ok(decision) => {
            let decision = decision.into_inner();
            let given = chosen(&decision);
            let scored = decision.classified.is_some() || decision.similarity.is_some();
            let confidence = decision.classified.filter(|_| given.is_some()).map(|classified| classified.probability);
            Ok(Answer { expected, given, confidence, scored, reason: decision.reason })
        }
        Err(status) if is_out_of_scope(&status) => {
            let reason = status.message().to_owned();
            Ok(Answer { expected, given: None, confidence: None, scored: true, reason })
        }
        Err(status) => Err(refused(&status)),
    }
}

/// The expert that something chose; `None` where nothing did and the route says what happens then.
fn chosen(decision: &Decision) -> Option<String> {
    let chosen = decision.candidates.iter().find(|candidate| candidate.outcome() == CandidateOutcome::Chosen);
    if chosen.is_some_and(|candidate| ["fallback", "out of scope"].contains(&candidate.rule.as_str())) {
        return None;
    }
    decision.chosen.as_ref().map(|expert| expert.name.clone())
}

fn is_out_of_scope(status: &Status) -> bool {
    status.metadata().get(trailers::ERROR_CODE).is_some_and(|code| code == trailers::OUT_OF_SCOPE)
}

fn show(args: &EvalArgs, report: &Report) -> Result<(), Failure> {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let Report { in_scope, right, false_rejections, out_of_scope, found, confusion, .. } = report;
    output::line(&format!("right expert          {:>7}  {right} of {in_scope}", percent(report.accuracy())))?;
    let rejected = percent(report.false_rejection_rate());
    output::line(&format!("falsely out of scope  {rejected:>7}  {false_rejections} of {in_scope}"))?;
    if *out_of_scope > 0 {
        output::line(&format!("out of scope found    {:>7}  {found} of {out_of_scope}", percent(report.recall())))?;
        let mix = args.out_of_scope_share.map_or_else(
            || "in the mix of the data".to_owned(),
            |share| format!("where {} of texts are out of scope", percent(share)),
        );
        output::line(&format!(
            "precision of that     {:>7}  {mix}",
            percent(report.precision(args.out_of_scope_share))
        ))?;
    }
    if let Some(error) = report.calibration_error() {
        output::line(&format!("calibration error     {:>7}  of the chosen experts' probabilities", percent(error)))?;
    }
    if let Some(reason) = &report.undecided_reason {
        output::line(&format!(
            "not decided           {:>9}  not counted above; the first: {reason}",
            report.undecided
        ))?;
    }
    output::text(&format!("\nexpected in lines, chosen in columns:\n{confusion}"))?;
    let mistakes = confusion.mistakes();
    if !mistakes.is_empty() {
        output::line("\nmost frequent mistakes:")?;
    }
    let name = |expert: Option<&str>| expert.unwrap_or("(out of scope)").to_owned();
    mistakes.into_iter().take(SHOWN).try_for_each(|(expected, given, count)| {
        output::line(&format!("{count:>5}  {} taken for {}", name(expected), name(given)))
    })
}

fn show_json(args: &EvalArgs, report: &Report) -> Result<(), Failure> {
    let mistakes = report.confusion.mistakes();
    let mistakes: Vec<_> = mistakes
        .into_iter()
        .map(|(expected, given, count)| json!({ "expected": expected, "given": given, "texts": count }))
        .collect();
    output::json(&json!({
        "route": args.route,
        "in_scope": report.in_scope,
        "right": report.right,
        "accuracy": report.accuracy(),
        "false_rejections": report.false_rejections,
        "false_rejection_rate": report.false_rejection_rate(),
        "out_of_scope": report.out_of_scope,
        "found": report.found,
        "recall": report.recall(),
        "precision": report.precision(args.out_of_scope_share),
        "calibration_error": report.calibration_error(),
        "undecided": report.undecided,
        "undecided_reason": report.undecided_reason,
        "mistakes": mistakes,
    }))
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::{Candidate, Expert};

    use super::*;

    #[test]
    fn a_fallback_is_no_choice() {
        let decision = |rule: &str| Decision {
            chosen: Some(Expert { name: "banking".to_owned(), ..Expert::default() }),
            candidates: vec![Candidate {
                rule: rule.to_owned(),
                outcome: CandidateOutcome::Chosen.into(),
                ..Candidate::default()
            }],
            ..Decision::default()
        };
        assert_eq!(chosen(&decision("classifier")).as_deref(), Some("banking"));
        assert_eq!(chosen(&decision("fallback")), None);
        assert_eq!(chosen(&decision("out of scope")), None);
        assert_eq!(chosen(&Decision::default()), None, "a message of the route");
    }
}
