//! Errors of GGUF files.

use std::path::PathBuf;

/// A GGUF file that is damaged or not supported.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Not a GGUF file.
    #[error("{}: begins with {found:?}, not with GGUF: this is no GGUF file", path.display())]
    Magic {
        /// Path of the file.
        path: PathBuf,
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// An unsupported version or byte order.
    #[error(
        "{}: GGUF version {}; versions 2 and 3, little-endian, are read: convert the model again",
        path.display(),
        if *big_endian { "in big-endian byte order".to_owned() } else { version.to_string() }
    )]
    Version {
        /// Path of the file.
        path: PathBuf,
        /// Version as read in little-endian order.
        version: u32,
        /// Whether it is a known version in big-endian order.
        big_endian: bool,
    },
    /// The file ends too early.
    #[error(
        "{}: {what} ends at byte {needed} of a file of {file} bytes; the file is truncated: fetch it again",
        path.display()
    )]
    Truncated {
        /// Path of the file.
        path: PathBuf,
        /// Truncated item.
        what: String,
        /// End of the item, in bytes.
        needed: u64,
        /// Length of the file.
        file: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error(
        "{}: {what} is {count}, more than the remaining {remaining} bytes can hold; the file is damaged: fetch it again",
        path.display()
    )]
    Count {
        /// Path of the file.
        path: PathBuf,
        /// Counted items.
        what: String,
        /// The count.
        count: u64,
        /// Bytes left after the count.
        remaining: u64,
    },
    /// An inconsistent or invalid entry.
    #[error("{}: `{field}`: {problem}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Metadata key or tensor name.
        field: String,
        /// Description of the problem.
        problem: String,
    },
    /// A part of a model in several files that cannot be opened.
    #[error("{}: {problem}", path.display())]
    Part {
        /// Path of the part.
        path: PathBuf,
        /// Description of the problem.
        problem: String,
    },
    /// An unsupported tensor type.
    #[error(
        "{}: tensor `{tensor}` is of type {kind}; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, \
         IQ1 to IQ4, TQ1_0, TQ2_0, MXFP4: take a file of one of these",
        path.display()
    )]
    TensorType {
        /// Path of the file.
        path: PathBuf,
        /// Tensor name.
        tensor: String,
        /// Number and, if known, name of the type.
        kind: String,
    },
}
