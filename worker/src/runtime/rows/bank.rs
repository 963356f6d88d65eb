//! The bank: matrices of all loaded adapters, on the device, as `slm_convert::graph::rows` describes them.
#![allow(unsafe_code)] // Memory of the device; the block says who else uses it.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use half::f16;
use slm_convert::{
    architecture::{Architecture, Projection},
    graph::{Activations, rows::projections},
    peft::Adapter,
};

use super::ranges::Ranges;
use crate::runtime::device::{Device, DeviceError, Memory};

/// Fewest units of a bank.
const UNITS_MIN: usize = 16;

/// An adapter does not get into the bank.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// The bank is full.
    #[error(
        "no room for rank {rank} in the device's memory of adapters: {free} of {units} ranks are free, side by side or not; unload \
         an adapter, wait until requests to replaced versions end, or raise spec.adapters.slots of the model"
    )]
    Full {
        /// Rank of the adapter.
        rank: usize,
        /// Free units.
        free: usize,
        /// All units.
        units: usize,
    },
    /// A value is too large for the device's type.
    #[error(
        "layer {layer}, {module}: {value} is beyond what the adapter's {side} holds on this device; use a smaller scale or alpha"
    )]
    OutOfRange {
        /// First such layer.
        layer: usize,
        /// Short name of the linear layer.
        module: String,
        /// A or B.
        side: &'static str,
        /// The value.
        value: f32,
    },
    /// The adapter is in the form of a device, and the backend is none.
    #[error("an adapter prepared for a device came to a backend without one; load it again")]
    NoBank,
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Both matrices of a projection, for all adapters.
pub(super) struct Pair {
    pub(super) layer: usize,
    pub(super) projection: Projection,
    pub(super) a: Memory,
    pub(super) b: Memory,
    /// Linear layers of the projection.
    pub(super) linears: usize,
    /// Widths of rows of A and of B.
    pub(super) widths: [usize; 2],
}

/// The bank.
pub(crate) struct Bank {
    pub(super) pairs: Vec<Pair>,
    architecture: Architecture,
    activations: Activations,
    pub(super) units: usize,
    free: Mutex<Ranges>,
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank").field("units", &self.units).finish_non_exhaustive()
    }
}

/// An adapter as the bank takes it, in the memory of the host.
#[derive(Debug)]
pub struct BankImage {
    /// Digest of the adapter.
    pub digest: String,
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Modules that it changes.
    pub target_modules: Vec<String>,
    /// Bytes of A and of B for each pair of the bank.
    sides: Vec<[Vec<u8>; 2]>,
}

impl BankImage {
    /// Bytes of its matrices.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sides.iter().flatten().map(|side| side.len() as u64).sum()
    }
}

/// An adapter in the bank, as long as anybody holds this.
#[derive(Debug)]
pub struct BankedAdapter {
    /// Digest of the adapter.
    pub digest: String,
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Modules that it changes.
    pub target_modules: Vec<String>,
    /// Bytes that its matrices take.
    pub bytes: u64,
    units: Range<usize>,
    bank: Arc<Bank>,
}

impl BankedAdapter {
    /// Its units of the bank.
    pub(crate) fn units(&self) -> Range<usize> {
        self.units.clone()
    }
}

impl Drop for BankedAdapter {
    fn drop(&mut self) {
        self.bank.free.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.units.clone());
    }
}

impl Bank {
    /// An empty bank with room for adapters of `units` ranks together.
    pub(in crate::runtime) fn new(
        device: &Arc<dyn Device>,
        architecture: &Architecture,
        activations: Activations,
        units: usize,
    ) -> Result<Self, DeviceError> {
        let units = units.next_multiple_of(UNITS_MIN).max(UNITS_MIN);
        let element = element_bytes(activations);
        let mut pairs = Vec::new();
        for (layer, projection, linears) in projections(architecture) {
            let inputs = linears.first().map_or(0, |linear| linear.inputs);
            let widths = [inputs, linears.iter().map(|linear| linear.outputs).sum()];
            let memory = |width: usize| {
                Memory::zeroed(device, units * linears.len() * width * element, "the matrices of adapters")
            };
            let [a, b] = [memory(widths[0])?, memory(widths[1])?];
            pairs.push(Pair { layer, projection, a, b, linears: linears.len(), widths });
        }
        Ok(Self { pairs, architecture: architecture.clone(), activations, units, free: Mutex::new(Ranges::new(units)) })
    }

    /// What `adapter` is in the bank, its scaling multiplied by `scale`.
    ///
    /// # Errors
    /// A value is too large.
    pub(crate) fn image(&self, adapter: &Adapter, scale: f32) -> Result<BankImage, BankError> {
        let rank = adapter.rank_max.max(1);
        let sides = self.pairs.iter().map(|pair| {
            let sides = self.matrices(adapter, scale, pair, rank)?;
            Ok(sides.map(|values| encoded(&values, self.activations)))
        });
        Ok(BankImage {
            digest: adapter.digest.clone(),
            rank_max: adapter.rank_max,
            target_modules: adapter.target_modules.clone(),
            sides: sides.collect::<Result<_, BankError>>()?,
        })
    }

    /// Puts an adapter into the bank, while others are in use.
    ///
    /// # Errors
    /// There is no room, or the device failed.
    pub(crate) fn place(self: &Arc<Self>, image: &BankImage) -> Result<BankedAdapter, BankError> {
        let rank = image.rank_max.max(1);
        let units = {
            let mut ranges = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let full = BankError::Full { rank, free: ranges.free(), units: self.units };
            ranges.take(rank).ok_or(full)?
        };
        let banked = BankedAdapter {
            digest: image.digest.clone(),
            rank_max: image.rank_max,
            target_modules: image.target_modules.clone(),
            bytes: image.bytes(),
            units: units.clone(),
            bank: self.clone(),
        };
        for (pair, sides) in self.pairs.iter().zip(&image.sides) {
            for ((memory, width), bytes) in [&pair.a, &pair.b].into_iter().zip(pair.widths).zip(sides) {
                let row = width * element_bytes(self.activations);
                // SAFETY: the units are this adapter's alone, and no request has it yet. Runs that read them for other rows
                // drop what they make of them.
                unsafe { memory.write(units.start * pair.linears * row, bytes)? };
            }
        }
        Ok(banked)
    }

    /// Rows of A and of B, `[linears * rank, width]` each.
    fn matrices(&self, adapter: &Adapter, scale: f32, pair: &Pair, rank: usize) -> Result<[Vec<f32>; 2], BankError> {
        let &Pair { layer, projection, linears, widths: [inputs, outputs], .. } = pair;
        let (mut a, mut b) = (vec![0.0; linears * rank * inputs], vec![0.0; linears * rank * outputs]);
        let (first, mut before) = (self.architecture.first(layer, projection), 0);
        for (index, linear) in self.architecture.fused(layer, projection).iter().enumerate() {
            if let Some(lora) = adapter.pairs.get(&(layer, first + index)) {
                let out_of_range =
                    |side, value| BankError::OutOfRange { layer, module: linear.short_name().to_owned(), side, value };
                let own = index * rank;
                a[own * inputs..][..lora.rank * inputs].copy_from_slice(&lora.a.values());
                let factor = lora.scaling * scale;
                for (output, row) in lora.b.values().chunks_exact(lora.rank).enumerate() {
                    for (column, value) in row.iter().enumerate() {
                        b[(own + column) * outputs + before + output] = value * factor;
                    }
                }
                // Those of earlier linear layers are in range: they were looked at before.
                for (side, values) in [("A", &a[own * inputs..]), ("B", &b[own * outputs..])] {
                    if let Some(&value) = values.iter().find(|value| !self.holds(**value)) {
                        return Err(out_of_range(side, value));
                    }
                }
            }
            before += linear.outputs;
        }
        Ok([a, b])
    }

    fn holds(&self, value: f32) -> bool {
        match self.activations {
            Activations::F32 => value.is_finite(),
            Activations::F16 => value.abs() <= f16::MAX.to_f32(),
        }
    }
}

pub(super) fn element_bytes(activations: Activations) -> usize {
    match activations {
        Activations::F32 => size_of::<f32>(),
        Activations::F16 => size_of::<f16>(),
    }
}

/// Bytes of `values` in the type of the activations.
pub(super) fn encoded(values: &[f32], activations: Activations) -> Vec<u8> {
    match activations {
        Activations::F32 => bytemuck::cast_slice(values).to_vec(),
        Activations::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
    }
}
