//! The backend over rows: graphs of standard operators, keys and values in one row of device memory for each sequence.
//!
//! A step becomes one run for all answers and one for each prompt (`plan`). Adapters are in a bank on the device (`bank`), of
//! which a run takes the beginning that holds its own. All memory that the graph sees is the backend's, at addresses that do
//! not change, so that runs of answers can be captured as CUDA graphs.

mod bank;
pub(super) mod bank_add;
mod cache;
mod inputs;
mod plan;
mod ranges;
mod session;

pub(super) use bank::Bank;
pub use bank::{BankError, BankImage, BankedAdapter};
pub(super) use inputs::run_tokens;
pub(super) use session::{RowsSession, row_bytes};
