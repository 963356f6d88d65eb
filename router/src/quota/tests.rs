use super::*;
use crate::access::table::Pattern;

fn caller(all: RateLimits, models: &[(&str, RateLimits)]) -> Caller {
    let models = models.iter().map(|(names, limits)| ModelLimits {
        shown: (*names).into(),
        names: Pattern::new(names),
        limits: *limits,
    });
    Caller::of("team", &["*"]).limited(CallerLimits { all, models: models.collect() })
}

fn requests(per_minute: u32) -> RateLimits {
    RateLimits { requests_per_minute: Some(per_minute), ..RateLimits::default() }
}

fn tokens(per_minute: u32) -> RateLimits {
    RateLimits { tokens_per_minute: Some(per_minute), ..RateLimits::default() }
}

#[test]
fn without_limits_nothing_is_counted() {
    let quotas = Quotas::default();
    let now = Instant::now();
    assert!(quotas.enter(&Caller::anybody(), "smol", 1, false, now).unwrap().is_none());
    assert!(quotas.enter(&caller(RateLimits::default(), &[]), "smol", 1, false, now).unwrap().is_none());
    assert!(quotas.lock().is_empty());
}

#[test]
fn requests_of_a_minute() {
    let (quotas, caller, now) = (Quotas::default(), caller(requests(2), &[]), Instant::now());
    let enter = |now| quotas.enter(&caller, "smol", 5, false, now);
    let first = enter(now).unwrap();
    let standing = || quotas.standing(&caller, now).requests;
    assert_eq!(standing(), Some(Remaining { limit: 2, left: 1, reset: Duration::from_secs(30) }));
    let _second = enter(now).unwrap();
    let refused = enter(now).unwrap_err();
    assert_eq!((refused.kind, refused.limit, refused.retry_after), (Kind::Requests, 2, Duration::from_secs(30)));
    assert_eq!(standing().map(|left| left.left), Some(0));
    drop(first);
    assert!(enter(now).is_err(), "a request that has ended was one");
    assert!(quotas.enter(&caller, "smol", 5, true, now).is_ok(), "another answer to a request that is in");
    assert!(enter(now + Duration::from_secs(31)).is_ok());
}

#[test]
fn tokens_are_set_right_at_the_end() {
    let (quotas, caller, now) = (Quotas::default(), caller(tokens(100), &[]), Instant::now());
    let enter = |tokens, now| quotas.enter(&caller, "smol", tokens, false, now);
    let mut pass = enter(80, now).unwrap().unwrap();
    assert_eq!(enter(80, now).unwrap_err().kind, Kind::Tokens);
    pass.used(10);
    drop(pass);
    let failed = enter(80, now).unwrap();
    assert!(enter(80, now).is_err());
    drop(failed);
    let mut large = enter(100_000, now + Duration::from_secs(60)).unwrap().expect("all of a minute's is enough");
    large.used(1_000);
    drop(large);
    let refused = enter(1, now + Duration::from_secs(60)).unwrap_err();
    assert!(refused.retry_after > Duration::from_secs(500), "a debt of 900: {:?}", refused.retry_after);
}

#[test]
fn requests_at_a_time() {
    let limits = RateLimits { concurrent_requests: Some(1), ..RateLimits::default() };
    let (quotas, caller, now) = (Quotas::default(), caller(limits, &[]), Instant::now());
    let running = quotas.enter(&caller, "smol", 1, false, now).unwrap();
    assert_eq!(quotas.enter(&caller, "smol", 1, false, now).unwrap_err().kind, Kind::Concurrent);
    drop(running);
    assert!(quotas.enter(&caller, "smol", 1, false, now).is_ok());
}

#[test]
fn limits_for_models_count_besides() {
    let limited = caller(requests(10), &[("big-*", requests(1)), ("big-one", tokens(50))]);
    let (quotas, now) = (Quotas::default(), Instant::now());
    let enter = |name: &str, tokens| quotas.enter(&limited, name, tokens, false, now);
    assert!(enter("big-one", 60).is_ok());
    let refused = enter("big-two", 1).unwrap_err();
    assert_eq!((refused.models.as_deref(), refused.limit), (Some("big-*"), 1));
    for _ in 0..9 {
        assert!(enter("small", 1_000).is_ok());
    }
    let refused = enter("small", 1).unwrap_err();
    assert_eq!((refused.models.as_deref(), refused.limit), (None, 10), "what was refused took nothing");
}

#[test]
fn a_changed_list_keeps_what_was_used() {
    let (quotas, now) = (Quotas::default(), Instant::now());
    drop(quotas.enter(&caller(requests(1), &[]), "smol", 1, false, now));
    let more = caller(requests(4), &[("smol", requests(1))]);
    assert!(quotas.enter(&more, "smol", 1, false, now).is_err(), "it is not full again");
    assert!(quotas.enter(&more, "smol", 1, false, now + Duration::from_secs(16)).is_ok());
}

#[test]
fn an_answer_is_as_long_as_the_strictest_limit() {
    let most = |max_tokens| RateLimits { max_tokens: Some(max_tokens), ..RateLimits::default() };
    let limits = CallerLimits {
        all: most(100),
        models: vec![ModelLimits { shown: "b*".into(), names: Pattern::new("b*"), limits: most(10) }],
    };
    assert_eq!((limits.max_tokens("a"), limits.max_tokens("banking")), (Some(100), Some(10)));
    assert_eq!(CallerLimits::default().max_tokens("a"), None);
}

#[test]
fn tokens_are_estimated_from_bytes_and_the_longest_answer() {
    let request = GenerateRequest {
        input: Some(Input::Prompt("x".repeat(40))),
        max_tokens: Some(5),
        ..GenerateRequest::default()
    };
    assert_eq!(estimate(&request), 15);
}
