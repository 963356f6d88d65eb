//! Experts: a feed-forward block of which each token uses some of many (mixture of experts).
//!
//! ```text
//! w = route(R x);  y = sum over experts e with w_e != 0, in order, of w_e * (D_e activation(U_e x))
//! ```
//!
//! Tokens are sorted by expert (`routes`), so that a step reads the weights of each expert once, and of those only that
//! its tokens use. In two parts, each of phases that any threads may compute: [`Buffers::route`], then
//! [`Buffers::group`].
//!
//! Guarantee: a token's result has the same bits whichever tokens are in the step, however many threads there are, and on
//! every instruction set.
#![allow(unsafe_code)] // Rows that threads share; every function says who may write where.

mod routes;
mod stack;

use std::ops::Range;

pub use routes::route;
pub use stack::Stack;

use self::{routes::Visits, stack::RowsIn};
use crate::{
    activations::Activations,
    level::Level,
    linear::range,
    rows::Rows,
    rowwise::{Activation, activated, add_scaled, dots, gated},
};

/// Ranges of columns for each thread, over all experts.
const RANGES: usize = 2;

/// Weights of a block with experts.
#[derive(Clone, Copy)]
pub struct Experts<'a> {
    /// Matrix of the router, `[experts, inputs]`.
    pub router: &'a [f32],
    /// Experts of a token.
    pub used: usize,
    /// Whether a token's weights are divided by their sum.
    pub normalized: bool,
    /// First matrices: gates and values, or values alone.
    pub up: Stack<'a>,
    /// Second matrices.
    pub down: Stack<'a>,
    /// Activation between the two.
    pub activation: Activation,
    /// Whether the activation of the first half of `up` multiplies the second.
    pub gated: bool,
}

/// Memory of a step, reused.
#[derive(Default)]
pub struct Buffers {
    /// Inputs of the block, `[tokens, inputs]`.
    inputs: Vec<f32>,
    /// Weights of all experts, `[tokens, experts]`.
    weights: Vec<f32>,
    visits: Visits,
    quantized: [Activations; 2],
    /// Of each visit: results of the first matrices, these activated, results of the second.
    up: Vec<f32>,
    activated: Vec<f32>,
    down: Vec<f32>,
}

/// First part of a step: each token's weights.
pub struct Routing<'a> {
    experts: Experts<'a>,
    inputs: Rows<'a>,
    weights: Rows<'a>,
}

/// Second part of a step: visits of tokens at experts, sorted by expert. Its phases, in order: `gather`, `up`, `activate`,
/// `down`, `add`.
pub struct Grouped<'a> {
    experts: Experts<'a>,
    visits: &'a Visits,
    x: RowsIn<'a>,
    hidden: RowsIn<'a>,
    up: Rows<'a>,
    down: Rows<'a>,
    /// Ranges of columns of each expert.
    parts: usize,
}

impl Buffers {
    /// Begins a step of `tokens` tokens.
    ///
    /// # Panics
    /// The matrices do not fit each other.
    pub fn route<'a>(&'a mut self, experts: Experts<'a>, tokens: usize) -> Routing<'a> {
        let Experts { router, up, down, gated, used, .. } = experts;
        let count = router.len() / up.inputs();
        assert!(router.len() == count * up.inputs() && (1..=count).contains(&used), "{used} experts of {count}");
        let fits = up.outputs() == down.inputs() * if gated { 2 } else { 1 };
        assert!(fits && down.outputs() > 0, "matrices of {} outputs and {} inputs", up.outputs(), down.inputs());
        self.inputs.resize(tokens * up.inputs(), 0.0);
        self.weights.resize(tokens * count, 0.0);
        let inputs = Rows::new(&mut self.inputs, up.inputs());
        Routing { experts, inputs, weights: Rows::new(&mut self.weights, count) }
    }

    /// Goes on, once all tokens are routed, for about `threads` threads.
    pub fn group<'a>(&'a mut self, experts: Experts<'a>, threads: usize) -> Grouped<'a> {
        let Self { inputs, weights, visits, quantized: [x, hidden], up, activated, down } = self;
        visits.update(weights, experts.router.len() / experts.up.inputs());
        let count = visits.tokens.len();
        up.resize(count * experts.up.outputs(), 0.0);
        activated.resize(count * experts.down.inputs(), 0.0);
        down.resize(count * experts.down.outputs(), 0.0);
        let parts = (threads * RANGES).div_ceil(visits.experts.len().max(1));
        Grouped {
            x: experts.up.rows(Rows::new(inputs, experts.up.inputs()), x, count),
            hidden: experts.down.rows(Rows::new(activated, experts.down.inputs()), hidden, count),
            up: Rows::new(up, experts.up.outputs()),
            down: Rows::new(down, experts.down.outputs()),
            visits,
            parts,
            experts,
        }
    }
}

impl Routing<'_> {
    /// Lets `fill` write the inputs of some tokens, and routes them.
    ///
    /// # Panics
    /// There are no such tokens, or the CPU has not the level.
    ///
    /// # Safety
    /// No other thread has the same tokens.
    pub unsafe fn tokens(&self, level: Level, tokens: Range<usize>, mut fill: impl FnMut(usize, &mut [f32])) {
        let Experts { router, used, normalized, .. } = self.experts;
        for token in tokens {
            // SAFETY: this thread's, by the caller's promise.
            let (inputs, weights) = unsafe { (self.inputs.row_mut(token), self.weights.row_mut(token)) };
            fill(token, inputs);
            dots(level, router, inputs, weights);
            route(level, weights, used, normalized);
        }
    }
}

impl Grouped<'_> {
    /// Number of visits.
    pub fn visits(&self) -> usize {
        self.visits.tokens.len()
    }

    /// Number of tasks of [`Grouped::up`], and of [`Grouped::down`].
    pub fn products(&self) -> usize {
        self.visits.experts.len() * self.parts
    }

    /// Prepares the inputs of some visits.
    ///
    /// # Safety
    /// No other thread has the same visits.
    pub unsafe fn gather(&self, level: Level, visits: Range<usize>) {
        // SAFETY: this thread's, by the caller's promise; routing is done.
        unsafe { self.x.quantize(level, visits, &self.token()) };
    }

    /// Computes task `task` of the first products.
    ///
    /// # Safety
    /// All visits are gathered, and no other thread has the same task.
    pub unsafe fn up(&self, level: Level, task: usize) {
        // SAFETY: tasks are ranges of rows and columns that do not overlap; the rest is passed on.
        unsafe { self.multiply(level, &self.experts.up, (&self.x, &self.token()), task, self.up) };
    }

    /// Activates the first results of some visits.
    ///
    /// # Safety
    /// All first products are computed, and no other thread has the same visits.
    pub unsafe fn activate(&self, level: Level, visits: Range<usize>) {
        for visit in visits.clone() {
            // SAFETY: this thread's, by the caller's promise.
            let (up, out) = unsafe { (self.up.read(visit), self.hidden.floats.row_mut(visit)) };
            match self.experts.gated {
                true => {
                    let (gate, value) = up.split_at(out.len());
                    gated(level, self.experts.activation, gate, value, out);
                }
                false => activated(level, self.experts.activation, up, out),
            }
        }
        // SAFETY: as above.
        unsafe { self.hidden.quantize(level, visits, &|visit| visit) };
    }

    /// Computes task `task` of the second products.
    ///
    /// # Safety
    /// All visits are activated, and no other thread has the same task.
    pub unsafe fn down(&self, level: Level, task: usize) {
        // SAFETY: as `up`.
        unsafe { self.multiply(level, &self.experts.down, (&self.hidden, &|visit| visit), task, self.down) };
    }

    /// Adds the results of a token, each times its weight and `scale`, to `out`.
    ///
    /// # Panics
    /// There is no such token, `out` has not the outputs' length, or the CPU has not the level.
    ///
    /// # Safety
    /// All second products are computed.
    pub unsafe fn add(&self, level: Level, token: usize, scale: f32, out: &mut [f32]) {
        for stop in self.visits.of(token) {
            // SAFETY: complete, by the caller's promise.
            add_scaled(level, unsafe { self.down.read(stop.visit) }, scale * stop.weight, out);
        }
    }

    /// The token of a visit.
    fn token(&self) -> impl Fn(usize) -> usize + Sync {
        |visit| self.visits.tokens[visit] as usize
    }

    unsafe fn multiply(
        &self,
        level: Level,
        stack: &Stack<'_>,
        x: (&RowsIn<'_>, &(dyn Fn(usize) -> usize + Sync)),
        task: usize,
        y: Rows<'_>,
    ) {
        let visited = &self.visits.experts[task / self.parts];
        let columns = range(stack.outputs(), task % self.parts, self.parts);
        // SAFETY: passed on.
        unsafe { stack.multiply(level, visited.expert, x, (visited.visits.clone(), columns), y) };
    }
}

impl Experts<'_> {
    /// Computes a whole step on this thread: adds the block's results for `x`, rows of the block's inputs, times `scale`
    /// to the rows of `out`.
    ///
    /// # Panics
    /// Shapes do not fit each other, or the CPU has not the level.
    pub fn all(&self, level: Level, buffers: &mut Buffers, x: &[f32], scale: f32, out: &mut [f32]) {
        let (inputs, outputs) = (self.up.inputs(), self.down.outputs());
        let tokens = x.len() / inputs;
        let routing = buffers.route(*self, tokens);
        // SAFETY: one thread, in order.
        unsafe {
            routing.tokens(level, 0..tokens, |token, row| row.copy_from_slice(&x[token * inputs..][..inputs]));
            let grouped = buffers.group(*self, 1);
            grouped.gather(level, 0..grouped.visits());
            (0..grouped.products()).for_each(|task| grouped.up(level, task));
            grouped.activate(level, 0..grouped.visits());
            (0..grouped.products()).for_each(|task| grouped.down(level, task));
            for (token, out) in out.chunks_exact_mut(outputs).enumerate() {
                grouped.add(level, token, scale, out);
            }
        }
    }
}
