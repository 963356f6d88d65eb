//! Memory of the states of sequences: a slot for each, in every layer whose token mixer has a state.

use slm_kernels::{Rows, states::Span};

use crate::runtime::backend::{Chunk, ChunkError};

/// Slots of all layers. Memory is allocated by the system on first write.
pub(super) struct StateMemory {
    layers: Vec<Layer>,
    /// Tokens whose state each slot holds; `None` while that is not known, because a step was not finished.
    held: Vec<Option<usize>>,
    /// Chunks of the pass.
    spans: Vec<Span>,
}

/// Slots of a layer.
struct Layer {
    /// Floats of a slot; zero for a layer without states.
    floats: usize,
    slots: Vec<f32>,
}

impl StateMemory {
    /// `slots` slots in each layer, of so many floats; none if no layer has any.
    pub(super) fn new(floats: &[usize], slots: usize) -> Self {
        let slots = if floats.iter().all(|floats| *floats == 0) { 0 } else { slots };
        let layer = |&floats: &usize| Layer { floats, slots: vec![0.0; floats * slots] };
        Self { layers: floats.iter().map(layer).collect(), held: vec![None; slots], spans: Vec::new() }
    }

    /// Number of slots; zero for a model without states.
    pub(super) fn slots(&self) -> usize {
        self.held.len()
    }

    /// Prepares a pass over `chunks`: until [`StateMemory::finish`], nothing is known of their slots.
    pub(super) fn prepare(&mut self, chunks: &[Chunk<'_>]) -> Result<(), ChunkError> {
        self.spans.clear();
        if self.held.is_empty() {
            return Ok(());
        }
        let mut first = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let wrong = |wrong| Err(ChunkError::new(index, wrong));
            let Some(slot) = chunk.state.filter(|slot| *slot < self.held.len()) else {
                return wrong("has no slot for its state");
            };
            if self.spans.iter().any(|span| span.slot == slot) {
                return wrong("has the slot of another");
            }
            let fresh = chunk.past == 0;
            if !fresh && self.held[slot] != Some(chunk.past) {
                return wrong("continues from a state that its slot does not hold");
            }
            let tokens = chunk.tokens.len();
            self.spans.push(Span { first, tokens, slot, fresh });
            first += tokens;
        }
        self.spans.iter().for_each(|span| self.held[span.slot] = None);
        Ok(())
    }

    /// Ends the pass over `chunks`, all of whose layers are computed.
    pub(super) fn finish(&mut self, chunks: &[Chunk<'_>]) {
        for (span, chunk) in self.spans.drain(..).zip(chunks) {
            self.held[span.slot] = Some(chunk.past + span.tokens);
        }
    }

    /// Chunks of the pass and the slots of `layer`, a row for each; `None` if the layer has no state.
    pub(super) fn layer(&mut self, layer: usize) -> Option<(&[Span], Rows<'_>)> {
        let Layer { floats, slots } = self.layers.get_mut(layer)?;
        (!slots.is_empty()).then(|| (self.spans.as_slice(), Rows::new(slots, *floats)))
    }

    /// Floats of a slot of `layer`.
    pub(super) fn floats(&self, layer: usize) -> usize {
        self.layers.get(layer).map_or(0, |layer| layer.floats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::LogitsRequest;

    fn chunk(past: usize, tokens: &[u32], state: Option<usize>) -> Chunk<'_> {
        Chunk { tokens, past, pages: &[], state, adapter: None, logits: LogitsRequest::Last, candidates: None }
    }

    /// What is said against a pass over chunks of past, tokens and slot; finished unless it `fails`.
    fn pass(memory: &mut StateMemory, chunks: &[(usize, usize, Option<usize>)], fails: bool) -> Option<String> {
        let tokens = [0; 8];
        let chunks: Vec<_> = chunks.iter().map(|&(past, count, slot)| chunk(past, &tokens[..count], slot)).collect();
        if let Err(error) = memory.prepare(&chunks) {
            return Some(error.to_string());
        }
        if !fails {
            memory.finish(&chunks);
        }
        None
    }

    #[test]
    fn a_chunk_continues_only_from_what_its_slot_holds() {
        let mut memory = StateMemory::new(&[0, 4], 2);
        assert_eq!(pass(&mut memory, &[(0, 3, Some(1)), (0, 2, Some(0))], false), None);
        assert_eq!(pass(&mut memory, &[(2, 1, Some(0)), (3, 1, Some(1))], false), None);
        let other = Some("chunk 0 of the step continues from a state that its slot does not hold".to_owned());
        assert_eq!(pass(&mut memory, &[(3, 1, Some(1))], false), other, "it holds four tokens");
        assert_eq!(pass(&mut memory, &[(4, 1, Some(1))], true), None);
        assert_eq!(pass(&mut memory, &[(5, 1, Some(1))], false), other, "a step that failed leaves nothing");
        assert_eq!(pass(&mut memory, &[(4, 1, Some(1))], false), other);
        assert_eq!(pass(&mut memory, &[(0, 1, Some(1)), (3, 1, Some(0))], false), None, "what begins, begins anew");
        for (chunks, wrong) in [
            (&[(0, 1, None)][..], "has no slot for its state"),
            (&[(0, 1, Some(2))], "has no slot for its state"),
            (&[(0, 1, Some(1)), (0, 1, Some(1))], "has the slot of another"),
        ] {
            let refusal = pass(&mut memory, chunks, false).unwrap_or_default();
            assert!(refusal.ends_with(wrong), "{refusal}");
        }
    }

    #[test]
    fn models_without_states_need_no_slots() {
        let mut memory = StateMemory::new(&[0, 0], 4);
        assert_eq!((memory.slots(), pass(&mut memory, &[(7, 1, None)], false)), (0, None));
        assert!(memory.layer(0).is_none());
    }
}
