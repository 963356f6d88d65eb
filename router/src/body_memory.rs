//! Memory of large request bodies: a budget of bytes, and a share of it for each caller. A body that finds none left waits
//! unread, so that its sender waits, too.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a body that need no budget.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
/// Granularity of the budget.
const UNIT_BYTES: usize = 64 << 10;
/// Part of the budget that one caller may have.
const SHARE: usize = 4;

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BodyMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: Arc<Semaphore>,
    units: usize,
    /// By the name of the caller. Names are those of a file, so they are few.
    callers: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// Memory that a body may take; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct BodyHold {
    _total: Option<OwnedSemaphorePermit>,
    _share: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).max(SHARE);
        Self(Arc::new(Shared { total: Arc::new(Semaphore::new(units)), units, callers: Mutex::default() }))
    }

    /// Memory for a body of `bytes`, or as much as a caller may have, once it is free.
    pub(crate) async fn acquire(&self, caller: Option<&Arc<str>>, bytes: usize) -> BodyHold {
        let Shared { total, units, callers } = &*self.0;
        let share = units / SHARE;
        let wanted = u32::try_from(bytes.div_ceil(UNIT_BYTES).clamp(1, share)).unwrap_or(u32::MAX);
        let own = caller.map(|caller| {
            let mut callers = callers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(callers.entry(Arc::clone(caller)).or_insert_with(|| Arc::new(Semaphore::new(share))))
        });
        // Its own share first: whoever has used it up does not stand in the others' way. Semaphores are never closed.
        let share = match own {
            Some(own) => own.acquire_many_owned(wanted).await.ok(),
            None => None,
        };
        BodyHold { _total: Arc::clone(total).acquire_many_owned(wanted).await.ok(), _share: share }
    }
}

/// A body that waits for its memory once it is large, and holds it until it is dropped.
pub(crate) struct HeldBody<B> {
    body: B,
    memory: BodyMemory,
    caller: Option<Arc<str>>,
    seen: usize,
    bytes_max: usize,
    hold: Hold,
}

enum Hold {
    Small,
    Waiting(Pin<Box<dyn Future<Output = BodyHold> + Send>>),
    Held { _hold: BodyHold },
}

impl<B> HeldBody<B> {
    /// `bytes_max` is asked for where the body does not say its length.
    pub(crate) fn new(body: B, memory: BodyMemory, caller: Option<Arc<str>>, bytes_max: usize) -> Self {
        Self { body, memory, caller, seen: 0, bytes_max, hold: Hold::Small }
    }
}

impl<B: Body + Unpin> Body for HeldBody<B>
where
    B::Data: bytes::Buf,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Hold::Waiting(waiting) = &mut this.hold {
            let hold = ready!(waiting.as_mut().poll(context));
            this.hold = Hold::Held { _hold: hold };
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.seen += bytes::Buf::remaining(data);
            if this.seen > SMALL_BYTES && matches!(this.hold, Hold::Small) {
                let (memory, caller) = (this.memory.clone(), this.caller.clone());
                let bytes = this.body.size_hint().exact().and_then(|left| usize::try_from(left).ok());
                let bytes = bytes.map_or(this.bytes_max, |left| left.saturating_add(this.seen));
                this.hold = Hold::Waiting(Box::pin(async move { memory.acquire(caller.as_ref(), bytes).await }));
            }
        }
        Poll::Ready(frame)
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
    use std::time::Duration;

    use http_body_util::{BodyExt as _, Full};
    use tokio::time::timeout;

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn one_caller_has_a_quarter_and_waits_for_more() {
        let memory = BodyMemory::new(16 * MIB);
        let (mallory, alice): (Arc<str>, Arc<str>) = ("mallory".into(), "alice".into());
        let soon = |caller, bytes| timeout(Duration::from_secs(1), memory.acquire(caller, bytes));
        let first = soon(Some(&mallory), 4 * MIB).await.expect("a quarter");
        assert!(soon(Some(&mallory), 1).await.is_err(), "more than its share");
        let others = soon(Some(&alice), 100 * MIB).await.expect("as much as a caller may have");
        assert!(soon(None, 9 * MIB).await.is_ok(), "a caller without a token");
        drop((first, others));
        assert!(soon(Some(&mallory), 4 * MIB).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_waits_and_a_small_one_does_not() {
        let memory = BodyMemory::new(4 * MIB);
        let caller: Arc<str> = "a".into();
        let held = memory.acquire(Some(&caller), MIB).await;
        let body = |bytes: usize| {
            let body = Full::new(bytes::Bytes::from(vec![0; bytes]));
            HeldBody::new(body, memory.clone(), Some(Arc::clone(&caller)), MIB).collect()
        };
        assert!(timeout(Duration::from_secs(1), body(SMALL_BYTES)).await.is_ok());
        assert!(timeout(Duration::from_secs(1), body(SMALL_BYTES + 1)).await.is_err());
        drop(held);
        assert!(timeout(Duration::from_secs(1), body(SMALL_BYTES + 1)).await.is_ok());
    }
}
