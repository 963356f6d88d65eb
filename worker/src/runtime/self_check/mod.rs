//! Self-check: before a worker serves on a device, it compares logits with those of ONNX Runtime's CPU provider, of the same graph
//! and weights.
//!
//! What is computed is in `golden`: one prompt and its next tokens, by the base and by a synthetic adapter. The CPU provider's
//! logits are computed once for each bundle and kept in its folder (`kept`), since they take its weights twice into the host's memory.

mod golden;
mod kept;

use std::sync::Arc;

use slm_convert::{bundle::Bundle, graph::Activations};

use super::{
    backend::{Backend, SessionConfig, SessionError},
    library::Runtime,
    provider::{AdapterLoader, AdapterRoom, Opened, Provider},
};
use crate::adapters::{AdapterTable, PrepareError};
use golden::Golden;

/// A device computes something else than the CPU provider, or the comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// The logits differ.
    #[error(
        "self-check: {case}, token {token}: a logit differs from that of ONNX Runtime's CPU provider by {found:.1e} of the largest one; \
         {bound:.0e} is allowed. This device, its driver or its libraries compute wrongly: do not serve on it. See that the versions \
         are those of docs/accelerators.md; delete {folder} if it may be damaged"
    )]
    Differs {
        /// Who answered.
        case: &'static str,
        /// Index of the generated token.
        token: usize,
        /// Relative difference; infinite for logits that are no numbers.
        found: f32,
        /// Bound on it.
        bound: f32,
        /// Folder of the converted model.
        folder: String,
    },
    /// A session failed.
    #[error("self-check: {0}")]
    Session(#[from] SessionError),
    /// The synthetic adapter could not be loaded.
    #[error("self-check: the synthetic adapter: {0}")]
    Prepare(#[from] PrepareError),
}

/// The CPU provider's logits, to compare a device's with.
pub struct SelfCheck {
    golden: Golden,
    expected: Vec<f32>,
    bound: f32,
    folder: String,
}

impl SelfCheck {
    /// What a session of `provider` with this configuration will be compared with; `None` for those that need no check. To be called before
    /// that session is opened: the memory of the one that computes it is free again by then.
    ///
    /// # Errors
    /// The CPU provider does not run the graph.
    pub fn prepare(
        provider: Provider,
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        room: AdapterRoom,
    ) -> Result<Option<Self>, SelfCheckError> {
        let reference = provider.reference();
        reference.map(|reference| Self::against(reference, runtime, bundle, config, room)).transpose()
    }

    /// The same with the logits of that provider.
    ///
    /// # Errors
    /// It does not run the graph.
    pub fn against(
        reference: Provider,
        runtime: &Runtime,
        bundle: &Bundle,
        config: SessionConfig,
        room: AdapterRoom,
    ) -> Result<Self, SelfCheckError> {
        let golden = Golden::new(&bundle.info.architecture, config.context_length, room);
        let expected = match kept::read(bundle, &golden) {
            Some(expected) => expected,
            None => {
                let table = Arc::new(AdapterTable::new(1));
                let alone = Golden::session(config);
                let opened = reference.open(runtime, bundle, alone, golden.room(), table.clone())?;
                let Opened { mut backend, loader, .. } = opened;
                let expected = golden.logits(&mut *backend, &loader, &table)?;
                kept::write(bundle, &golden, &expected);
                expected
            }
        };
        let bound = match bundle.info.flavour.activations {
            Activations::F32 => 2e-3,
            Activations::F16 => 5e-2,
        };
        Ok(Self { golden, expected, bound, folder: bundle.dir.display().to_string() })
    }

    /// Compares. Gives the largest relative difference. The slots of `table` must be empty, and are afterwards.
    ///
    /// # Errors
    /// The logits differ by more than rounding does, or the session failed.
    pub fn compare(
        &self,
        backend: &mut dyn Backend,
        loader: &AdapterLoader,
        table: &AdapterTable,
    ) -> Result<f32, SelfCheckError> {
        let found = self.golden.logits(backend, loader, table)?;
        let mut largest = 0.0_f32;
        for (place, expected, found) in self.golden.rows(&self.expected, &found) {
            let difference = relative_difference(expected, found);
            if difference > self.bound {
                let (bound, folder) = (self.bound, self.folder.clone());
                let golden::Row { case, token } = place;
                return Err(SelfCheckError::Differs { case, token, found: difference, bound, folder });
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }
}

/// Largest difference over the largest expected magnitude; infinite where anything is no finite number.
fn relative_difference(expected: &[f32], found: &[f32]) -> f32 {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    let differences = expected.iter().zip(found).map(|(expected, found)| (expected - found).abs());
    differences
        .fold(0.0, |most, difference| if difference.is_finite() { f32::max(most, difference) } else { f32::INFINITY })
        / largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_logit_and_no_number_is_infinitely_far() {
        assert_eq!(relative_difference(&[1.0, -4.0], &[1.0, -3.0]), 0.25);
        for wrong in [f32::NAN, f32::INFINITY] {
            assert_eq!(relative_difference(&[1.0, 2.0], &[wrong, 2.0]), f32::INFINITY);
        }
    }
}
