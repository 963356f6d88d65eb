//! Requests that wait, and which of their texts make the next batch. Pure.
//!
//! A batch takes texts one by one, as many as its bound on tokens allows: of the tenant that was served the fewest tokens, of
//! its requests the one of the lowest priority number, then the oldest. A request may be spread over batches. A tenant that
//! returns after a pause starts level with the least served of the others.

use std::{collections::HashMap, sync::Arc};

/// A request: what a batch has to know, and whatever else comes with it.
pub(super) struct Waiting<T> {
    pub(super) tenant: Arc<str>,
    pub(super) priority: i32,
    /// Tokens of each text.
    pub(super) lengths: Vec<usize>,
    /// Texts that were taken.
    taken: usize,
    pub(super) request: T,
}

impl<T> Waiting<T> {
    fn next(&self) -> Option<usize> {
        self.lengths.get(self.taken).copied()
    }
}

/// The requests in the order of their arrival.
pub(super) struct Queue<T> {
    waiting: Vec<Waiting<T>>,
    /// Tokens served to tenants that wait.
    served: HashMap<Arc<str>, u64>,
}

/// A text of a batch: the index of its request, and its index there.
pub(super) type Place = (usize, usize);

/// Bounds of a batch.
#[derive(Clone, Copy)]
pub(super) struct BatchMax {
    pub(super) tokens: usize,
    pub(super) texts: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Vec::new(), served: HashMap::new() }
    }

    pub(super) fn push(&mut self, tenant: Arc<str>, priority: i32, lengths: Vec<usize>, request: T) {
        let least = self.served.values().min().copied().unwrap_or(0);
        self.served.entry(tenant.clone()).or_insert(least);
        self.waiting.push(Waiting { tenant, priority, lengths, taken: 0, request });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.waiting.get_mut(index).map(|waiting| &mut waiting.request)
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.waiting.get(index).map(|waiting| &waiting.request)
    }

    /// The texts of the next batch. A text that is longer than the bound goes alone.
    pub(super) fn batch(&mut self, most: BatchMax) -> Vec<Place> {
        let (mut places, mut tokens) = (Vec::new(), 0);
        while places.len() < most.texts {
            let served = |waiting: &Waiting<T>| self.served.get(&waiting.tenant).copied().unwrap_or(0);
            let open = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.next().is_some());
            let next = open.min_by_key(|(index, waiting)| (served(waiting), waiting.priority, *index));
            let Some((index, length)) = next.and_then(|(index, waiting)| Some((index, waiting.next()?))) else { break };
            if tokens > 0 && tokens + length > most.tokens {
                break;
            }
            let waiting = &mut self.waiting[index];
            places.push((index, waiting.taken));
            waiting.taken += 1;
            tokens += length;
            if let Some(served) = self.served.get_mut(&waiting.tenant) {
                *served += length as u64;
            }
        }
        places
    }

    /// Removes the requests that `ends` chooses. Places of a batch are not valid any more.
    pub(super) fn remove(&mut self, mut ends: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let removed = self.waiting.extract_if(.., |waiting| ends(&mut waiting.request));
        let removed: Vec<_> = removed.map(|waiting| waiting.request).collect();
        if !removed.is_empty() {
            let waiting = &self.waiting;
            self.served.retain(|tenant, _| waiting.iter().any(|waiting| waiting.tenant == *tenant));
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: BatchMax = BatchMax { tokens: 100, texts: 4 };

    fn queue(requests: &[(&str, i32, &[usize])]) -> Queue<()> {
        let mut queue = Queue::new();
        for (tenant, priority, lengths) in requests {
            queue.push((*tenant).into(), *priority, lengths.to_vec(), ());
        }
        queue
    }

    #[test]
    fn a_batch_has_as_many_texts_as_its_bounds_allow() {
        let mut queue = queue(&[("", 0, &[60, 30, 20]), ("", 0, &[1; 6])]);
        assert_eq!(queue.batch(MOST), [(0, 0), (0, 1)], "the third would be too much, and nothing overtakes it");
        assert_eq!(queue.batch(MOST), [(0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(queue.batch(MOST), [(1, 3), (1, 4), (1, 5)]);
        assert_eq!(queue.batch(MOST), []);
    }

    #[test]
    fn a_long_text_goes_alone() {
        let mut queue = queue(&[("", 0, &[500, 1])]);
        assert_eq!(queue.batch(MOST), [(0, 0)]);
        assert_eq!(queue.batch(MOST), [(0, 1)]);
    }

    #[test]
    fn tenants_take_turns_and_priority_orders_within_one() {
        let mut queue = queue(&[("flood", 0, &[50; 8]), ("flood", -1, &[50; 2]), ("quiet", 5, &[10; 3])]);
        assert_eq!(queue.batch(MOST), [(1, 0), (2, 0), (2, 1), (2, 2)]);
        assert_eq!(queue.batch(MOST), [(1, 1), (0, 0)]);
    }

    #[test]
    fn a_tenant_that_comes_back_has_no_credit_for_its_pause() {
        let mut queue = queue(&[("a", 0, &[90; 3])]);
        assert_eq!(queue.batch(MOST).len(), 1);
        queue.push("b".into(), 0, vec![90; 3], ());
        let order: Vec<_> = (0..4).flat_map(|_| queue.batch(MOST)).map(|(request, _)| request).collect();
        assert_eq!(order, [0, 1, 0, 1]);
        queue.remove(|()| true);
        assert!(queue.is_empty() && queue.served.is_empty());
    }
}
