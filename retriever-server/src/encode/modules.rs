//! The steps of sentence-transformers between the pooled vector and the vector of a text.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::EncodeError;
use super::pooling::normalize;
use super::settings::{Activation, ModuleSettings};

/// The number that PyTorch's `LayerNorm` adds to the variance.
const VARIANCE_OFFSET: f64 = 1e-5;

/// A step, with its weights.
#[derive(Debug)]
pub(super) enum Module {
    Normalize,
    Dense(Dense),
    LayerNorm { weight: Vec<f32>, bias: Vec<f32> },
}

/// A dense layer.
#[derive(Debug)]
pub(super) struct Dense {
    /// Row after row, one for each output.
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    activation: Activation,
    residual: Residual,
    inputs: usize,
    outputs: usize,
}

/// The part of a dense layer's input that is added to its output.
#[derive(Debug)]
enum Residual {
    Nothing,
    Input,
    /// The product with a matrix like that of the layer.
    Projected(Vec<f32>),
}

impl Module {
    /// Opens the weights of a step.
    pub(super) fn open(settings: &ModuleSettings) -> Result<Self, EncodeError> {
        match settings {
            ModuleSettings::Normalize => Ok(Self::Normalize),
            ModuleSettings::LayerNorm { weights } => read(weights, |tensors| {
                let (weight, sizes) = tensor(tensors, "norm.weight")?;
                let bias = matching(tensors, "norm.bias", &sizes)?;
                Ok(Self::LayerNorm { weight, bias })
            }),
            &ModuleSettings::Dense { ref weights, activation, has_residual } => {
                read(weights, |tensors| {
                    let (weight, sizes) = tensor(tensors, "linear.weight")?;
                    let &[outputs, inputs] = sizes.as_slice() else {
                        return Err(format!("linear.weight has sizes {sizes:?}, expected two"));
                    };
                    let has_bias = tensors.names().contains(&"linear.bias");
                    let bias = has_bias.then(|| matching(tensors, "linear.bias", &[outputs]));
                    let residual = match (has_residual, inputs == outputs) {
                        (false, _) => Residual::Nothing,
                        (true, true) => Residual::Input,
                        (true, false) => {
                            Residual::Projected(matching(tensors, "residual.weight", &sizes)?)
                        }
                    };
                    let bias = bias.transpose()?;
                    Ok(Self::Dense(Dense { weight, bias, activation, residual, inputs, outputs }))
                })
            }
        }
    }

    /// Returns the dimensions of the vectors that it takes and returns; `None` if it takes any.
    pub(super) fn dimensions(&self) -> Option<[usize; 2]> {
        match self {
            Self::Normalize => None,
            Self::Dense(dense) => Some([dense.inputs, dense.outputs]),
            Self::LayerNorm { weight, .. } => Some([weight.len(); 2]),
        }
    }

    /// Applies the step to a vector of the dimension that it takes.
    pub(super) fn apply(&self, vector: &mut Vec<f32>) {
        match self {
            Self::Normalize => normalize(vector),
            Self::Dense(dense) => *vector = dense.apply(vector),
            Self::LayerNorm { weight, bias } => layer_norm(vector, weight, bias),
        }
    }
}

impl Dense {
    fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let residual = match &self.residual {
            Residual::Nothing => vec![0.0; self.outputs],
            Residual::Input => vector.to_vec(),
            Residual::Projected(matrix) => products(matrix, vector),
        };
        let bias = |output| self.bias.as_ref().map_or(0.0, |bias| bias[output]);
        let outputs = products(&self.weight, vector).into_iter().enumerate().zip(residual);
        outputs
            .map(|((output, product), residual)| {
                activate(self.activation, product + bias(output)) + residual
            })
            .collect()
    }
}

/// Multiplies each row of a matrix with a vector.
fn products(matrix: &[f32], vector: &[f32]) -> Vec<f32> {
    let product = |row: &[f32]| row.iter().zip(vector).map(|(left, right)| left * right).sum();
    matrix.chunks_exact(vector.len()).map(product).collect()
}

fn activate(activation: Activation, value: f32) -> f32 {
    match activation {
        Activation::Identity => value,
        Activation::Tanh => value.tanh(),
        Activation::Relu => value.max(0.0),
        Activation::Gelu => {
            let wide = f64::from(value);
            (0.5 * wide * (1.0 + erf(wide * std::f64::consts::FRAC_1_SQRT_2))) as f32
        }
        Activation::Silu => value / (1.0 + (-value).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-value).exp()),
    }
}

/// Computes the error function to 1.5e-7 (Abramowitz and Stegun, "Handbook of Mathematical Functions",
/// 7.1.26).
fn erf(value: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * value.abs());
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.into_iter().fold(0.0, |sum, term| (sum + term) * t);
    value.signum() * (1.0 - sum * (-value * value).exp())
}

fn layer_norm(vector: &mut [f32], weight: &[f32], bias: &[f32]) {
    let count = vector.len() as f64;
    let mean = vector.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = vector.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
    let scale = 1.0 / (squares / count + VARIANCE_OFFSET).sqrt();
    for ((value, weight), bias) in vector.iter_mut().zip(weight).zip(bias) {
        *value = ((f64::from(*value) - mean) * scale) as f32 * weight + bias;
    }
}

/// Reads a file of weights.
fn read<T>(
    path: &Path,
    open: impl FnOnce(&SafeTensors<'_>) -> Result<T, String>,
) -> Result<T, EncodeError> {
    let bytes =
        fs::read(path).map_err(|source| EncodeError::Io { path: path.to_owned(), source })?;
    let opened = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string());
    opened
        .and_then(|tensors| open(&tensors))
        .map_err(|reason| EncodeError::Weights { path: path.to_owned(), reason })
}

/// Returns a tensor of these sizes.
fn matching(tensors: &SafeTensors<'_>, name: &str, sizes: &[usize]) -> Result<Vec<f32>, String> {
    let (numbers, found) = tensor(tensors, name)?;
    if found != sizes {
        return Err(format!("{name} has sizes {found:?}, expected {sizes:?}"));
    }
    Ok(numbers)
}

/// Returns the numbers of a tensor, and its sizes.
fn tensor(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<f32>, Vec<usize>), String> {
    let tensor = tensors.tensor(name).map_err(|_| format!("there is no tensor {name}"))?;
    let (words, _) = tensor.data().as_chunks::<4>();
    let (halves, _) = tensor.data().as_chunks::<2>();
    let numbers = match tensor.dtype() {
        Dtype::F32 => words.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::F16 => halves.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => halves.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect(),
        kind => return Err(format!("{name} is {kind:?}, expected F32, F16 or BF16")),
    };
    Ok((numbers, tensor.shape().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are those of `torch.nn.functional.gelu` and `torch.erf` in f64.
    #[test]
    fn activations_equal_those_of_torch() {
        let close = |left: f32, right: f32| assert!((left - right).abs() < 1e-6, "{left} {right}");
        for (value, gelu, silu) in [
            (-3.0, -0.004_049_694, -0.142_277_62),
            (-0.5, -0.154_268_77, -0.188_770_34),
            (0.0, 0.0, 0.0),
            (0.7, 0.530_625_5, 0.467_731_2),
            (5.0, 4.999_998_6, 4.966_535_5),
        ] {
            close(activate(Activation::Gelu, value), gelu);
            close(activate(Activation::Silu, value), silu);
        }
        close(activate(Activation::Relu, -2.0), 0.0);
        close(activate(Activation::Identity, -2.0), -2.0);
        close(activate(Activation::Tanh, 0.5), 0.462_117_16);
        close(activate(Activation::Sigmoid, 0.5), 0.622_459_35);
    }

    #[test]
    fn a_dense_layer_adds_bias_and_residual() {
        let mut dense = Dense {
            weight: vec![1.0, 2.0, 0.0, -1.0],
            bias: Some(vec![0.5, 0.0]),
            activation: Activation::Relu,
            residual: Residual::Nothing,
            inputs: 2,
            outputs: 2,
        };
        assert_eq!(dense.apply(&[1.0, 2.0]), [5.5, 0.0]);
        dense.residual = Residual::Input;
        assert_eq!(dense.apply(&[1.0, 2.0]), [6.5, 2.0]);
        dense.residual = Residual::Projected(vec![0.0, 1.0, 1.0, 0.0]);
        dense.bias = None;
        assert_eq!(dense.apply(&[1.0, 2.0]), [7.0, 1.0]);
    }
}
