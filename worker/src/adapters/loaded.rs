//! An adapter in the form and the memory of a backend, and in the memory of the host.

use std::{ops::Range, sync::Arc};

use slm_convert::pack::{PackError, PackedAdapter};
use slm_kernels::lora;

use crate::runtime::{BankError, BankImage, BankedAdapter};

/// An adapter in the memory of the host, ready to be placed in that of the backend. Clones share it.
#[derive(Debug, Clone)]
pub enum HostAdapter {
    /// For the CPU's operators, which read it where it is.
    Packed(Arc<PackedAdapter>),
    /// For the bank of a device, to be copied there.
    Image(Arc<BankImage>),
}

/// An adapter in the form and the memory of a backend.
#[derive(Debug)]
pub enum LoadedAdapter {
    /// For the CPU's operators.
    Packed(Arc<PackedAdapter>),
    /// In the bank of a device.
    Banked(BankedAdapter),
}

/// An adapter was not brought into that form.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It was not packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It did not get into the bank.
    #[error(transparent)]
    Bank(#[from] BankError),
}

impl From<PackedAdapter> for HostAdapter {
    fn from(packed: PackedAdapter) -> Self {
        Self::Packed(packed.into())
    }
}

impl HostAdapter {
    /// Digest of the adapter.
    pub fn digest(&self) -> &str {
        match self {
            Self::Packed(packed) => &packed.digest,
            Self::Image(image) => &image.digest,
        }
    }

    /// Largest rank of any module.
    pub fn rank_max(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.rank_max,
            Self::Image(image) => image.rank_max,
        }
    }

    /// Short names of the modules that it changes.
    pub fn target_modules(&self) -> &[String] {
        match self {
            Self::Packed(packed) => &packed.target_modules,
            Self::Image(image) => &image.target_modules,
        }
    }

    /// Bytes of its matrices.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Packed(packed) => packed.bytes(),
            Self::Image(image) => image.bytes(),
        }
    }

    /// The packed adapter, if it was packed by this process.
    pub fn newly_packed(&self) -> Option<&PackedAdapter> {
        match self {
            Self::Packed(packed) => Some(&**packed).filter(|packed| !packed.is_mapped()),
            Self::Image(_) => None,
        }
    }
}

impl From<PackedAdapter> for LoadedAdapter {
    fn from(packed: PackedAdapter) -> Self {
        Self::Packed(packed.into())
    }
}

impl From<BankedAdapter> for LoadedAdapter {
    fn from(banked: BankedAdapter) -> Self {
        Self::Banked(banked)
    }
}

impl LoadedAdapter {
    /// Digest of the adapter.
    pub fn digest(&self) -> &str {
        match self {
            Self::Packed(packed) => &packed.digest,
            Self::Banked(banked) => &banked.digest,
        }
    }

    /// Largest rank of any module.
    pub fn rank_max(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.rank_max,
            Self::Banked(banked) => banked.rank_max,
        }
    }

    /// Short names of the modules that it changes.
    pub fn target_modules(&self) -> &[String] {
        match self {
            Self::Packed(packed) => &packed.target_modules,
            Self::Banked(banked) => &banked.target_modules,
        }
    }

    /// Bytes of its matrices.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Packed(packed) => packed.bytes(),
            Self::Banked(banked) => banked.bytes,
        }
    }

    /// The same in the memory of the host, if it is there anyway.
    pub(super) fn in_host_memory(&self) -> Option<HostAdapter> {
        match self {
            Self::Packed(packed) => Some(HostAdapter::Packed(packed.clone())),
            Self::Banked(_) => None,
        }
    }

    /// Its matrices for the projection of that index, for the CPU's operators.
    pub(crate) fn projection(&self, index: usize) -> Option<lora::Adapter<'_>> {
        match self {
            Self::Packed(packed) => packed.projection(index),
            Self::Banked(_) => None,
        }
    }

    /// Its units of the bank.
    pub(crate) fn units(&self) -> Option<Range<usize>> {
        match self {
            Self::Packed(_) => None,
            Self::Banked(banked) => Some(banked.units()),
        }
    }
}
