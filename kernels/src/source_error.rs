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
    /// A part of a matrix, not the last, that does not end with a tile.
    Unaligned {
        /// Outputs of the part.
        outputs: usize,
        /// Columns of a tile.
        tile: usize,
    },
    /// No parts, or too many.
    Parts {
        /// Parts of the matrix.
        parts: usize,
        /// Bound on the parts.
        max: usize,
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
            Self::Unaligned { outputs, tile } => {
                write!(
                    f,
                    "a part of a matrix has {outputs} outputs, which are no multiple of {tile}; give all one format"
                )
            }
            Self::Parts { parts, max } => write!(f, "a matrix of {parts} parts; between 1 and {max} are possible"),
        }
    }
}

impl std::error::Error for SourceError {}
