//! Dense layers after the pooling of a text's states: `Dense` modules of sentence-transformers, and heads of classifiers. They see one
//! row for each text, so they stay as they are in the file, in 32-bit floats and outside of the graph.

use crate::checkpoint::Tensor;

/// `norm(activation(W x + b))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// Numbers of its input.
    pub inputs: usize,
    /// Numbers of its result.
    pub outputs: usize,
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// One for each output.
    pub bias: Vec<f32>,
    /// Activation of the result.
    pub activation: DenseActivation,
    /// Norm of the activated result.
    pub norm: Option<DenseNorm>,
}

/// Layer norm of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseNorm {
    /// Gains.
    pub gain: Vec<f32>,
    /// Biases.
    pub bias: Vec<f32>,
    /// Epsilon under the root.
    pub epsilon: f32,
}

/// Activation of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// `tanh(x)`.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// `x * Phi(x)`.
    Gelu,
    /// `x * Phi(x)` by its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

/// Activations by the names of PyTorch's classes, and by those of transformers.
const ACTIVATIONS: [(&str, &str, DenseActivation); 7] = [
    ("Identity", "linear", DenseActivation::Identity),
    ("Tanh", "tanh", DenseActivation::Tanh),
    ("ReLU", "relu", DenseActivation::Relu),
    ("GELU", "gelu", DenseActivation::Gelu),
    ("", "gelu_pytorch_tanh", DenseActivation::GeluTanh),
    ("SiLU", "silu", DenseActivation::Silu),
    ("Sigmoid", "sigmoid", DenseActivation::Sigmoid),
];

impl DenseActivation {
    /// That of a class such as `torch.nn.modules.activation.Tanh`.
    ///
    /// # Errors
    /// The classes that are supported.
    pub(crate) fn of_class(class: &str) -> Result<Self, String> {
        let (module, name) = class.rsplit_once('.').unwrap_or(("", class));
        let known = ACTIVATIONS.iter().filter(|(class, ..)| !class.is_empty());
        let found = known.clone().find(|(class, ..)| *class == name && module.starts_with("torch.nn"));
        found.map(|(.., activation)| *activation).ok_or_else(|| {
            let classes: Vec<_> = known.map(|(class, ..)| format!("torch.nn.{class}")).collect();
            classes.join(", ")
        })
    }

    /// That of a name such as `gelu`.
    ///
    /// # Errors
    /// The names that are supported.
    pub(crate) fn of_name(name: &str) -> Result<Self, String> {
        let found = ACTIVATIONS.iter().find(|(_, known, _)| *known == name);
        found.map(|(.., activation)| *activation).ok_or_else(|| {
            let names: Vec<_> = ACTIVATIONS.iter().map(|(_, name, _)| *name).collect();
            names.join(", ")
        })
    }
}

impl Dense {
    /// Of a matrix and a bias, which may be missing, for rows of `inputs`.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub(crate) fn new(
        inputs: usize,
        weight: Tensor,
        bias: Option<Tensor>,
        activation: DenseActivation,
    ) -> Result<Self, String> {
        let outputs = weight.shape.first().copied().unwrap_or(0);
        if weight.shape != [outputs, inputs] || outputs == 0 {
            return Err(format!("weight has shape {:?}; its input has {inputs} numbers", weight.shape));
        }
        let bias = match bias {
            Some(bias) if bias.shape == [outputs] => bias.data,
            Some(bias) => return Err(format!("bias has shape {:?}; its result has {outputs} numbers", bias.shape)),
            None => vec![0.0; outputs],
        };
        if !weight.data.iter().chain(&bias).all(|x| x.is_finite()) {
            return Err("it has a number that is not finite".to_owned());
        }
        Ok(Self { inputs, outputs, weight: weight.data, bias, activation, norm: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        Tensor { shape: shape.to_vec(), data: vec![1.0; shape.iter().product()] }
    }

    #[test]
    fn activations_are_found_by_both_names() {
        let class = DenseActivation::of_class;
        assert_eq!(class("torch.nn.modules.activation.Tanh"), Ok(DenseActivation::Tanh));
        assert_eq!(class("torch.nn.modules.linear.Identity"), Ok(DenseActivation::Identity));
        assert!(class("torch.nn.modules.activation.Mish").is_err_and(|known| known.contains("torch.nn.Sigmoid")));
        assert!(class("my.package.Tanh").is_err() && class("torch.nn.").is_err());
        assert_eq!(DenseActivation::of_name("gelu"), Ok(DenseActivation::Gelu));
        assert!(DenseActivation::of_name("mish").is_err_and(|known| known.contains("gelu_pytorch_tanh")));
    }

    #[test]
    fn shapes_have_to_fit() {
        let of = |weight, bias| Dense::new(4, weight, bias, DenseActivation::Identity).map(|dense| dense.outputs);
        assert_eq!(of(tensor(&[2, 4]), None), Ok(2));
        assert_eq!(of(tensor(&[2, 4]), Some(tensor(&[2]))), Ok(2));
        assert!(of(tensor(&[2, 3]), None).is_err_and(|problem| problem.contains("[2, 3]")));
        assert!(of(tensor(&[4]), None).is_err());
        assert!(of(tensor(&[2, 4]), Some(tensor(&[4]))).is_err_and(|problem| problem.contains("bias")));
        let mut wrong = tensor(&[2, 4]);
        wrong.data[3] = f32::NAN;
        assert!(of(wrong, None).is_err_and(|problem| problem.contains("not finite")));
    }
}
