//! Ensembles: several experts are asked at once, and one of their answers is given.
//!
//! Every answer is read to its end before anything goes to the caller, so that an answer is always that of one expert. An expert that
//! fails, or is too slow, is done without as long as enough of the others answer. Whose answer is not needed any more is
//! dropped, and with it its sequence on its worker.

mod combine;
mod judge;
mod place;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use slm_crds::{
    ensemble::{Combine, Ensemble},
    route::{Measure, Target, TargetKind},
};
use slm_proto::{
    trailers,
    v1::{
        Candidate, CandidateOutcome, Cost, Decision, GenerateRequest, ToolChoiceMode, Usage, generate_request::Input,
    },
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, metadata::MetadataValue};

use self::combine::{Ballot, Winner};
use crate::{
    boundary::Boundary,
    cascade::with_probabilities,
    decide::target,
    dispatch::{Call, Dispatcher, Reply, Wanted},
    metrics::Together as Outcome,
    normal::normalised,
    refusal::Refusal,
    retrieval::Retrieval,
    route::Route,
    started::StartedAnswer,
    view::View,
};

/// A request whose route asks several experts.
pub(crate) struct Together {
    pub(crate) view: Arc<View>,
    /// Why they are asked.
    pub(crate) decision: Box<Decision>,
}

/// What came of an expert.
enum Heard {
    Answer(Box<Answered>),
    Failed(Refusal),
    /// It was not waited for.
    Nothing,
}

/// An answer that was read to its end.
struct Answered {
    answer: StartedAnswer,
    text: String,
    ballot: Ballot,
}

/// A request on its way to several experts.
struct Asked<'r> {
    route: &'r Route,
    ensemble: &'r Ensemble,
    request: &'r GenerateRequest,
    call: &'r Call,
    deadline: Instant,
}

/// What was heard of the experts of an ensemble, in the order of listing.
struct Hearing {
    heard: Vec<Heard>,
    /// The time passed before all had been heard.
    late: bool,
}

impl Dispatcher {
    /// One answer of the experts of a route's ensemble.
    pub(crate) async fn together<B: Boundary>(
        &self,
        Together { view, decision }: Together,
        request: &GenerateRequest,
        call: &Call,
        deadline: Instant,
        boundary: B,
    ) -> Result<StartedAnswer, Refusal> {
        let mut decision = *decision;
        let route = view.index.route(&request.model).map(|route| (route, route.ensemble()));
        // The view is the one in which the route was found to have one.
        let Some((route, Some(ensemble))) = route else { return Err(Refusal::NoModel) };
        let asked = Asked { route, ensemble, request, call, deadline };
        asked.check()?;
        let mut hearing = self.hear(&view, &asked, boundary).await;
        let answered = hearing.answers().count();
        if answered < ensemble.minimum_answers as usize {
            self.metrics.together(&route.name, Outcome::too_few);
            return self.instead(&asked, hearing, decision, boundary).await;
        }
        let all = hearing.heard.iter().all(|heard| !matches!(heard, Heard::Failed(_))) && !hearing.late;
        self.metrics.together(&route.name, if all { Outcome::whole } else { Outcome::partial });
        let mut bill = Bill::default();
        hearing.answers().for_each(|(_, answer)| bill.add(&answer.answer));
        let (place, said) = self.choose(&asked, &hearing, &mut bill, boundary).await;
        decision.reason += &format!("; {answered} of {} answered, {said}", ensemble.experts.len());
        hearing.show(&mut decision, ensemble, place);
        let Some(Heard::Answer(mut winner)) =
            hearing.heard.get_mut(place).map(|it| std::mem::replace(it, Heard::Nothing))
        else {
            return Err(Refusal::Worker(Status::internal("no answer was chosen")));
        };
        winner.answer.bill(bill.usage, bill.cost);
        winner.answer.decide(if request.explain { decision } else { brief(decision) });
        Ok(winner.answer)
    }

    /// Asks all experts at once, until all have been heard, the time has passed, or nothing that may still come matters.
    async fn hear<B: Boundary>(&self, view: &View, asked: &Asked<'_>, boundary: B) -> Hearing {
        let experts = &asked.ensemble.experts;
        let known: Vec<_> = experts.iter().map(|expert| target(view, expert)).collect();
        let places = place::workers(view, &known, self.draws.draw());
        let asking = experts.iter().zip(&places).enumerate();
        let mut asking: FuturesUnordered<_> = asking
            .map(|(index, (expert, place))| async move {
                (index, self.ask(asked, expert, place.as_deref(), boundary).await)
            })
            .collect();
        let mut hearing = Hearing { heard: experts.iter().map(|_| Heard::Nothing).collect(), late: false };
        let until = asked.until();
        while !asking.is_empty() {
            match timeout_at(until, asking.next()).await {
                Ok(Some((index, Ok(answer)))) => hearing.heard[index] = Heard::Answer(Box::new(answer)),
                Ok(Some((index, Err(refusal)))) => {
                    let (route, expert, code) = (&asked.route.name, &experts[index].name, refusal.code());
                    tracing::info!(route, expert, ?code, "an expert of an ensemble did not answer");
                    hearing.heard[index] = Heard::Failed(refusal);
                }
                Ok(None) => break,
                Err(_) => {
                    hearing.late = true;
                    break;
                }
            }
            if asked.is_decided(&hearing, asking.len()) {
                break;
            }
        }
        hearing
    }

    /// The whole answer of one expert.
    async fn ask<B: Boundary>(
        &self,
        asked: &Asked<'_>,
        expert: &Target,
        beside: Option<&str>,
        boundary: B,
    ) -> Result<Answered, Refusal> {
        // A model outside may know no probabilities.
        let judged = (expert.kind != TargetKind::ExternalModel).then(|| with_probabilities(asked.request));
        let request = judged.as_ref().unwrap_or(asked.request);
        let wanted = Wanted { beside, ..Wanted::target(expert) };
        let Reply::Of(mut answer) = self.tried(request, asked.call, wanted, asked.deadline, boundary).await? else {
            return Err(Refusal::Worker(Status::internal("an expert was asked, and its route answered")));
        };
        let Some(confidence) = answer.read(self.limits.worker_idle).await.map_err(Refusal::Worker)? else {
            let long = "the answer is too long to be compared with others; ask for fewer tokens";
            return Err(Refusal::Worker(Status::out_of_range(long)));
        };
        let text = answer.text();
        let confidence = confidence.of(Measure::Mean);
        let ballot = Ballot { says: normalised(&text), confidence };
        Ok(Answered { answer, text, ballot })
    }

    /// The place of the answer that is given, and why it is.
    async fn choose<B: Boundary>(
        &self,
        asked: &Asked<'_>,
        hearing: &Hearing,
        bill: &mut Bill,
        boundary: B,
    ) -> (usize, String) {
        let ballots = hearing.ballots();
        let best = || {
            let place = combine::best(&ballots).map_or(0, |winner| winner.place);
            let confidence = ballots.get(place).and_then(Option::as_ref).map_or(0.0, |ballot| ballot.confidence);
            (place, format!("the most confident one with {confidence:.2}"))
        };
        match (asked.ensemble.combine, &asked.ensemble.judge) {
            (Combine::Vote, _) => {
                let Winner { place, votes } = combine::vote(&ballots).unwrap_or(Winner { place: 0, votes: 0 });
                (place, format!("{votes} of them the same"))
            }
            (Combine::Judge, Some(judge)) if !combine::is_unanimous(&ballots) => {
                match self.judged(asked, judge, hearing, bill, boundary).await {
                    Ok(place) => (place, format!("chosen by {}", judge.name)),
                    Err(why) => {
                        let (route, judge) = (&asked.route.name, &judge.name);
                        self.metrics.together(route, Outcome::judge_failed);
                        tracing::info!(route, judge, code = ?why.code(), "the judge of an ensemble did not choose");
                        let (place, said) = best();
                        (place, format!("{said}, for {judge} did not choose: {why}"))
                    }
                }
            }
            (Combine::Judge, Some(_)) => {
                let (place, _) = best();
                (place, "all of them the same: there was nothing to judge".to_owned())
            }
            (Combine::Best | Combine::Judge, _) => best(),
        }
    }

    /// The place of the answer that the judge has chosen.
    async fn judged<B: Boundary>(
        &self,
        asked: &Asked<'_>,
        judge: &Target,
        hearing: &Hearing,
        bill: &mut Bill,
        boundary: B,
    ) -> Result<usize, Refusal> {
        let shown: Vec<(usize, &Answered)> = hearing.answers().collect();
        let texts: Vec<&str> = shown.iter().map(|(_, answer)| answer.text.as_str()).collect();
        let request = judge::request(asked.request, &texts);
        // It judges what callers see: the question, without the passages.
        let call = &Call { caller: asked.call.caller.clone(), retrieval: Retrieval::default(), ..*asked.call };
        let word = async {
            let wanted = Wanted::target(judge);
            match self.tried(&request, call, wanted, asked.deadline, boundary).await? {
                Reply::Of(mut answer) => {
                    answer.read(self.limits.worker_idle).await.map_err(Refusal::Worker)?;
                    Ok(answer)
                }
                _ => Err(Refusal::Worker(Status::internal("a judge was asked, and its route answered"))),
            }
        };
        let answer = timeout_at(asked.until(), word).await.unwrap_or(Err(Refusal::DeadlineExceeded))?;
        bill.add(&answer);
        let choice = judge::choice(&answer.text(), shown.len()).and_then(|choice| shown.get(choice));
        choice
            .map(|(place, _)| *place)
            .ok_or_else(|| Refusal::Worker(Status::internal(format!("it gave no number from 1 to {}", shown.len()))))
    }

    /// What the caller gets when too few experts have answered: the fallback's answer, or the reason.
    async fn instead<B: Boundary>(
        &self,
        asked: &Asked<'_>,
        mut hearing: Hearing,
        mut decision: Decision,
        boundary: B,
    ) -> Result<StartedAnswer, Refusal> {
        let refusal = hearing.refusal(asked);
        let fallback = asked.route.fallback();
        let place = asked.ensemble.experts.iter().position(|expert| expert.name == fallback.name);
        let mut bill = Bill::default();
        hearing.answers().for_each(|(_, answer)| bill.add(&answer.answer));
        if asked.route.rejects_on_error() || hearing.late {
            return Err(refusal);
        }
        let mut answer = match place.and_then(|place| hearing.heard.get_mut(place)) {
            Some(heard) => match std::mem::replace(heard, Heard::Nothing) {
                Heard::Answer(mut answered) => {
                    answered.answer.bill(bill.usage, bill.cost);
                    answered.answer
                }
                // It has failed just now.
                Heard::Failed(_) | Heard::Nothing => return Err(refusal),
            },
            None => {
                let wanted = Wanted::target(fallback);
                match self.tried(asked.request, asked.call, wanted, asked.deadline, boundary).await {
                    Ok(Reply::Of(answer)) => answer,
                    Ok(_) | Err(_) => return Err(refusal),
                }
            }
        };
        decision.reason += &format!(", but {refusal}: fallback");
        hearing.show(&mut decision, asked.ensemble, usize::MAX);
        let is_fallback = |candidate: &&mut Candidate| candidate.rule == "fallback";
        if let Some(candidate) = decision.candidates.iter_mut().find(is_fallback) {
            (candidate.outcome, candidate.why_not) = (CandidateOutcome::Chosen.into(), String::new());
        }
        answer.decide(if asked.request.explain { decision } else { brief(decision) });
        Ok(answer)
    }
}

/// A decision for callers that did not ask for an explanation.
fn brief(decision: Decision) -> Decision {
    Decision { reason: String::new(), ..decision }
}

impl Asked<'_> {
    /// What cannot be asked of several experts is refused by name.
    fn check(&self) -> Result<(), Refusal> {
        let route = &self.route.name;
        let none = self.request.tool_choice.as_ref().is_some_and(|choice| choice.mode() == ToolChoiceMode::None);
        if !self.request.tools.is_empty() && !none {
            return Err(refused(
                "tools",
                &format!(
                    "tools cannot be called by the experts of the route `{route}`: their texts are compared; leave them out, or name one expert"
                ),
            ));
        }
        if self.ensemble.combine == Combine::Judge && matches!(self.request.input, Some(Input::TokenIds(_))) {
            return Err(refused(
                "token_ids",
                &format!(
                    "token_ids cannot be shown to the judge of the route `{route}`; send a text, or name one expert"
                ),
            ));
        }
        Ok(())
    }

    /// Until when is waited from now on: for what the manifest says, and of a deadline of the caller's own for nine tenths of what is left,
    /// so that there is time to give what has come.
    fn until(&self) -> Instant {
        let now = Instant::now();
        let own = now + Duration::from_millis(self.ensemble.timeout_milliseconds.into());
        own.min(now + self.deadline.saturating_duration_since(now).mul_f64(0.9))
    }

    /// Whether nothing that `missing` experts may still say matters.
    fn is_decided(&self, hearing: &Hearing, missing: usize) -> bool {
        let enough = hearing.answers().count() >= self.ensemble.minimum_answers as usize;
        enough && self.ensemble.combine == Combine::Vote && combine::is_decided(&hearing.ballots(), missing)
    }
}

/// A refusal that names the field.
fn refused(field: &'static str, message: &str) -> Refusal {
    let mut status = Status::invalid_argument(message);
    status.metadata_mut().insert(trailers::ERROR_FIELD, MetadataValue::from_static(field));
    Refusal::Worker(status)
}

impl Hearing {
    /// What was answered, and by the expert of which place.
    fn answers(&self) -> impl Iterator<Item = (usize, &Answered)> {
        self.heard.iter().enumerate().filter_map(|(place, heard)| match heard {
            Heard::Answer(answer) => Some((place, answer.as_ref())),
            Heard::Failed(_) | Heard::Nothing => None,
        })
    }

    fn ballots(&self) -> Vec<Option<Ballot>> {
        let ballot = |heard: &Heard| match heard {
            Heard::Answer(answer) => Some(answer.ballot.clone()),
            Heard::Failed(_) | Heard::Nothing => None,
        };
        self.heard.iter().map(ballot).collect()
    }

    /// Why too few have answered. What all of them say of the request, such as that its prompt is too long, is said as they say it.
    fn refusal(&self, asked: &Asked<'_>) -> Refusal {
        let answered = self.answers().count();
        let failures = || {
            self.heard.iter().filter_map(|heard| match heard {
                Heard::Failed(refusal) => Some(refusal),
                Heard::Answer(_) | Heard::Nothing => None,
            })
        };
        if let Some(first) = failures().next()
            && !matches!(first.code(), Code::Unavailable | Code::DeadlineExceeded)
            && failures().count() == self.heard.len()
            && failures().all(|other| other.code() == first.code())
        {
            return first.clone();
        }
        let why = asked.ensemble.experts.iter().zip(&self.heard).filter_map(|(expert, heard)| match heard {
            Heard::Answer(_) => None,
            Heard::Failed(refusal) => Some(format!("{}: {refusal}", expert.name)),
            Heard::Nothing => Some(format!("{}: no answer yet", expert.name)),
        });
        Refusal::TooFew {
            route: asked.route.name.clone(),
            answered,
            wanted: asked.ensemble.minimum_answers as usize,
            why: why.collect::<Vec<_>>().join("; "),
            late: self.late,
        }
    }

    /// Notes what came of each expert; the answer of the one at `given` is given.
    fn show(&self, decision: &mut Decision, ensemble: &Ensemble, given: usize) {
        let ballots = self.ballots();
        let says = |place: usize| Some(&ballots.get(place)?.as_ref()?.says);
        for (place, (expert, heard)) in ensemble.experts.iter().zip(&self.heard).enumerate() {
            let named = |candidate: &&mut Candidate| {
                candidate.rule == "ensemble" && candidate.expert.as_ref().is_some_and(|it| it.name == expert.name)
            };
            let Some(candidate) = decision.candidates.iter_mut().find(named) else { continue };
            // Where nothing is given, nothing agrees with it.
            let (outcome, why_not) = match heard {
                Heard::Answer(_) if place == given => (CandidateOutcome::Chosen, String::new()),
                Heard::Answer(_) if says(given).is_some() && says(place) == says(given) => {
                    (CandidateOutcome::Agreed, "another one said the same".to_owned())
                }
                Heard::Answer(_) => (CandidateOutcome::Differed, "its answer is not the one that is given".to_owned()),
                Heard::Failed(refusal) => (CandidateOutcome::Failed, refusal.to_string()),
                Heard::Nothing if self.late => (CandidateOutcome::CutShort, "the time had passed".to_owned()),
                Heard::Nothing => (CandidateOutcome::CutShort, "the others had decided".to_owned()),
            };
            // What was not loaded when they were asked is said already.
            if candidate.outcome() == CandidateOutcome::NotResident && outcome == CandidateOutcome::Failed {
                continue;
            }
            (candidate.outcome, candidate.why_not) = (outcome.into(), why_not);
            candidate.score = ballots.get(place).and_then(Option::as_ref).map(|ballot| ballot.confidence);
        }
    }
}

/// What several answers have cost.
#[derive(Default)]
struct Bill {
    usage: Usage,
    /// In one currency: what answers in another have cost is with the egress.
    cost: Option<Cost>,
}

impl Bill {
    fn add(&mut self, answer: &StartedAnswer) {
        let (usage, cost) = answer.spent();
        self.usage.prompt_tokens += usage.prompt_tokens;
        self.usage.completion_tokens += usage.completion_tokens;
        self.usage.cached_tokens += usage.cached_tokens;
        match (&mut self.cost, cost) {
            (Some(sum), Some(cost)) if sum.currency == cost.currency => sum.amount += cost.amount,
            (None, cost) => self.cost = cost,
            (Some(_), _) => {}
        }
    }
}
