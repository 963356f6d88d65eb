//! Requests that do not come to their end: one that is not there in time is given up.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};

/// A request's body, all of which has to come within a time.
#[derive(Debug)]
pub(super) struct TimedBody {
    inner: Body,
    limit: Duration,
    /// Set once it is waited for something.
    over: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn wrap(inner: Body, limit: Duration) -> Body {
        Body::new(Self { inner, limit, over: None })
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let limit = self.limit;
        if let Some(over) = &self.over
            && over.is_elapsed()
        {
            return Poll::Ready(Some(Err(late(limit))));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(over.as_mut().poll(context));
        Poll::Ready(Some(Err(late(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn late(limit: Duration) -> Status {
    Status::deadline_exceeded(format!("the request was not complete within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A body whose frames come so many seconds after each other.
    fn frames(after: &'static [u64]) -> Body {
        let frames = stream::iter(after).then(|&seconds| async move {
            sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))
        });
        TimedBody::wrap(Body::new(StreamBody::new(frames.boxed())), LIMIT)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_come_is_given_up() {
        for slow in [&[1, 70], &[29, 29]] {
            let result = frames(slow).collect().await;
            assert_eq!(result.is_ok(), slow[1] < 60, "{slow:?}");
        }
        // A byte now and then is not enough.
        let error = frames(&[10; 10]).collect().await.unwrap_err();
        assert!(error.to_string().contains("the request was not complete within 60s"), "{error}");
        assert!(TimedBody::wrap(Body::empty(), LIMIT).collect().await.is_ok());
    }
}
