//! Deadlines of gRPC callers: the `grpc-timeout` header, from the moment in which a call arrives.
//!
//! tonic ends a call whose head has not been sent by its deadline with CANCELLED, as if the caller had gone. gRPC's word for it is
//! DEADLINE_EXCEEDED, which is what [`DeadlineLayer`] answers, just before tonic would.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

/// When the caller stops to wait: an extension of requests that have passed a [`DeadlineLayer`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request, if its caller has one.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Instant> {
        request.extensions().get::<Self>().map(|deadline| deadline.0)
    }
}

/// Tells services their [`Deadline`], and answers DEADLINE_EXCEEDED for those that have sent no head by then.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer;

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadlined<S>(S);

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadlined<S>;

    fn layer(&self, service: S) -> Deadlined<S> {
        Deadlined(service)
    }
}

impl<S, B> Service<Request<B>> for Deadlined<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Head<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let waits = request.headers().get("grpc-timeout").and_then(|header| parse(header.to_str().ok()?));
        let deadline = waits.and_then(|waits| Instant::now().checked_add(waits));
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        Head {
            head: Box::pin(self.0.call(request)),
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline))),
        }
    }
}

/// The head of an answer, or DEADLINE_EXCEEDED.
pub struct Head<F> {
    head: Pin<Box<F>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<F, E> Future for Head<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let head @ Poll::Ready(_) = this.head.as_mut().poll(context) {
            return head;
        }
        let Some(sleep) = &mut this.deadline else { return Poll::Pending };
        // Not the timer alone: tonic's own, a little later, may be the one that fires first.
        if sleep.deadline() > Instant::now() {
            ready!(sleep.as_mut().poll(context));
        }
        let late = Status::deadline_exceeded("the deadline passed before the answer began; allow more time");
        Poll::Ready(Ok(late.into_http()))
    }
}

/// At most eight digits and a unit, as the gRPC protocol has it. What is none is left to the caller's own clock.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;
    use tower::service_fn;

    use super::*;

    #[test]
    fn timeouts() {
        let cases = [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("2H", Some(Duration::from_secs(7200))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value), expected, "{value}");
        }
    }

    fn request(timeout: &str) -> Request<()> {
        let mut request = Request::new(());
        request.headers_mut().insert("grpc-timeout", timeout.parse().expect("a header"));
        request
    }

    #[tokio::test(start_paused = true)]
    async fn no_head_by_the_deadline() {
        let began = Instant::now();
        let never = service_fn(|request: Request<()>| async move {
            assert!(request.extensions().get::<Deadline>().is_some(), "the service knows its deadline");
            std::future::pending::<Result<Response<Body>, Infallible>>().await
        });
        let Ok(response) = DeadlineLayer.layer(never).call(request("250m")).await;
        assert_eq!(
            Status::from_header_map(response.headers()).map(|status| status.code()),
            Some(Code::DeadlineExceeded)
        );
        assert_eq!(began.elapsed(), Duration::from_millis(250));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_beside_that_fires_first_finds_the_deadline_passed() {
        let never = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>());
        let mut head = DeadlineLayer.layer(never).call(request("250m"));
        tokio::time::advance(Duration::from_millis(250)).await;
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut head).poll(&mut context).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_in_time_and_a_call_without_deadline_pass() {
        let slow = || {
            service_fn(|_: Request<()>| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            })
        };
        for request in [request("2S"), Request::new(()), request("soon")] {
            let Ok(response) = DeadlineLayer.layer(slow()).call(request).await;
            assert!(Status::from_header_map(response.headers()).is_none());
        }
    }
}
