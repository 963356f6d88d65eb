//! Lease evaluation: a pure function of the Lease's spec and the time for which it was unchanged.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::DURATION;

/// Decision about a lease.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Acquire or renew it by writing this spec.
    Write(LeaseSpec),
    /// Another operator holds it.
    Wait,
}

/// Decision of `identity` about a lease that was unchanged for `unchanged`. `None`: there is no lease.
pub(super) fn evaluate(lease: Option<&LeaseSpec>, unchanged: Duration, identity: &str, now: MicroTime) -> Decision {
    let holder = lease.and_then(|lease| lease.holder_identity.as_deref()).unwrap_or_default();
    if !holder.is_empty() && holder != identity && unchanged <= DURATION {
        return Decision::Wait;
    }
    let ours = lease.filter(|_| holder == identity);
    let transitions = lease.and_then(|lease| lease.lease_transitions).unwrap_or(0);
    Decision::Write(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or_else(|| Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if ours.is_some() { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).expect("a time"))
    }

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            acquire_time: Some(at(1)),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn whose_it_is() {
        let (fresh, stale) = (DURATION, DURATION + Duration::from_millis(1));
        // The lease, the time for which it is unchanged, and the expected holder, time of acquisition and transitions.
        let cases = [
            (None, fresh, Some((100, 1))),
            (Some(LeaseSpec::default()), fresh, Some((100, 1))),
            (Some(held_by("")), fresh, Some((100, 5))),
            (Some(held_by("us")), fresh, Some((1, 4))),
            (Some(held_by("us")), stale, Some((1, 4))),
            (Some(held_by("them")), Duration::ZERO, None),
            (Some(held_by("them")), fresh, None),
            (Some(held_by("them")), stale, Some((100, 5))),
        ];
        for (lease, unchanged, expected) in cases {
            let found = match evaluate(lease.as_ref(), unchanged, "us", at(100)) {
                Decision::Wait => None,
                Decision::Write(spec) => {
                    assert_eq!((spec.holder_identity.as_deref(), spec.renew_time), (Some("us"), Some(at(100))));
                    Some((spec.acquire_time.expect("a time").0.as_second(), spec.lease_transitions.unwrap_or(0)))
                }
            };
            assert_eq!(found, expected, "{lease:?} for {unchanged:?}");
        }
    }
}
