//! Refusals of tools and of messages about them.

/// Tools, or messages about calls, that cannot be served. The message begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolsError {
    /// Too much of something.
    #[error("{field} has {found} {unit}; at most {most} are accepted")]
    TooMany {
        /// The request's field.
        field: String,
        /// What there is.
        found: usize,
        /// Of what.
        unit: &'static str,
        /// What is accepted.
        most: usize,
    },
    /// A field is wrong.
    #[error("{field} {why}")]
    Invalid {
        /// The request's field.
        field: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl ToolsError {
    pub(super) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    /// The request's field.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::TooMany { field, .. } | Self::Invalid { field, .. } => field,
        }
    }
}
