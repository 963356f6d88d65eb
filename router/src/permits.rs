//! Permits for open answers and waiting requests: a total bound, and a share of it for each key, such as a caller or an expert.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Permits of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    share: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Permits in use by key; no key is at zero.
    by_key: HashMap<Arc<str>, usize>,
}

/// A permit; dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    key: Option<Arc<str>>,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    Total(usize),
    /// This key has its share.
    Share(usize),
}

impl Full {
    /// The limit, which is the number of permits in use.
    pub(crate) fn limit(self) -> usize {
        let (Self::Total(limit) | Self::Share(limit)) = self;
        limit
    }

    /// The scope of the limit, for a message.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::Total(_) => "on this router",
            Self::Share(_) => "for this caller",
        }
    }
}

impl Permits {
    /// `total` at a time, of which one key may hold `share`.
    pub(crate) fn new(total: usize, share: usize) -> Self {
        Self(Arc::new(Shared { total, share, open: Mutex::default() }))
    }

    /// A permit for `key`. Without a key only the total counts.
    pub(crate) fn take(&self, key: Option<&Arc<str>>) -> Result<Permit, Full> {
        let shared = &self.0;
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= shared.total {
            return Err(Full::Total(shared.total));
        }
        if let Some(key) = key {
            let held = open.by_key.get(key).copied().unwrap_or(0);
            if held >= shared.share {
                return Err(Full::Share(shared.share));
            }
            open.by_key.insert(Arc::clone(key), held + 1);
        }
        open.all += 1;
        Ok(Permit { shared: Arc::clone(shared), key: key.cloned() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        let Some(key) = self.key.take() else { return };
        let held = open.by_key.get(&key).copied().unwrap_or(0);
        if held > 1 {
            open.by_key.insert(key, held - 1);
        } else {
            open.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_leaves_room_for_the_others() {
        let permits = Permits::new(4, 2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = permits.take(Some(&a)).expect("room");
        let _second = permits.take(Some(&a)).expect("room");
        assert_eq!(permits.take(Some(&a)).expect_err("its share"), Full::Share(2));
        let _other = permits.take(Some(&b)).expect("room");
        let _nobody = permits.take(None).expect("room");
        assert_eq!(permits.take(Some(&b)).expect_err("all"), Full::Total(4));
        drop(first);
        assert!(permits.take(Some(&b)).is_ok() && permits.take(Some(&a)).is_ok());
    }

    #[test]
    fn keys_that_hold_nothing_are_forgotten() {
        let permits = Permits::new(2, 1);
        for key in 0..100 {
            drop(permits.take(Some(&key.to_string().into())));
        }
        assert!(permits.0.open.lock().expect("no panic").by_key.is_empty());
    }
}
