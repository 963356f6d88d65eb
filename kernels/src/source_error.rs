//! Errors of packing quantised weights.

/// Quantised weights that cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceError {
    /// A buffer does not have the size of the shape.
    Size {
        /// Name of the buffer.
        what: &'static str,
        /// Its length, in elements.
        got: usize,
        /// Expected length, in elements.
        want: usize,
    },
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size { what, got, want } => {
                write!(
                    f,
                    "the {what} of a matrix have {got} elements where its shape asks for {want}; pass whole tensors"
                )
            }
        }
    }
}

impl std::error::Error for SourceError {}
