//! One thing for all tests of a file that run at the same time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;

/// Made by the first test that asks, dropped by the last that lets go. (What a `OnceLock` holds is never dropped.)
#[derive(Debug)]
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Nothing yet.
    #[allow(clippy::new_without_default)] // A static needs a const fn.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The shared value, made by `make` when there is none.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = held.upgrade() {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        *held = Arc::downgrade(&made);
        Ok(made)
    }
}
