//! What an adapter changes of a classifier's head: modules that PEFT saves whole (`modules_to_save`), and pairs.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::LoraConfig;
use super::weights::Weights;
use super::{AdapterError, CONFIG_BYTES_MAX, CONFIG_FILE, LoraPair, WEIGHTS_FILE, existing};
use crate::architecture::Architecture;
use crate::classifier::Classifier;
use crate::mapped;

/// Changes of a head. Empty for an adapter of the encoder alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadChanges {
    /// Tensors that take the place of the head's own, by their names in the checkpoint; of the same shapes.
    pub saved: BTreeMap<String, Vec<f32>>,
    /// Pairs by module.
    pub pairs: BTreeMap<String, LoraPair>,
}

impl HeadChanges {
    /// Those of the adapter in `dir`, on `base` with its `head`. Without one, changes of any head are a reason to refuse the adapter.
    ///
    /// # Errors
    /// Names the setting or tensor that cannot be applied exactly.
    pub fn open(dir: &Path, base: &Architecture, head: Option<&Classifier>) -> Result<Self, AdapterError> {
        let (config, weights) = (existing(dir, CONFIG_FILE)?, existing(dir, WEIGHTS_FILE)?);
        let bytes = mapped::read(&config, CONFIG_BYTES_MAX)
            .map_err(|source| AdapterError::Io { path: config.clone(), source })?;
        let config = LoraConfig::parse(&config, &bytes, base)?;
        Weights::open(&weights)?.head(&config, base, head)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.saved.is_empty() && self.pairs.is_empty()
    }
}
