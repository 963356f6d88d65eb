//! CPU kernels for decoders: quantised linear layers with LoRA, `y = x W (+ residual) + each row's adapter`, paged
//! attention ([`attention`]), layers with a state for each sequence ([`states`]), and mixtures of experts ([`experts`]).
//!
//! Weights of 4 or 8 bits are packed once ([`Packed`]) and shared by every session ([`Weights`]); activations are
//! quantised to 8 bits once a step ([`Activations`]); then any number of threads multiply ranges of columns
//! ([`Linear::columns`]), adding each row's adapter ([`lora`]) while the outputs are in cache. The instruction set is
//! chosen at run time from what the CPU has ([`Level`]).
//!
//! Guarantee: every output has the same bits whichever rows are computed with it, however columns are cut, and on
//! every instruction set.
//!
//! A linear layer, from any thread pool: `Activations::reshape`, then `Quantizer::rows` (or `rows_with`, which norms or
//! gates rows first) for all rows; then [`lora::hidden`] for each [`lora::AdapterRows`], and `Linear::columns` for each
//! of [`Linear::range`], which calls [`Adapters::ready`] when it needs the former. The calls of each may run
//! concurrently.
//!
//! Not in this crate: operators of ONNX Runtime, threads, files.
//!
//! The tests cover every level that the CPU has and name those they skip. Elsewhere:
//!
//! ```text
//! valgrind -q --error-exitcode=9 target/release/deps/kernels-*            # AVX2, memory accesses
//! RUSTFLAGS=-Ctarget-feature=+avx2,+fma,+avxvnni,+avx512f,+avx512bw,+avx512vl,+avx512vnni \
//!   cargo +nightly miri test -p slm-kernels --test kernels every_path       # AVX-512 and VNNI, without such a CPU
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
//! CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu' \
//!   cargo test --release -p slm-kernels --target aarch64-unknown-linux-gnu  # NEON
//! ```
//!
//! Modules in the order in which data meets them.

mod level;
mod memory;
mod numbers;
mod rows;

mod format;
mod pack;
mod source_error;
mod sources;

mod activations;
pub mod attention;
pub mod experts;
pub mod floats;
mod linear;
pub mod lora;
mod matrix;
pub mod phases;
mod product;
pub mod rowwise;
mod simd;
pub mod states;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod isa;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub mod roofline;

pub use activations::{Activations, Quantizer};
pub use format::{BLOCK, Format, TILE_COLUMNS};
pub use level::Level;
pub use linear::{Adapters, Linear};
pub use matrix::{Matrix, PARTS_MAX};
pub use pack::{Block, Packed, Weights};
pub use product::Start;
pub use rows::Rows;
pub use source_error::SourceError;
