//! Deadlines for a connection's peer and for the body of its request.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Bytes after which a peer has shown that it speaks: the preface of HTTP/2. A request of HTTP/1.1 is longer.
const GREETING_BYTES: usize = 24;

/// A connection whose peer has to begin to speak, and to read what is written to it.
pub struct Timed<C> {
    connection: C,
    /// Until the first bytes are there.
    greeting: Option<(Pin<Box<Sleep>>, usize)>,
    /// Runs while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    stall_max: Duration,
}

impl<C> Timed<C> {
    /// `greeting`: until the peer has sent its first bytes; `stall_max`: while it takes nothing of what is written.
    pub fn new(connection: C, greeting: Duration, stall_max: Duration) -> Self {
        Self { connection, greeting: Some((Box::pin(sleep(greeting)), 0)), stalled: None, stall_max }
    }

    /// A write that waits, waits no longer than this.
    fn stall<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.stall_max)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is written to it")))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Timed<C> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.connection).poll_read(context, buffer);
        let Some((deadline, greeted)) = &mut this.greeting else { return polled };
        match polled {
            Poll::Pending => {
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer has not begun to speak")))
            }
            Poll::Ready(read) => {
                *greeted += buffer.filled().len() - before;
                if *greeted >= GREETING_BYTES {
                    this.greeting = None;
                }
                Poll::Ready(read)
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Timed<C> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_write(context, bytes);
        this.stall(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_flush(context);
        this.stall(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_shutdown(context);
        this.stall(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.connection).poll_write_vectored(context, slices);
        this.stall(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

/// A body that has to be there whole before its deadline.
pub struct TimedBody<B> {
    body: B,
    limit: Duration,
    /// Runs from the first time that something is waited for: most bodies are there at once.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The body was not there in time: after so long.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request was not complete after {} s", .0.as_secs())]
pub struct TooSlow(Duration);

impl<B> TimedBody<B> {
    /// `limit` runs from the first time that something is waited for.
    pub fn new(body: B, limit: Duration) -> Self {
        Self { body, limit, deadline: None }
    }
}

/// The same for a gRPC server: a message that is not there in time is refused with DEADLINE_EXCEEDED.
pub fn grpc_body(body: tonic::body::Body, limit: Duration) -> tonic::body::Body {
    let late = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast::<TooSlow>() {
        Ok(slow) => tonic::Status::deadline_exceeded(slow.to_string()),
        Err(error) => tonic::Status::from_error(error),
    };
    tonic::body::Body::new(TimedBody::new(body, limit).map_err(late))
}

impl<B: Body + Unpin> Body for TimedBody<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(this.limit)));
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Some(Err(TooSlow(this.limit).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::Instant,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_peer_has_to_begin_to_speak() {
        let (mut peer, ours) = duplex(64);
        let mut ours = Timed::new(ours, 5 * SECOND, SECOND);
        // A byte now and then is not enough.
        let trickle = tokio::spawn(async move {
            for _ in 0..20 {
                tokio::time::sleep(SECOND).await;
                if peer.write_all(b"G").await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let error = ours.read_exact(&mut [0; 20]).await.expect_err("too slow");
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_spoken_may_be_silent() {
        let (mut peer, ours) = duplex(64);
        let mut ours = Timed::new(ours, 5 * SECOND, SECOND);
        peer.write_all(&[b'x'; 30]).await.expect("written");
        ours.read_exact(&mut [0; 30]).await.expect("read");
        let later = tokio::spawn(async move {
            tokio::time::sleep(600 * SECOND).await;
            peer.write_all(b"y").await.expect("written");
            peer
        });
        ours.read_exact(&mut [0; 1]).await.expect("ten minutes later");
        drop(later.await.expect("ended"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_left() {
        let (mut peer, ours) = duplex(8);
        let mut ours = Timed::new(ours, SECOND, 5 * SECOND);
        ours.write_all(b"12345678").await.expect("there is room");
        let error = ours.write_all(b"9").await.expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // One that takes a little in time is not.
        peer.read_exact(&mut [0; 8]).await.expect("read");
        let reader = tokio::spawn(async move {
            let mut taken = 0;
            while taken < 24 {
                tokio::time::sleep(4 * SECOND).await;
                taken += peer.read(&mut [0; 8]).await.expect("read");
            }
        });
        ours.write_all(&[b'x'; 24]).await.expect("taken in time");
        reader.await.expect("ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_be_complete_in_time() {
        let frames = futures::stream::unfold(0, |sent| async move {
            tokio::time::sleep(SECOND).await;
            Some((Ok::<_, io::Error>(Frame::data(bytes::Bytes::from_static(b"x"))), sent + 1))
        });
        let body = http_body_util::StreamBody::new(Box::pin(frames));
        let begun = Instant::now();
        let error = TimedBody::new(body, 10 * SECOND).collect().await.map(|_| ()).expect_err("too slow");
        assert!(error.downcast_ref::<TooSlow>().is_some(), "{error}");
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_message_trickles_is_refused_in_the_words_of_grpc() {
        let frames = futures::stream::pending::<Result<Frame<bytes::Bytes>, tonic::Status>>();
        let body = grpc_body(tonic::body::Body::new(http_body_util::StreamBody::new(frames)), 60 * SECOND);
        let status = body.collect().await.map(|_| ()).expect_err("too slow");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert!(status.message().contains("not complete after 60 s"), "{status}");
        assert!(grpc_body(tonic::body::Body::empty(), SECOND).collect().await.is_ok());
    }
}
