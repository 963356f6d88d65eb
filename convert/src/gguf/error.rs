//! Why a GGUF file cannot be read.

use std::path::PathBuf;

/// A GGUF file that is damaged or of a kind that is not read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a GGUF file.
    #[error("{}: begins with {found:?}, not with GGUF: this is no GGUF file", path.display())]
    Magic {
        /// File.
        path: PathBuf,
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// A version or byte order that is not read.
    #[error(
        "{}: GGUF version {}; versions 2 and 3, little-endian, are read: convert the model again",
        path.display(),
        if *big_endian { "in big-endian byte order".to_owned() } else { version.to_string() }
    )]
    Version {
        /// File.
        path: PathBuf,
        /// Version as it reads in little-endian order.
        version: u32,
        /// It is a known version in the other byte order.
        big_endian: bool,
    },
    /// The file ends too early.
    #[error(
        "{}: {what} ends at byte {needed} of a file of {file} bytes; the file is truncated: fetch it again",
        path.display()
    )]
    Truncated {
        /// File.
        path: PathBuf,
        /// What is not whole.
        what: String,
        /// Where it would end.
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
        /// File.
        path: PathBuf,
        /// What is counted.
        what: String,
        /// The count.
        count: u64,
        /// Bytes after it.
        remaining: u64,
    },
    /// An entry that contradicts itself or the format.
    #[error("{}: `{field}`: {problem}", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
        /// Metadata key or tensor.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor type that is not read.
    #[error(
        "{}: tensor `{tensor}` is of type {kind}; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, \
         Q6_K: take a file of one of these",
        path.display()
    )]
    Kind {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Number and, where known, name of the type.
        kind: String,
    },
}
