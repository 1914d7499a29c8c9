//! The ONNX operator that replaces products.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use ort::Error;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
    ShapeInferenceContext,
};
use ort::value::{Shape, SymbolicDimensions, TensorElementType, ValueType};

use super::weights::{Activations, Weights};
use super::{SplitMultiplier, onnx};

/// The operator in one session, which multiplies activations with weights that all sessions share.
pub(super) struct SplitMatMul {
    weights: Vec<Arc<Weights>>,
    multiplier: SplitMultiplier,
    /// The number of threads of the session.
    threads: NonZeroUsize,
    /// The buffer of all nodes, which compute one after the other.
    activations: Arc<Mutex<Activations>>,
}

impl SplitMatMul {
    pub(super) fn new(
        weights: Vec<Arc<Weights>>,
        multiplier: SplitMultiplier,
        threads: NonZeroUsize,
    ) -> Self {
        Self { weights, multiplier, threads, activations: Arc::default() }
    }
}

impl Operator for SplitMatMul {
    type Kernel<'attr> = Product;

    fn name(&self) -> &str {
        onnx::OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, node: &KernelContext<'_>) -> ort::Result<Product> {
        let weights = node
            .get::<i64>(onnx::WEIGHTS)
            .and_then(|position| self.weights.get(usize::try_from(position).ok()?))
            .ok_or_else(|| Error::new("a product has no weights"))?;
        Ok(Product {
            weights: Arc::clone(weights),
            multiplier: self.multiplier,
            threads: self.threads.get(),
            activations: Arc::clone(&self.activations),
        })
    }

    /// Gives the output the shape of the input, but with the number of columns of the weights.
    fn infer_shape(&self, node: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = node.inputs();
        let Some(ValueType::Tensor { shape, dimension_symbols, .. }) = inputs.first() else {
            return Ok(());
        };
        let mut sizes = shape.to_vec();
        let mut symbols = dimension_symbols.to_vec();
        if let (Some(size), Some(symbol)) = (sizes.last_mut(), symbols.last_mut()) {
            *size = node.attr(onnx::COLUMNS)?;
            symbol.clear();
            // ONNX Runtime treats an unknown size without a name as the number -1, and sizes with the
            // same name as equal. So every unknown size gets a name of its own.
            let number: i64 = node.attr(onnx::NODE)?;
            for (axis, (size, symbol)) in sizes.iter().zip(&mut symbols).enumerate() {
                if *size < 0 && symbol.is_empty() {
                    *symbol = format!("{}_{number}_{axis}", onnx::OPERATOR);
                }
            }
            let product = ValueType::Tensor {
                ty: TensorElementType::Float32,
                shape: Shape::new(sizes),
                dimension_symbols: SymbolicDimensions::new(symbols),
            };
            node.set_output(0, &product)?;
        }
        Ok(())
    }
}

/// A node of one session.
pub(super) struct Product {
    weights: Arc<Weights>,
    multiplier: SplitMultiplier,
    threads: usize,
    activations: Arc<Mutex<Activations>>,
}

impl Kernel for Product {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let Self { weights, multiplier, threads, activations } = self;
        let input = context.input(0)?.ok_or_else(|| Error::new("a product has no input"))?;
        let (shape, numbers) = input.try_extract_tensor::<f32>()?;
        let mut sizes = shape.to_vec();
        let size =
            sizes.last_mut().ok_or_else(|| Error::new("the input of a product has no rows"))?;
        if usize::try_from(*size) != Ok(weights.inner()) {
            let inner = weights.inner();
            return Err(Error::new(format!("rows of {size} numbers, expected {inner}")));
        }
        *size = weights.columns() as i64;
        let mut output =
            context.output(0, sizes)?.ok_or_else(|| Error::new("a product has no output"))?;
        let (_, products) = output.try_extract_tensor_mut::<f32>()?;
        // The split overwrites whatever a failed run left in the buffer.
        let mut activations = activations.lock().unwrap_or_else(PoisonError::into_inner);
        let activations = activations.split(numbers, weights.inner(), *multiplier);
        let mut parts = weights.parts(products, *threads);
        if let [part] = parts.as_mut_slice() {
            part.compute(activations, *multiplier);
            return Ok(());
        }
        let parts: Vec<_> = parts.into_iter().map(Mutex::new).collect();
        context.par_for(parts.len(), parts.len(), |number| {
            let part = parts[number].lock();
            part.unwrap_or_else(PoisonError::into_inner).compute(activations, *multiplier);
        })
    }
}
