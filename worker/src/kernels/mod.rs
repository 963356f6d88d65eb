//! The arithmetic of adapters: `y += (x A) B` for rows that may each have another adapter.
//!
//! One algorithm, written once over a small vector interface (`simd::Simd`), compiled for each instruction set and
//! chosen at run time; see [`Level`].

mod lora;
mod simd;

pub(crate) use lora::{Rows, TILE, Tile, add_columns, hidden};
pub use simd::Level;
