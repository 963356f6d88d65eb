//! Who holds which page of keys and values, and which prefixes are kept for the next request.
//!
//! A full page depends on nothing but the adapter and the tokens up to its end. So full pages are nodes of a tree by
//! those tokens, compared exactly, one tree for each adapter and tenant: running sequences share them, and when the last one lets go they stay, until their
//! page is wanted or more are idle than may be; the one that was idle longest, and nothing builds on, goes first.
//!
//! A sequence reserves what it may come to need when it is let in, so [`KvCache::grow`] always finds a page:
//! nodes in use and reservations together never exceed the pages.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use slm_kernels::attention::PAGE;

/// What pages belong to besides their tokens. The adapter decides keys and values; the tenant does not, but whether a prompt
/// is in the cache tells of who sent it before, so no tenant finds pages of another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tenant: Arc<str>,
    /// The adapter's digest and the bits of its scale; none for the base.
    pub(super) adapter: Option<(Arc<str>, u32)>,
}

/// A sequence needs more pages than it was let in with: the accounts of the cache are wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no page of the cache is left for a sequence that reserved it; please report this")]
pub(super) struct OutOfPages;

/// Where a page belongs: behind which, with which tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    parent: Parent,
    tokens: [u32; PAGE],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Parent {
    Origin(Origin),
    Node(u32),
}

/// A full page that may be shared.
#[derive(Debug)]
struct Node {
    page: u32,
    place: Place,
    users: u32,
    children: u32,
    /// When its last user let go.
    idle_since: u64,
}

/// A sequence's pages, in the order of positions.
#[derive(Debug)]
pub(super) struct Table {
    origin: Origin,
    pages: Vec<u32>,
    /// Nodes of the first of `pages`; the others are this sequence's alone.
    nodes: Vec<u32>,
    /// Pages besides the nodes that it may come to hold, those that it holds included.
    reserved: usize,
}

impl Table {
    pub(super) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Positions in shared pages.
    pub(super) fn shared(&self) -> usize {
        self.nodes.len() * PAGE
    }
}

/// All pages.
#[derive(Debug)]
pub(super) struct KvCache {
    free: Vec<u32>,
    /// Those in `vacant` mean nothing.
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    places: HashMap<Place, u32>,
    /// Nodes that nobody uses and nothing builds on, those idle longest first.
    evictable: BTreeSet<(u64, u32)>,
    pages: usize,
    in_use: usize,
    reserved: usize,
    idle: usize,
    idle_max: usize,
    clock: u64,
}

impl KvCache {
    /// `pages` pages, of which `idle_max` may keep prefixes that no running sequence uses. Where that is zero nothing is
    /// shared at all.
    pub(super) fn new(pages: usize, idle_max: usize) -> Self {
        Self {
            free: (0..pages as u32).rev().collect(),
            nodes: Vec::new(),
            vacant: Vec::new(),
            places: HashMap::new(),
            evictable: BTreeSet::new(),
            pages,
            in_use: 0,
            reserved: 0,
            idle: 0,
            idle_max,
            clock: 0,
        }
    }

    /// Lets a sequence in that will have `positions` at most and begins with `prompt`: with as much of the prompt as is
    /// there already, but for its last token, whose logits are wanted. `None`: there is no room for it now.
    pub(super) fn open(&mut self, origin: Origin, prompt: &[u32], positions: usize) -> Option<Table> {
        let found = self.find(Parent::Origin(origin.clone()), prompt);
        let newly_in_use = found.iter().filter(|&&node| self.node(node).users == 0).count();
        let reserved = positions.div_ceil(PAGE) - found.len();
        if self.in_use + newly_in_use + self.reserved + reserved > self.pages {
            return None;
        }
        self.reserved += reserved;
        let mut table = Table { origin, pages: Vec::new(), nodes: Vec::new(), reserved };
        found.into_iter().for_each(|node| self.take(&mut table, node));
        Some(table)
    }

    /// Takes over what others computed of `prompt` since, if nothing of the sequence's own would be lost.
    pub(super) fn follow(&mut self, table: &mut Table, prompt: &[u32]) {
        if table.pages.len() > table.nodes.len() {
            return;
        }
        for node in self.find(self.end(table), &prompt[table.shared()..]) {
            self.unreserve(table);
            self.take(table, node);
        }
    }

    /// Gives the sequence pages for so many positions, no more than it was let in with.
    pub(super) fn grow(&mut self, table: &mut Table, positions: usize) -> Result<(), OutOfPages> {
        while table.pages.len() * PAGE < positions {
            if table.pages.len() - table.nodes.len() >= table.reserved {
                return Err(OutOfPages);
            }
            table.pages.push(self.free.pop().or_else(|| self.evict()).ok_or(OutOfPages)?);
        }
        Ok(())
    }

    /// Makes the full pages of `tokens`, all of which are in the sequence's pages now, others' to use.
    pub(super) fn publish(&mut self, table: &mut Table, tokens: &[u32]) {
        if self.idle_max == 0 {
            return;
        }
        for tokens in tokens[table.shared()..].as_chunks::<PAGE>().0 {
            let place = Place { parent: self.end(table), tokens: *tokens };
            let own = table.pages[table.nodes.len()];
            self.unreserve(table);
            if let Some(&node) = self.places.get(&place) {
                // Somebody computed the same meanwhile: one of the two is enough.
                self.hold(node);
                table.pages[table.nodes.len()] = self.node(node).page;
                table.nodes.push(node);
                self.free.push(own);
            } else {
                let node = self.insert(place, own);
                table.nodes.push(node);
            }
        }
    }

    /// Lets go of everything that the sequence holds.
    pub(super) fn close(&mut self, mut table: Table) {
        self.clock += 1;
        self.reserved -= table.reserved;
        self.free.extend(table.pages.drain(table.nodes.len()..));
        for &node in table.nodes.iter().rev() {
            self.release(node);
        }
        while self.idle > self.idle_max {
            let Some(page) = self.evict() else { break };
            self.free.push(page);
        }
    }

    /// The nodes behind `parent` that hold `tokens`, without the last of them.
    fn find(&self, mut parent: Parent, tokens: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        let whole = &tokens[..tokens.len().saturating_sub(1)];
        for tokens in whole.as_chunks::<PAGE>().0 {
            let Some(&node) = self.places.get(&Place { parent, tokens: *tokens }) else { break };
            found.push(node);
            parent = Parent::Node(node);
        }
        found
    }

    /// What the sequence's next shared page would stand behind.
    fn end(&self, table: &Table) -> Parent {
        table.nodes.last().map_or_else(|| Parent::Origin(table.origin.clone()), |&node| Parent::Node(node))
    }

    fn unreserve(&mut self, table: &mut Table) {
        table.reserved -= 1;
        self.reserved -= 1;
    }

    fn take(&mut self, table: &mut Table, node: u32) {
        self.hold(node);
        table.pages.push(self.node(node).page);
        table.nodes.push(node);
    }

    fn insert(&mut self, place: Place, page: u32) -> u32 {
        if let Parent::Node(parent) = place.parent {
            self.node_mut(parent).children += 1;
        }
        let node = Node { page, place: place.clone(), users: 1, children: 0, idle_since: 0 };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.nodes[index as usize] = node;
                index
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        self.places.insert(place, index);
        self.in_use += 1;
        index
    }

    fn hold(&mut self, index: u32) {
        let node = self.node_mut(index);
        node.users += 1;
        if node.users == 1 {
            let idle_since = node.idle_since;
            self.evictable.remove(&(idle_since, index));
            self.idle -= 1;
            self.in_use += 1;
        }
    }

    fn release(&mut self, index: u32) {
        let clock = self.clock;
        let node = self.node_mut(index);
        node.users -= 1;
        if node.users == 0 {
            node.idle_since = clock;
            if node.children == 0 {
                self.evictable.insert((clock, index));
            }
            self.in_use -= 1;
            self.idle += 1;
        }
    }

    /// Forgets the prefix that was idle longest and gives its last page.
    fn evict(&mut self) -> Option<u32> {
        let (_, index) = self.evictable.pop_first()?;
        let Node { page, place, .. } = &self.nodes[index as usize];
        let (page, parent) = (*page, place.parent.clone());
        self.places.remove(place);
        self.vacant.push(index);
        self.idle -= 1;
        if let Parent::Node(parent) = parent {
            let parent_node = self.node_mut(parent);
            parent_node.children -= 1;
            if parent_node.children == 0 && parent_node.users == 0 {
                let idle_since = parent_node.idle_since;
                self.evictable.insert((idle_since, parent));
            }
        }
        Some(page)
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }
}

#[cfg(test)]
mod tests;
