//! Errors of a fetch.

use std::{io, path::PathBuf};

/// Reason why an artifact could not be fetched.
///
/// [`reason`](Self::reason) is the variant's name, which is also the reason of the operator's condition and the label
/// of a metric. `uri` never contains credentials or a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The URI, the digest or the options are invalid.
    #[error("{uri}: {message}")]
    BadReference {
        /// URI of the source.
        uri: String,
        /// The problem, and the correct form.
        message: String,
    },
    /// The source is not reachable over TLS, and plain text is not allowed.
    #[error("{uri}: {message}")]
    Insecure {
        /// URI of the source.
        uri: String,
        /// The host, and how to allow it.
        message: String,
    },
    /// The server requires credentials, or other ones.
    #[error("{uri}: {message}; check the credentials of this source")]
    Unauthorized {
        /// URI of the source.
        uri: String,
        /// Answer of the server.
        message: String,
    },
    /// The file, claim, repository, tag or digest does not exist.
    #[error("{uri}: {message}")]
    NotFound {
        /// URI of the source.
        uri: String,
        /// The missing item.
        message: String,
    },
    /// The server is unreachable or temporarily unavailable.
    #[error("{uri}: {message}")]
    Unreachable {
        /// URI of the source.
        uri: String,
        /// Error of the connection, or answer of the server.
        message: String,
    },
    /// The server refused permanently.
    #[error("{uri}: {message}")]
    Refused {
        /// URI of the source.
        uri: String,
        /// Answer of the server.
        message: String,
    },
    /// Fewer or more bytes arrived than announced. The partial download is kept and continued.
    #[error("{uri}: {file} has {actual} of {expected} bytes; fetch it again, or publish it again if it stays so")]
    Truncated {
        /// URI of the source.
        uri: String,
        /// Name of the file or blob.
        file: String,
        /// Announced number of bytes.
        expected: u64,
        /// Received number of bytes.
        actual: u64,
    },
    /// The bytes do not have the requested digest.
    #[error(
        "{uri}: {file} has digest {actual}, not {expected}; correct the digest if the change is wanted, else do not trust the source"
    )]
    DigestMismatch {
        /// URI of the source.
        uri: String,
        /// Name of the file, blob or manifest.
        file: String,
        /// Requested digest, `sha256:HEX`.
        expected: String,
        /// Digest of the received bytes, `sha256:HEX`.
        actual: String,
    },
    /// The media type of a manifest or layer is not supported.
    #[error("{uri}: {file} has media type {media_type}, {message}")]
    UnsupportedMediaType {
        /// URI of the source.
        uri: String,
        /// The layer or manifest, by digest.
        file: String,
        /// Media type.
        media_type: String,
        /// Supported media types.
        message: String,
    },
    /// An archive is damaged or contains an unsafe entry.
    #[error("{uri}: {file}: {message}")]
    UnsafeArchive {
        /// URI of the source.
        uri: String,
        /// Name of the archive.
        file: String,
        /// The entry, and the problem with it.
        message: String,
    },
    /// The artifact is larger than the cache or than an archive may be.
    #[error("{uri}: {bytes} bytes are more than the {limit} allowed; raise the limit of the cache, or publish less")]
    TooLarge {
        /// URI of the source.
        uri: String,
        /// Its size, as far as known.
        bytes: u64,
        /// Allowed size.
        limit: u64,
    },
    /// Everything in the cache is in use.
    #[error(
        "{uri}: {bytes} more bytes do not fit in {}, of whose {limit} bytes everything else is in use; raise the limit of the cache",
        dir.display()
    )]
    CacheFull {
        /// URI of the source.
        uri: String,
        /// Folder of the cache.
        dir: PathBuf,
        /// Bytes still to come.
        bytes: u64,
        /// Size limit of the cache.
        limit: u64,
    },
    /// The disk is full even after evicting everything that is not in use.
    #[error("{uri}: the disk is full: {bytes} more bytes are needed in {}; free some, or give the cache a larger volume", dir.display())]
    DiskFull {
        /// URI of the source.
        uri: String,
        /// Folder of the cache.
        dir: PathBuf,
        /// Bytes still to come, as far as known.
        bytes: u64,
    },
    /// A file cannot be read or written.
    #[error("{uri}: {}: {source}", path.display())]
    Io {
        /// URI of the source.
        uri: String,
        /// Path of the file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
}

impl FetchError {
    /// Name of the variant, for conditions and metrics.
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

    /// Whether the same fetch may succeed later without any change.
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

    /// An error of the file system; a caller that knows how much is still to come reports a full disk itself.
    pub(crate) fn io(uri: &str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { uri: uri.to_owned(), path: path.into(), source }
    }

    pub(crate) fn bad(uri: &str, message: impl Into<String>) -> Self {
        Self::BadReference { uri: uri.to_owned(), message: message.into() }
    }

    /// Whether a full disk or a quota caused it.
    pub(crate) fn is_full_disk(&self) -> bool {
        let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::Io { source, .. } if full(source.kind()))
    }
}
