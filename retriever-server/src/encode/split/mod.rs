//! Products of activations with a model's weights on AMX tiles, which replace ONNX Runtime's products.
//!
//! Tiles multiply numbers in bfloat16, which has 8 bits of precision. Every number is therefore split
//! into two of them, x = high + low. Three of the four products of two such sums are computed. Low
//! times low is smaller than the error of the split itself (Henry, Tang and Heinecke, "Leveraging the
//! bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019). Sums are in
//! f32. The resulting vectors differ from those of f32 in the last bits only and take a fraction of
//! the time.
//!
//! The path of a model: `onnx` removes the weights of `MatMul` nodes from the file, `weights` splits and
//! packs them once for all sessions, and `operator` is the ONNX operator that replaces the nodes.

mod onnx;
mod weights;
mod operator;
mod columns;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tiles_x86;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use crate::processor::fork_join::fork_join;
use crate::processor::mapped::map;
use columns::Columns;
use onnx::Matrix;
use operator::SplitMatMul;
use weights::{Line, TileFactors, Weights};

/// The method of multiplying activations with a model's weights on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Uses AMX tiles if the processor has them, else ONNX Runtime.
    #[default]
    Auto,
    /// Uses ONNX Runtime.
    Runtime,
    /// Uses split numbers, even if the processor has no instructions that make this fast.
    Split,
}

impl Products {
    /// Returns the multiplier of split numbers, or `None` for ONNX Runtime's products.
    pub(super) fn multiplier(self) -> Option<SplitMultiplier> {
        match self {
            Self::Auto => SplitMultiplier::fast(),
            Self::Runtime => None,
            Self::Split => SplitMultiplier::fast().or(Some(SplitMultiplier::Portable)),
        }
    }
}

/// An implementation of the multiplication of split numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitMultiplier {
    /// AMX tiles and AVX-512 BF16.
    #[cfg(target_arch = "x86_64")]
    Tiles(tiles_x86::Tiles),
    /// Plain loops. They are slow and serve as the reference in tests.
    Portable,
}

impl SplitMultiplier {
    /// Returns the name for logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(_) => "AMX",
            Self::Portable => "portable",
        }
    }

    /// Returns the multiplier that is faster than ONNX Runtime's products, if the processor supports it.
    fn fast() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return tiles_x86::Tiles::detect().map(Self::Tiles);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }

    /// Splits up to 16 rows of `inner` numbers into a tile. Each step of it has 16 lines of high parts
    /// and then 16 of low parts.
    fn split_rows(self, numbers: &[f32], inner: usize, tile: &mut [Line]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(instructions) => instructions.split_rows(numbers, inner, tile),
            Self::Portable => portable::split_rows(numbers, inner, tile),
        }
    }

    /// Multiplies tile after tile into `products`.
    fn multiply<'a>(
        self,
        tiles: impl Iterator<Item = TileFactors<'a>>,
        products: &mut Columns<'_>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(instructions) => instructions.multiply(tiles, products),
            Self::Portable => portable::multiply(tiles, products),
        }
    }
}

/// A model whose weights and tables are separate from its file. Sessions share both, so another session
/// takes little memory.
pub(super) struct SplitModel {
    /// The ONNX file, with nodes of [`onnx::DOMAIN`] in place of products.
    bytes: Vec<u8>,
    /// The weights of those nodes.
    weights: Vec<Arc<Weights>>,
    /// The names and values of the model's additional inputs.
    pub(super) tables: Vec<(String, Arc<DynValue>)>,
    /// The implementation of the products.
    pub(super) multiplier: SplitMultiplier,
}

impl SplitModel {
    /// Splits the model in a file on `threads`. Returns `None` if the file is not an ONNX file, keeps
    /// weights in other files, or has no product with weights.
    pub(super) fn read(
        path: &Path,
        multiplier: SplitMultiplier,
        threads: NonZeroUsize,
    ) -> Option<Self> {
        let file = map(path).ok()?;
        let separated = onnx::separate(&file)?;
        let weights = pack_all(&separated.products, threads);
        let tables = separated.tables.iter().map(|table| {
            let numbers: Vec<f32> = table.numbers().collect();
            let value = Tensor::from_array((table.sizes()?, numbers)).ok()?;
            Some((table.name()?.to_owned(), Arc::new(value.into_dyn())))
        });
        let tables = tables.collect::<Option<_>>()?;
        Some(Self { bytes: separated.model, weights, tables, multiplier })
    }

    /// Opens a session of the model that computes on `threads`.
    pub(super) fn commit(
        &self,
        builder: SessionBuilder,
        threads: NonZeroUsize,
    ) -> ort::Result<Session> {
        let operator = SplitMatMul::new(self.weights.clone(), self.multiplier, threads);
        let domain = OperatorDomain::new(onnx::DOMAIN)?.add(operator)?;
        builder.with_operators(domain)?.commit_from_memory(&self.bytes)
    }
}

/// Packs all weights on `threads`, in order.
fn pack_all(products: &[Matrix<'_>], threads: NonZeroUsize) -> Vec<Arc<Weights>> {
    let next = AtomicUsize::new(0);
    let parts = fork_join(0..threads.get().min(products.len()), |_| {
        let mut packed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(product) = products.get(index) else { return packed };
            packed.push((index, Arc::new(Weights::pack(product))));
        }
    });
    let mut packed: Vec<_> = parts.into_iter().flatten().collect();
    packed.sort_unstable_by_key(|(index, _)| *index);
    packed.into_iter().map(|(_, weights)| weights).collect()
}

#[cfg(test)]
mod tests;
