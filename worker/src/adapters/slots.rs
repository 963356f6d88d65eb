//! Occupation of the slots: pure bookkeeping, without the adapters themselves.
//!
//! Versions that a name points to share `named_max` slots. When they are all taken, the version that was not used for
//! the longest time leaves its slot (least recently used), unless it is pinned or a request has a lease on it. A request
//! that finds no such slot waits, first come first served, and closes the slot of the least recently used version: new
//! requests to that version wait behind it, so that a slot whose requests overlap without end comes free, too. Replaced
//! versions that running requests still use have slots besides.

use std::collections::{BTreeMap, VecDeque};

/// Number of a version; counts up with every load.
pub(super) type Generation = u64;

/// Place of a request in the queue for slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Slots, and the versions in them.
#[derive(Debug)]
pub(super) struct Slots {
    held: BTreeMap<Generation, Held>,
    free: Vec<usize>,
    named_max: usize,
    queue: VecDeque<Waiting>,
    tickets: u64,
    clock: u64,
}

/// A version that has a slot.
#[derive(Debug, Clone, Copy)]
struct Held {
    slot: usize,
    /// Requests that use it.
    leases: usize,
    /// Time of its last lease, by the clock of leases.
    used: u64,
    /// Whether its name points to it.
    named: bool,
    /// Whether it never leaves for another version.
    pinned: bool,
    /// Whether its matrices are on their way into the slot.
    filling: bool,
}

/// A request that waits for a slot.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    /// Version whose slot is closed for it.
    closed: Option<Generation>,
}

/// Answer to a request for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has this slot, and one more lease.
    Leased(usize),
    /// This slot is reserved for it, and has to be filled or given up. The version that was in it, if there was one, is out.
    Fill {
        /// The slot.
        slot: usize,
        /// The version that left it.
        evicted: Option<Generation>,
    },
    /// Another request fills its slot.
    Filled,
    /// No slot is free; the place in the queue.
    Wait(Ticket),
    /// Pinned versions have all slots.
    AllPinned,
}

impl Slots {
    /// `named_max` slots for versions with a name, and `retiring_max` for replaced ones.
    pub(super) fn new(named_max: usize, retiring_max: usize) -> Self {
        Self {
            held: BTreeMap::new(),
            free: (0..named_max + retiring_max).rev().collect(),
            named_max,
            queue: VecDeque::new(),
            tickets: 0,
            clock: 0,
        }
    }

    /// Slots for versions with a name.
    pub(super) fn named_max(&self) -> usize {
        self.named_max
    }

    /// Versions with a name that have a slot.
    pub(super) fn named(&self) -> usize {
        self.held.values().filter(|held| held.named).count()
    }

    /// Whether `version` is in a slot, ready for requests.
    pub(super) fn holds(&self, version: Generation) -> bool {
        self.held.get(&version).is_some_and(|held| !held.filling)
    }

    /// Requests with a lease on `version`.
    pub(super) fn leases(&self, version: Generation) -> usize {
        self.held.get(&version).map_or(0, |held| held.leases)
    }

    /// Reserves a slot for a version that is being loaded, if one is free. `replaced` is the version whose name it will get.
    pub(super) fn reserve(&mut self, version: Generation, replaced: Option<Generation>) -> Option<usize> {
        let replaces = replaced.is_some_and(|replaced| self.held.contains_key(&replaced));
        if (self.named() >= self.named_max && !replaces) || !self.queue.is_empty() {
            return None;
        }
        let slot = self.free.pop()?;
        self.hold(version, slot, false, false);
        Some(slot)
    }

    /// A name points to `version` from now on. `false`: there is no room for it in the slot that was reserved, which has to be
    /// given up.
    pub(super) fn name(&mut self, version: Generation, pinned: bool) -> bool {
        let room = self.named() < self.named_max;
        let Some(held) = self.held.get_mut(&version) else { return true };
        (held.named, held.pinned) = (room, room && pinned);
        room
    }

    /// Asks for `version` on behalf of a request; `named` says whether its name points to it. `ticket` is the request's place
    /// in the queue, if it waited before.
    pub(super) fn claim(&mut self, version: Generation, named: bool, pinned: bool, ticket: Option<Ticket>) -> Claim {
        let position = ticket.and_then(|Ticket(own)| self.queue.iter().position(|waiting| waiting.ticket == own));
        let before = position.unwrap_or(self.queue.len());
        if let Some(held) = self.held.get(&version) {
            if held.filling {
                self.leave(ticket);
                return Claim::Filled;
            }
            // A closed slot is for the request that closed it.
            if !self.queue.iter().take(before).any(|waiting| waiting.closed == Some(version)) {
                self.leave(ticket);
                return self.lease(version).map_or(Claim::Filled, Claim::Leased);
            }
            return self.wait(position, version);
        }
        if before > 0 && named {
            return self.wait(position, version);
        }
        if let Some((slot, evicted)) = self.take(named) {
            self.leave(ticket);
            self.hold(version, slot, named, pinned);
            return Claim::Fill { slot, evicted };
        }
        if named && self.held.values().filter(|held| held.named && held.pinned).count() >= self.named_max {
            self.leave(ticket);
            return Claim::AllPinned;
        }
        self.wait(position, version)
    }

    /// Its slot, with one more lease.
    fn lease(&mut self, version: Generation) -> Option<usize> {
        self.clock += 1;
        let held = self.held.get_mut(&version)?;
        held.leases += 1;
        held.used = self.clock;
        Some(held.slot)
    }

    /// A free slot, or that of the least recently used version.
    fn take(&mut self, named: bool) -> Option<(usize, Option<Generation>)> {
        if !named || self.named() < self.named_max {
            return self.free.pop().map(|slot| (slot, None));
        }
        let (evicted, slot) = self.evict()?;
        self.free.pop();
        Some((slot, Some(evicted)))
    }

    /// The least recently used version that no request uses leaves its slot, which is free then.
    pub(super) fn evict(&mut self) -> Option<(Generation, usize)> {
        let idle = self.held.iter().filter(|(_, held)| held.may_leave() && held.leases == 0);
        let (&version, _) = idle.min_by_key(|(_, held)| held.used)?;
        self.give_up(version).map(|slot| (version, slot))
    }

    /// Puts a request that wants `version` into the queue, or leaves it where it is.
    fn wait(&mut self, position: Option<usize>, version: Generation) -> Claim {
        let position = position.unwrap_or_else(|| {
            self.tickets += 1;
            self.queue.push_back(Waiting { ticket: self.tickets, closed: None });
            self.queue.len() - 1
        });
        let closed = |version: Generation| self.queue.iter().any(|waiting| waiting.closed == Some(version));
        let still = self.queue[position].closed.is_some_and(|version| self.held.contains_key(&version));
        let victim = if still {
            self.queue[position].closed
        } else {
            let open =
                self.held.iter().filter(|(other, held)| held.may_leave() && **other != version && !closed(**other));
            open.min_by_key(|(_, held)| held.used).map(|(&victim, _)| victim)
        };
        self.queue[position].closed = victim;
        Claim::Wait(Ticket(self.queue[position].ticket))
    }

    /// Takes a request out of the queue.
    pub(super) fn leave(&mut self, ticket: Option<Ticket>) {
        if let Some(Ticket(own)) = ticket {
            self.queue.retain(|waiting| waiting.ticket != own);
        }
    }

    fn hold(&mut self, version: Generation, slot: usize, named: bool, pinned: bool) {
        self.clock += 1;
        self.held.insert(version, Held { slot, leases: 0, used: self.clock, named, pinned, filling: true });
    }

    /// The slot of `version` is filled; with a lease for the request that did it. Gives the slot, if nobody wants it any more.
    pub(super) fn filled(&mut self, version: Generation, leased: bool) -> Option<usize> {
        let held = self.held.get_mut(&version)?;
        held.filling = false;
        held.leases += usize::from(leased);
        let unwanted = held.leases == 0 && !held.named;
        if unwanted { self.give_up(version) } else { None }
    }

    /// `version` has no slot any more; gives the slot that it had.
    pub(super) fn give_up(&mut self, version: Generation) -> Option<usize> {
        let slot = self.held.remove(&version)?.slot;
        self.free.push(slot);
        Some(slot)
    }

    /// A request is done with `version`. Gives the slot, if it is free now.
    pub(super) fn release(&mut self, version: Generation) -> Option<usize> {
        let held = self.held.get_mut(&version)?;
        held.leases = held.leases.saturating_sub(1);
        let gone = held.leases == 0 && !held.named;
        if gone { self.give_up(version) } else { None }
    }

    /// No name points to `version` any more. Gives the slot, if it is free now.
    pub(super) fn retire(&mut self, version: Generation) -> Option<usize> {
        let held = self.held.get_mut(&version)?;
        (held.named, held.pinned) = (false, false);
        let gone = held.leases == 0 && !held.filling;
        if gone { self.give_up(version) } else { None }
    }

    /// Whether anybody waits for a slot.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        !self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> Vec<usize> {
        let mut free = self.free.clone();
        free.sort_unstable();
        free
    }
}

impl Held {
    /// Whether it may leave its slot for another version, once no request uses it.
    fn may_leave(&self) -> bool {
        self.named && !self.pinned && !self.filling
    }
}

#[cfg(test)]
mod tests;
