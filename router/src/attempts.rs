//! Attempts of one request before its first token: failures so far, and whether another worker is tried. Pure.
//!
//! A worker that fails may come back while the request waits. A full worker is asked once: asking again would only add to its
//! load. When every worker is full the caller hears so at once, and decides itself when to retry.

use std::time::Duration;

use slm_proto::trailers;
use tonic::{Code, Status};

use crate::{config::Limits, eligible::ExcludedWorkers, refusal::Refusal, view::Worker};

/// Retry hint for callers.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Attempts {
    pub(crate) tried: ExcludedWorkers,
    failed: u32,
    full: u32,
    /// Status of the last full worker.
    no_room: Option<Status>,
}

impl Attempts {
    /// A worker did not answer `name`.
    ///
    /// # Errors
    /// The status for the caller, when no other worker is tried.
    pub(crate) fn failed(
        &mut self,
        worker: &Worker,
        status: Status,
        name: &str,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        if status.metadata().contains_key(trailers::ASKED) {
            return Err(Refusal::Worker(status));
        }
        match status.code() {
            Code::ResourceExhausted => {
                self.full += 1;
                if self.full >= limits.full_max {
                    return Err(Refusal::Worker(status));
                }
                self.tried.exclude(worker);
                self.no_room = Some(status);
            }
            // NOT_FOUND: it has just unloaded what it said it holds; its next state will tell.
            Code::Unavailable | Code::NotFound => {
                self.failed += 1;
                if self.failed >= limits.attempts_max {
                    let why = status.message().to_owned();
                    return Err(Refusal::NotResident { name: name.to_owned(), why, retry_after: RETRY_AFTER });
                }
                self.tried.push(worker);
            }
            _ => return Err(Refusal::Worker(status)),
        }
        Ok(())
    }

    /// No worker is left. The refusal for the caller, when all of them are full.
    pub(crate) fn no_room(&self) -> Option<Refusal> {
        self.no_room.clone().map(Refusal::Worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures;

    /// The code that the caller hears after these, if it hears anything yet.
    fn after(statuses: &[Code]) -> Option<Code> {
        let limits = Limits { attempts_max: 2, full_max: 3, ..Limits::default() };
        let worker = fixtures::worker("http://a", None);
        let mut attempts = Attempts::default();
        for status in statuses {
            if let Err(refusal) = attempts.failed(&worker, Status::new(*status, "no"), "smol", &limits) {
                return Some(refusal.code());
            }
        }
        None
    }

    #[test]
    fn each_kind_of_failure_has_its_bound() {
        use Code::{InvalidArgument, NotFound, ResourceExhausted, Unavailable};
        let cases: [(&[Code], Option<Code>); 7] = [
            (&[Unavailable], None),
            (&[Unavailable, NotFound], Some(Unavailable)),
            (&[ResourceExhausted, ResourceExhausted], None),
            (&[ResourceExhausted, ResourceExhausted, Unavailable], None),
            (&[ResourceExhausted, ResourceExhausted, ResourceExhausted], Some(ResourceExhausted)),
            (&[ResourceExhausted, Unavailable, Unavailable], Some(Unavailable)),
            (&[InvalidArgument], Some(InvalidArgument)),
        ];
        for (statuses, expected) in cases {
            assert_eq!(after(statuses), expected, "{statuses:?}");
        }
    }
}
