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
    /// The matrix does not consist of whole GGUF blocks.
    Ragged {
        /// Inputs of the matrix.
        inputs: usize,
        /// Inputs of a block.
        block: usize,
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
            Self::Ragged { inputs, block } => {
                write!(
                    f,
                    "a matrix of {inputs} inputs is not made of whole blocks of {block}; keep it in another format"
                )
            }
        }
    }
}

impl std::error::Error for SourceError {}
