//! KV cache in pages (paged attention), with a prefix cache.
//!
//! A full page depends only on the adapter and the tokens up to its end. So full pages are nodes of a prefix tree,
//! compared by their tokens, with one tree for each adapter and tenant. Running sequences share them. Unused pages stay
//! until their memory is needed or too many are idle. Then the tenant with the most pages loses the one of its pages that was idle
//! longest and has no children: a tenant with many prompts evicts its own prefixes before those of others.
//!
//! A sequence reserves all the pages it may need when it is admitted, so [`KvCache::grow`] always finds one: pages in
//! use and reservations together never exceed the pages.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
};

/// Root of a prefix tree. The adapter determines keys and values. The tenant does not, but cache hits reveal other
/// prompts, so no tenant finds another's pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) tenant: Arc<str>,
    /// Digest and scale bits of the adapter; none for the base.
    pub(super) adapter: Option<(Arc<str>, u32)>,
}

/// A sequence needs more pages than it reserved: the cache's accounting is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no page of the cache is left for a sequence that reserved it; please report this")]
pub(super) struct OutOfPages;

/// Key of a full page: its parent and its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PrefixKey {
    parent: Parent,
    tokens: Box<[u32]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Parent {
    Origin(Origin),
    Node(u32),
}

/// A full page of the prefix tree.
#[derive(Debug)]
struct Node {
    page: u32,
    tenant: Arc<str>,
    key: PrefixKey,
    users: u32,
    children: u32,
    /// Logical time at which its last user released it.
    idle_since: u64,
}

/// Page table of a sequence, in the order of positions.
#[derive(Debug)]
pub(super) struct Table {
    origin: Origin,
    pages: Vec<u32>,
    /// Nodes of the shared pages, which come first; the other pages are private.
    nodes: Vec<u32>,
    /// Reserved private pages, those in use included.
    reserved: usize,
    /// Positions of a page.
    page: usize,
}

impl Table {
    pub(super) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Number of positions in shared pages.
    pub(super) fn shared(&self) -> usize {
        self.nodes.len() * self.page
    }
}

/// Nodes of a tenant.
#[derive(Debug, Default)]
struct Tenant {
    nodes: usize,
    /// Unused nodes without children, idle longest first.
    evictable: BTreeSet<(u64, u32)>,
}

/// The KV cache.
#[derive(Debug)]
pub(super) struct KvCache {
    /// Positions of a page.
    page: usize,
    /// Those that come first are used first, so that what is in use stays together.
    free: BinaryHeap<Reverse<u32>>,
    /// Nodes of the prefix tree; those in `vacant` are unused.
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    prefixes: HashMap<PrefixKey, u32>,
    /// Tenants that have nodes.
    tenants: HashMap<Arc<str>, Tenant>,
    pages: usize,
    in_use: usize,
    reserved: usize,
    idle: usize,
    idle_max: usize,
    clock: u64,
}

impl KvCache {
    /// A cache of `pages` pages of `page` positions, of which `idle_max` may keep prefixes that no running sequence uses. Zero disables
    /// sharing.
    pub(super) fn new(page: usize, pages: usize, idle_max: usize) -> Self {
        Self {
            page,
            free: (0..pages as u32).map(Reverse).collect(),
            nodes: Vec::new(),
            vacant: Vec::new(),
            prefixes: HashMap::new(),
            tenants: HashMap::new(),
            pages,
            in_use: 0,
            reserved: 0,
            idle: 0,
            idle_max,
            clock: 0,
        }
    }

    /// Admits a sequence of at most `positions` positions that begins with `prompt`, and reuses its cached prefix,
    /// except for the last token, which must be computed for its logits. `None` if there are not enough pages now.
    pub(super) fn open(&mut self, origin: Origin, prompt: &[u32], positions: usize) -> Option<Table> {
        let found = self.find(Parent::Origin(origin.clone()), prompt);
        let newly_in_use = found.iter().filter(|&&node| self.node(node).users == 0).count();
        let reserved = positions.div_ceil(self.page) - found.len();
        if self.in_use + newly_in_use + self.reserved + reserved > self.pages {
            return None;
        }
        self.reserved += reserved;
        let mut table = Table { origin, pages: Vec::new(), nodes: Vec::new(), reserved, page: self.page };
        found.into_iter().for_each(|node| self.take(&mut table, node));
        Some(table)
    }

    /// Reuses pages of `prompt` that other sequences have computed since, unless private pages would be lost.
    pub(super) fn follow(&mut self, table: &mut Table, prompt: &[u32]) {
        if table.pages.len() > table.nodes.len() {
            return;
        }
        for node in self.find(self.end(table), &prompt[table.shared()..]) {
            self.unreserve(table);
            self.take(table, node);
        }
    }

    /// Pages that `table` keeps from others, used or reserved, in shares of one of `sequences` sequences, rounded up.
    pub(super) fn shares(&self, table: &Table, sequences: usize) -> usize {
        ((table.nodes.len() + table.reserved) * sequences).div_ceil(self.pages)
    }

    /// Extends the page table to `positions`, within the reservation.
    pub(super) fn grow(&mut self, table: &mut Table, positions: usize) -> Result<(), OutOfPages> {
        while table.pages.len() * self.page < positions {
            if table.pages.len() - table.nodes.len() >= table.reserved {
                return Err(OutOfPages);
            }
            table.pages.push(self.free.pop().map(|Reverse(page)| page).or_else(|| self.evict()).ok_or(OutOfPages)?);
        }
        Ok(())
    }

    /// Makes the full pages of `tokens`, all of which are computed, available to other sequences.
    pub(super) fn publish(&mut self, table: &mut Table, tokens: &[u32]) {
        if self.idle_max == 0 {
            return;
        }
        for tokens in tokens[table.shared()..].chunks_exact(self.page) {
            let key = PrefixKey { parent: self.end(table), tokens: tokens.into() };
            let own = table.pages[table.nodes.len()];
            self.unreserve(table);
            if let Some(&node) = self.prefixes.get(&key) {
                // Another sequence computed the same page: keep one copy.
                self.hold(node);
                table.pages[table.nodes.len()] = self.node(node).page;
                table.nodes.push(node);
                self.free.push(Reverse(own));
            } else {
                let node = self.insert(table.origin.tenant.clone(), key, own);
                table.nodes.push(node);
            }
        }
    }

    /// Releases all pages of a sequence.
    pub(super) fn close(&mut self, mut table: Table) {
        self.clock += 1;
        self.reserved -= table.reserved;
        self.free.extend(table.pages.drain(table.nodes.len()..).map(Reverse));
        for &node in table.nodes.iter().rev() {
            self.release(node);
        }
        while self.idle > self.idle_max {
            let Some(page) = self.evict() else { break };
            self.free.push(Reverse(page));
        }
    }

    /// Nodes below `parent` that hold `tokens`, except for the last token.
    fn find(&self, mut parent: Parent, tokens: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        let whole = &tokens[..tokens.len().saturating_sub(1)];
        for tokens in whole.chunks_exact(self.page) {
            let Some(&node) = self.prefixes.get(&PrefixKey { parent, tokens: tokens.into() }) else { break };
            found.push(node);
            parent = Parent::Node(node);
        }
        found
    }

    /// Parent of the sequence's next shared page.
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

    fn insert(&mut self, tenant: Arc<str>, key: PrefixKey, page: u32) -> u32 {
        if let Parent::Node(parent) = key.parent {
            self.node_mut(parent).children += 1;
        }
        self.tenants.entry(tenant.clone()).or_default().nodes += 1;
        let node = Node { page, tenant, key: key.clone(), users: 1, children: 0, idle_since: 0 };
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
        self.prefixes.insert(key, index);
        self.in_use += 1;
        index
    }

    fn hold(&mut self, index: u32) {
        let node = self.node_mut(index);
        node.users += 1;
        if node.users == 1 {
            let (tenant, idle_since) = (node.tenant.clone(), node.idle_since);
            self.tenants.entry(tenant).or_default().evictable.remove(&(idle_since, index));
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
                let tenant = node.tenant.clone();
                self.tenants.entry(tenant).or_default().evictable.insert((clock, index));
            }
            self.in_use -= 1;
            self.idle += 1;
        }
    }

    /// Evicts the page that was idle longest of the tenant with the most pages, and returns its memory.
    fn evict(&mut self) -> Option<u32> {
        // Of equal tenants, the one whose page was idle longest.
        let first = |tenant: &Tenant| tenant.evictable.first().copied();
        let (name, largest) = self
            .tenants
            .iter_mut()
            .filter_map(|(name, tenant)| Some((first(tenant)?, name, tenant)))
            .max_by_key(|(oldest, _, tenant)| (tenant.nodes, Reverse(*oldest)))
            .map(|(_, name, tenant)| (name.clone(), tenant))?;
        let (_, index) = largest.evictable.pop_first()?;
        largest.nodes -= 1;
        if largest.nodes == 0 {
            self.tenants.remove(&name);
        }
        let Node { page, key, .. } = &self.nodes[index as usize];
        let (page, parent) = (*page, key.parent.clone());
        self.prefixes.remove(key);
        self.vacant.push(index);
        self.idle -= 1;
        if let Parent::Node(parent) = parent {
            let parent_node = self.node_mut(parent);
            parent_node.children -= 1;
            if parent_node.children == 0 && parent_node.users == 0 {
                let (tenant, idle_since) = (parent_node.tenant.clone(), parent_node.idle_since);
                self.tenants.entry(tenant).or_default().evictable.insert((idle_since, parent));
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
