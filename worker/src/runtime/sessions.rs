//! What sessions of all providers have in common.

use std::sync::{Mutex, PoisonError};

use ort::session::{
    Session,
    builder::{GraphOptimizationLevel, SessionBuilder},
};
use slm_convert::bundle::Bundle;

use super::{assignment, backend::SessionError, library::Runtime};

/// Options of a session that has one run at a time.
pub(super) fn builder(runtime: &Runtime) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(&runtime.environment)?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::Level3).map_err(plain)?;
    let builder = builder.with_inter_threads(1).map_err(plain)?;
    let builder = builder.with_config_entry(assignment::RECORD.0, assignment::RECORD.1).map_err(plain)?;
    // A memory pattern would be kept for every pair of sizes that ever occurred, which are thousands.
    builder.with_memory_pattern(false).map_err(plain)
}

/// The error without the builder.
pub(super) fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
    error.into()
}

/// Opens the bundle's graph.
pub(super) fn commit(builder: &mut SessionBuilder, bundle: &Bundle) -> Result<Session, SessionError> {
    // ONNX Runtime registers the operator domains of all sessions in one table without a lock: of two that are opened concurrently,
    // one could fail.
    static OPENING: Mutex<()> = Mutex::new(());
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = builder.commit_from_file(bundle.graph());
    opened.map_err(|source| SessionError::Open { bundle: bundle.dir.clone(), source })
}
