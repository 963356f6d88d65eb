//! Why an artifact could not be had.

use std::{io, path::PathBuf};

/// Why an artifact could not be had.
///
/// [`reason`](Self::reason) is the variant's name: the same word is the reason of the condition that the operator shows
/// and the label of a metric. `uri` never holds credentials or a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The URI, the digest or the options make no sense.
    #[error("{uri}: {message}")]
    BadReference {
        /// What was asked for.
        uri: String,
        /// What is wrong with it and what to write instead.
        message: String,
    },
    /// It would have to be fetched without TLS.
    #[error("{uri}: {message}")]
    Insecure {
        /// What was asked for.
        uri: String,
        /// Which host, and how to allow it.
        message: String,
    },
    /// The server wants other credentials, or any.
    #[error("{uri}: {message}; check the credentials of this source")]
    Unauthorized {
        /// What was asked for.
        uri: String,
        /// What the server said.
        message: String,
    },
    /// There is no such file, claim, repository, tag or digest.
    #[error("{uri}: {message}")]
    NotFound {
        /// What was asked for.
        uri: String,
        /// What is missing.
        message: String,
    },
    /// The server cannot be reached, or says that it cannot answer now.
    #[error("{uri}: {message}")]
    Unreachable {
        /// What was asked for.
        uri: String,
        /// What the connection or the server said.
        message: String,
    },
    /// The server answered, in a way that trying again does not change.
    #[error("{uri}: {message}")]
    Refused {
        /// What was asked for.
        uri: String,
        /// What the server said.
        message: String,
    },
    /// Less, or more, arrived than the server or the manifest had said. What arrived is kept and continued.
    #[error("{uri}: {file} has {actual} of {expected} bytes; fetch it again, or publish it again if it stays so")]
    Truncated {
        /// What was asked for.
        uri: String,
        /// The file or blob.
        file: String,
        /// Bytes that it was said to have.
        expected: u64,
        /// Bytes that arrived.
        actual: u64,
    },
    /// The bytes are not those that were asked for.
    #[error(
        "{uri}: {file} has digest {actual}, not {expected}; correct the digest if the change is wanted, else do not trust the source"
    )]
    DigestMismatch {
        /// What was asked for.
        uri: String,
        /// The file, blob or manifest.
        file: String,
        /// `sha256:HEX` that was asked for.
        expected: String,
        /// `sha256:HEX` of what arrived.
        actual: String,
    },
    /// A manifest, or a layer, of a kind that is not known.
    #[error("{uri}: {file} has media type {media_type}, {message}")]
    UnsupportedMediaType {
        /// What was asked for.
        uri: String,
        /// The layer or manifest, by digest.
        file: String,
        /// Its media type.
        media_type: String,
        /// What is supported.
        message: String,
    },
    /// An archive that is damaged, or holds what must not be unpacked.
    #[error("{uri}: {file}: {message}")]
    UnsafeArchive {
        /// What was asked for.
        uri: String,
        /// The archive, and the entry in it.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// It is larger than the cache, or than an archive may be.
    #[error("{uri}: {bytes} bytes are more than the {limit} allowed; raise the limit of the cache, or publish less")]
    TooLarge {
        /// What was asked for.
        uri: String,
        /// Bytes it has, as far as known.
        bytes: u64,
        /// Bytes it may have.
        limit: u64,
    },
    /// Everything in the cache is in use.
    #[error(
        "{uri}: {bytes} more bytes do not fit in {}, of whose {limit} bytes everything else is in use; raise the limit of the cache",
        dir.display()
    )]
    CacheFull {
        /// What was asked for.
        uri: String,
        /// The cache.
        dir: PathBuf,
        /// Bytes still to come.
        bytes: u64,
        /// Limit of the cache.
        limit: u64,
    },
    /// The disk is full, also after everything that was not in use was evicted.
    #[error("{uri}: the disk is full: {bytes} more bytes are needed in {}; free some, or give the cache a larger volume", dir.display())]
    DiskFull {
        /// What was asked for.
        uri: String,
        /// The cache.
        dir: PathBuf,
        /// Bytes still to come, as far as known.
        bytes: u64,
    },
    /// A file cannot be read or written.
    #[error("{uri}: {}: {source}", path.display())]
    Io {
        /// What was asked for.
        uri: String,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FetchError {
    /// The variant's name, for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadReference { .. } => "BadReference",
            Self::Insecure { .. } => "Insecure",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::NotFound { .. } => "NotFound",
            Self::Unreachable { .. } => "Unreachable",
            Self::Refused { .. } => "Refused",
            Self::Truncated { .. } => "Truncated",
            Self::DigestMismatch { .. } => "DigestMismatch",
            Self::UnsupportedMediaType { .. } => "UnsupportedMediaType",
            Self::UnsafeArchive { .. } => "UnsafeArchive",
            Self::TooLarge { .. } => "TooLarge",
            Self::CacheFull { .. } => "CacheFull",
            Self::DiskFull { .. } => "DiskFull",
            Self::Io { .. } => "Io",
        }
    }

    /// Whether the same fetch may go well later although nobody changes anything about it.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Truncated { .. }
            | Self::CacheFull { .. }
            | Self::DiskFull { .. }
            | Self::Io { .. } => true,
            Self::BadReference { .. }
            | Self::Insecure { .. }
            | Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::DigestMismatch { .. }
            | Self::UnsupportedMediaType { .. }
            | Self::UnsafeArchive { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Of the file system; a full disk is told apart by whoever knows how much was still to come.
    pub(crate) fn io(uri: &str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { uri: uri.to_owned(), path: path.into(), source }
    }

    pub(crate) fn bad(uri: &str, message: impl Into<String>) -> Self {
        Self::BadReference { uri: uri.to_owned(), message: message.into() }
    }

    /// Whether a disk without room, or a quota, stopped it.
    pub(crate) fn is_full_disk(&self) -> bool {
        let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { source, .. } if full(source.kind()))
    }
}
