//! Errors of configuration files.

/// A configuration that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A required field is missing.
    #[error("{file}: field `{field}` is missing")]
    Missing {
        /// Name of the file.
        file: String,
        /// Field name in the file's spelling.
        field: String,
    },
    /// A field has an invalid value.
    #[error("{file}: field `{field}` is {found}; expected {expected}")]
    Wrong {
        /// Name of the file.
        file: String,
        /// Field name in the file's spelling.
        field: String,
        /// Value in the file.
        found: String,
        /// Description of valid values.
        expected: String,
    },
    /// A setting that is not implemented.
    #[error("{file}: `{field}` = {found} is not supported; supported: {supported}")]
    Unsupported {
        /// Name of the file.
        file: String,
        /// Field name in the file's spelling.
        field: String,
        /// Value in the file.
        found: String,
        /// Supported values.
        supported: String,
    },
}
