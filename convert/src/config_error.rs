//! What can be wrong with a configuration.

/// A configuration that cannot be served as it says.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A required field is absent.
    #[error("{file}: field `{field}` is missing")]
    Missing {
        /// File that was read.
        file: String,
        /// Field, as that file spells it.
        field: String,
    },
    /// A field does not hold what it must.
    #[error("{file}: field `{field}` is {found}; expected {expected}")]
    Wrong {
        /// File that was read.
        file: String,
        /// Field, as that file spells it.
        field: String,
        /// What stands there.
        found: String,
        /// What would have been right.
        expected: String,
    },
    /// A setting that no graph here implements.
    #[error("{file}: `{field}` = {found} is not supported; supported: {supported}")]
    Unsupported {
        /// File that was read.
        file: String,
        /// Field, as that file spells it.
        field: String,
        /// What it asks for.
        found: String,
        /// What can be asked for.
        supported: String,
    },
}
