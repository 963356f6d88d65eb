//! Which execution provider computes each node of a session's graph.
#![allow(unsafe_code)] // ONNX Runtime's C interface; each block says why it is sound.

use std::{collections::BTreeMap, ffi::CStr, ptr};

use ort::{AsPointer, session::Session};

/// Option of a session that makes it record what [`of`] reads.
pub(super) const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// Number of nodes for each execution provider, by ONNX Runtime's names.
pub type Assignment = BTreeMap<String, usize>;

/// The assignment of a session that was opened with [`RECORD`].
pub(super) fn of(session: &Session) -> ort::Result<Assignment> {
    let api = ort::api();
    let mut assignment = Assignment::new();
    let (mut subgraphs, mut count) = (ptr::null(), 0);
    // SAFETY: the session lives; the array and what it points to are the session's.
    let subgraphs = unsafe {
        ort::Error::result_from_status((api.Session_GetEpGraphAssignmentInfo)(
            session.ptr(),
            &raw mut subgraphs,
            &raw mut count,
        ))?;
        slice(subgraphs, count)
    };
    for &subgraph in subgraphs {
        let (mut name, mut nodes, mut count) = (ptr::null(), ptr::null(), 0);
        // SAFETY: as above; the name is a C string.
        let name = unsafe {
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetEpName)(subgraph, &raw mut name))?;
            ort::Error::result_from_status((api.EpAssignedSubgraph_GetNodes)(
                subgraph,
                &raw mut nodes,
                &raw mut count,
            ))?;
            CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        *assignment.entry(name).or_default() += count;
    }
    Ok(assignment)
}

/// ONNX Runtime's arrays may be null when they are empty.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise: `count` values that live as long as their session.
    unsafe { std::slice::from_raw_parts(first, count) }
}
