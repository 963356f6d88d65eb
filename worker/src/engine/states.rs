//! Slots for states of sequences, in the backend's memory.
//!
//! A running sequence has a slot from its admission to its end, however it ends. What a slot holds then is of no matter: the next
//! sequence begins without preceding tokens, and so anew.

use std::{cell::RefCell, cmp::Reverse, collections::BinaryHeap, rc::Rc};

/// Free slots; those that come first are used first, so that what is in use stays together.
type Free = Rc<RefCell<BinaryHeap<Reverse<usize>>>>;

/// The slots of a backend.
#[derive(Debug)]
pub(super) struct States {
    /// `None` for a model without states.
    free: Option<Free>,
}

/// The slot of a sequence, free again when it is dropped; nothing for a model without states.
#[derive(Debug)]
pub(super) struct State(Option<(usize, Free)>);

impl States {
    /// So many slots; zero for a model without states.
    pub(super) fn new(slots: usize) -> Self {
        Self { free: (slots > 0).then(|| Rc::new(RefCell::new((0..slots).map(Reverse).collect()))) }
    }

    /// A slot for a sequence; `None` if all are taken.
    pub(super) fn take(&self) -> Option<State> {
        let Some(free) = &self.free else { return Some(State(None)) };
        let Reverse(slot) = free.borrow_mut().pop()?;
        Some(State(Some((slot, free.clone()))))
    }
}

impl State {
    /// The slot, if the model has states.
    pub(super) fn slot(&self) -> Option<usize> {
        self.0.as_ref().map(|(slot, _)| *slot)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some((slot, free)) = self.0.take() {
            free.borrow_mut().push(Reverse(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_sequence_is_gone() {
        let states = States::new(2);
        let (first, second) = (states.take().unwrap(), states.take().unwrap());
        assert_eq!((first.slot(), second.slot()), (Some(0), Some(1)));
        assert!(states.take().is_none());
        drop(first);
        assert_eq!(states.take().and_then(|state| state.slot()), Some(0));
    }

    #[test]
    fn a_model_without_states_has_room_for_any_sequence() {
        let states = States::new(0);
        let taken: Vec<_> = (0..3).map(|_| states.take().unwrap()).collect();
        assert!(taken.iter().all(|state| state.slot().is_none()));
    }
}
