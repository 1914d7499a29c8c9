//! Products of activations with a model's weights on AMX tiles, in place of ONNX Runtime's.
//!
//! Tiles multiply bfloat16, of which one has 8 bits of precision. Every number is therefore split
//! into two of them, x = high + low, and of the four products of two such sums three are computed;
//! low times low is below what is lost anyway (Henry, Tang and Heinecke, "Leveraging the bfloat16
//! Artificial Intelligence Datatype For Higher-Precision Computations", 2019). Sums are in f32, so
//! that vectors are those of f32 but for their last bits, at a multiple of the speed of its
//! instructions.
//!
//! The way of a model: `onnx` takes the weights of its `MatMul` nodes out of the file, `weights`
//! splits and packs them once for all sessions, and `operator` is what ONNX Runtime then finds in
//! the nodes' place.

mod columns;
mod message;
mod onnx;
mod operator;
mod portable;
#[cfg(target_arch = "x86_64")]
mod tiles_x86;
mod weights;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use ort::operator::OperatorDomain;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor};

use crate::processor::mapped::map;
use columns::Columns;
use onnx::Matrix;
use operator::SplitMatMul;
use weights::{Line, Tile, Weights};

/// What multiplies activations with a model's weights on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// AMX tiles where the processor has them, else ONNX Runtime.
    #[default]
    Auto,
    /// ONNX Runtime.
    Runtime,
    /// What splits numbers, even where no instructions make that fast.
    Split,
}

impl Products {
    pub(super) fn multiplier(self) -> Option<Multiplier> {
        match self {
            Self::Auto => Multiplier::fast(),
            Self::Runtime => None,
            Self::Split => Multiplier::fast().or(Some(Multiplier::Portable)),
        }
    }
}

/// What multiplies split numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multiplier {
    /// AMX tiles and AVX-512 BF16.
    #[cfg(target_arch = "x86_64")]
    Tiles(tiles_x86::Tiles),
    /// What the compiler makes of plain loops: not fast, and the tests' measure of the other.
    Portable,
}

impl Multiplier {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(_) => "AMX",
            Self::Portable => "portable",
        }
    }

    /// One that is faster than ONNX Runtime's products, if the processor has it.
    fn fast() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return tiles_x86::Tiles::detect().map(Self::Tiles);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }

    /// Splits up to 16 rows of `inner` numbers into a tile: of each step 16 lines of high parts,
    /// and 16 of low parts.
    fn split_rows(self, numbers: &[f32], inner: usize, tile: &mut [Line]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(tiles) => tiles.split_rows(numbers, inner, tile),
            Self::Portable => portable::split_rows(numbers, inner, tile),
        }
    }

    /// Multiplies tile after tile into `products`.
    fn multiply<'a>(self, tiles: impl Iterator<Item = Tile<'a>>, products: &mut Columns<'_>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles(with) => with.multiply(tiles, products),
            Self::Portable => portable::multiply(tiles, products),
        }
    }
}

/// A model without the weights that are multiplied here, and without its tables: sessions share
/// both, so that one more of them costs little memory.
pub(super) struct SplitModel {
    /// The ONNX file in which nodes of [`onnx::DOMAIN`] stand for products.
    bytes: Vec<u8>,
    /// What those nodes multiply with.
    weights: Vec<Arc<Weights>>,
    /// What the model wants as further inputs, by their names.
    pub(super) tables: Vec<(String, Arc<DynValue>)>,
    /// What multiplies.
    pub(super) with: Multiplier,
}

impl SplitModel {
    /// Splits the model in a file on `threads`. `None` if it is not an ONNX file, keeps weights in
    /// other files, or has no product with weights.
    pub(super) fn read(path: &Path, with: Multiplier, threads: NonZeroUsize) -> Option<Self> {
        let file = map(path).ok()?;
        let separated = onnx::separate(&file)?;
        let weights = pack_all(&separated.products, threads);
        let tables = separated.tables.iter().map(|table| {
            let numbers: Vec<f32> = table.numbers().collect();
            let value = Tensor::from_array((table.sizes()?, numbers)).ok()?;
            Some((table.name()?.to_owned(), Arc::new(value.into_dyn())))
        });
        let tables = tables.collect::<Option<_>>()?;
        Some(Self { bytes: separated.model, weights, tables, with })
    }

    /// Opens a session of it that computes on `threads`.
    pub(super) fn commit(
        &self,
        builder: SessionBuilder,
        threads: NonZeroUsize,
    ) -> ort::Result<Session> {
        let operator = SplitMatMul::new(self.weights.clone(), self.with, threads);
        let domain = OperatorDomain::new(onnx::DOMAIN)?.add(operator)?;
        builder.with_operators(domain)?.commit_from_memory(&self.bytes)
    }
}

/// Packs weights on `threads`.
fn pack_all(products: &[Matrix<'_>], threads: NonZeroUsize) -> Vec<Arc<Weights>> {
    let places: Vec<OnceLock<Arc<Weights>>> = products.iter().map(|_| OnceLock::new()).collect();
    let queue = Mutex::new(products.iter().zip(&places));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((product, place)) = next() {
            place.get_or_init(|| Arc::new(Weights::pack(product)));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get().min(products.len()) {
            // A thread that does not start leaves its share to the others.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    places.into_iter().filter_map(OnceLock::into_inner).collect()
}

#[cfg(test)]
mod tests;
