//! Flavours: what one checkpoint can be converted to, one for each kind of execution provider and precision.

use serde::{Deserialize, Serialize};

use super::Precision;

/// Form of a graph: how it takes sequences, adapters, and keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Form {
    /// One ragged batch of tokens; pages of keys and values, and adapters, are beside the graph, in the project's own
    /// operators. For the CPU.
    #[default]
    Paged,
    /// A batch of rows of equal length. Keys and values are inputs and outputs with a row for each sequence, attention is
    /// `com.microsoft.GroupQueryAttention`, adapters are inputs. For CUDA.
    Gqa,
    /// As `Gqa`, of operators of the ONNX standard alone: `TensorScatter` and `Attention` of opset 24. For TensorRT.
    Standard,
    /// As `Gqa`, of operators of opset 21, with attention in parts. Keys and values of earlier tokens are inputs, those of the
    /// new tokens outputs, which the caller appends. For OpenVINO.
    Delta,
    /// As `Paged`, but of whole texts, and with the states of all tokens as the result instead of logits. For embeddings, on
    /// the CPU.
    States,
}

/// Type of activations, keys and values of a graph of rows. Graphs of pages have f32 activations; the worker chooses the
/// type of their keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Activations {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
}

/// What a checkpoint is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flavour {
    /// Form of the graph.
    #[serde(default)]
    pub form: Form,
    /// Storage type of the linear layers' weights.
    pub precision: Precision,
    /// Type of activations.
    #[serde(default)]
    pub activations: Activations,
}

impl Flavour {
    /// Of the CPU's form.
    #[must_use]
    pub fn paged(precision: Precision) -> Self {
        Self { form: Form::Paged, precision, activations: Activations::F32 }
    }

    /// Whether its graph has the project's operators over pages.
    pub(super) fn is_paged(self) -> bool {
        matches!(self.form, Form::Paged | Form::States)
    }

    /// Why no converter makes it; `None` if one does.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            Self { form: Form::Paged | Form::States, precision: Precision::F16, .. } => {
                Some("16-bit weights are for GPUs; on the CPU choose F32, Int8 or Int4")
            }
            Self { form: Form::Paged | Form::States, activations: Activations::F16, .. } => {
                Some("the CPU computes in 32-bit floats")
            }
            Self { precision: Precision::F32, activations: Activations::F16, .. } => {
                Some("32-bit weights need 32-bit activations; choose F16")
            }
            Self { form: Form::Standard, precision: Precision::Int8, .. } => {
                Some("graphs of standard operators have weights of floats or of 4 bits; choose F16 or Int4")
            }
            _ => None,
        }
    }
}

/// Part of a bundle's name.
impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { form, precision, activations } = self;
        match form {
            Form::Paged => write!(f, "{precision}"),
            Form::States => write!(f, "states-{precision}"),
            Form::Gqa => write!(f, "gqa-{precision}-{activations:?}"),
            Form::Standard => write!(f, "standard-{precision}-{activations:?}"),
            Form::Delta => write!(f, "delta-{precision}-{activations:?}"),
        }
    }
}
