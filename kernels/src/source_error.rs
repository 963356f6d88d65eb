//! What can be wrong with weights that are quantised already.

/// What was wrong with quantised weights that were to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceError {
    /// A buffer has not the size that the shape asks for.
    Size {
        /// Which buffer.
        what: &'static str,
        /// Its length, in elements.
        got: usize,
        /// The length that the shape asks for.
        want: usize,
    },
    /// GGUF stores whole blocks only.
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
