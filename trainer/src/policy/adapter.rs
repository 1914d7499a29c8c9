//! Computing with adapters beside frozen weights.
//!
//! Weights are cast once per update, and several backward passes go through the casts. Operations that keep their
//! inputs for the backward pass are therefore repeated in every pass and never part of a cast.

use tch::{Kind, Tensor};

/// The adapter of one matrix, f32.
#[derive(Debug)]
pub(super) struct MatrixAdapter {
    /// A, `[rank, inputs]`.
    pub(super) down: Tensor,
    /// B, `[outputs, rank]`.
    pub(super) up: Tensor,
    pub(super) scale: f64,
    /// The length of each row of the merged matrix, `[outputs]`, if it is trained apart (DoRA, arXiv 2402.09353).
    pub(super) magnitude: Option<Tensor>,
}

impl MatrixAdapter {
    /// Returns `W + s B A`, where `W` is `weight`; with magnitudes, the rows are scaled to them. No gradient flows
    /// through the rows' own lengths (arXiv 2402.09353, section 4.3).
    pub(super) fn merged(&self, weight: &Tensor) -> Tensor {
        let mut merged = self.up.matmul(&(&self.down * self.scale));
        let _ = merged.g_add_(weight);
        match &self.magnitude {
            Some(magnitude) => {
                let gain = magnitude * inverse_lengths(&merged.detach());
                merged * gain.unsqueeze(1)
            }
            None => merged,
        }
    }

    /// Returns the magnitudes with the inverse lengths of the rows of `W + s B A`, where `W` is `weight`.
    fn gain(&self, weight: &Tensor) -> Option<Gain> {
        let magnitude = self.magnitude.as_ref()?.shallow_clone();
        let inverse_lengths = tch::no_grad(|| {
            let mut merged = self.up.matmul(&(&self.down * self.scale));
            let _ = merged.g_add_(weight);
            inverse_lengths(&merged)
        });
        Some(Gain { magnitude, inverse_lengths })
    }

    fn deep_copy(&self) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().copy();
        Self {
            down: copy(&self.down),
            up: copy(&self.up),
            scale: self.scale,
            magnitude: self.magnitude.as_ref().map(copy),
        }
    }
}

/// Returns the inverse length of each row of `[rows, columns]`.
fn inverse_lengths(matrix: &Tensor) -> Tensor {
    matrix.square().sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).rsqrt()
}

/// The factor of each output of a map with magnitudes.
#[derive(Debug)]
struct Gain {
    magnitude: Tensor,
    inverse_lengths: Tensor,
}

impl Gain {
    fn factors(&self) -> Tensor {
        &self.magnitude * &self.inverse_lengths
    }

    fn deep_copy(&self) -> Self {
        Self {
            magnitude: self.magnitude.detach().copy(),
            inverse_lengths: self.inverse_lengths.copy(),
        }
    }
}

/// The adapters of maps with stacked rows.
#[derive(Debug)]
pub(super) struct Adapter {
    /// A of every adapted block, stacked: `[sum of ranks, inputs]`, compute type.
    down: Tensor,
    /// Rank of each adapted block.
    ranks: Vec<i64>,
    /// One block per map.
    blocks: Vec<Block>,
}

/// One of several joined maps.
#[derive(Debug)]
pub(super) enum Block {
    /// A map with an adapter: A, `[rank, inputs]`, and B, `[outputs, rank]`, compute type.
    Adapted(AdaptedBlock),
    /// A map without an adapter.
    Plain { outputs: i64 },
}

#[derive(Debug)]
pub(super) struct AdaptedBlock {
    down: Tensor,
    up: Tensor,
    scale: f64,
    gain: Option<Gain>,
}

impl Block {
    /// Casts an adapter of the frozen `weight`.
    pub(super) fn adapted(change: &MatrixAdapter, weight: &Tensor, kind: Kind) -> Self {
        Self::Adapted(AdaptedBlock {
            gain: change.gain(weight),
            down: change.down.to_kind(kind),
            up: change.up.to_kind(kind),
            scale: change.scale,
        })
    }

    fn outputs(&self) -> i64 {
        match self {
            Self::Adapted(block) => block.up.size()[0],
            Self::Plain { outputs } => *outputs,
        }
    }

    fn has_gain(&self) -> bool {
        matches!(self, Self::Adapted(AdaptedBlock { gain: Some(_), .. }))
    }

    fn deep_copy(&self) -> Self {
        match self {
            Self::Adapted(AdaptedBlock { down, up, scale, gain }) => Self::Adapted(AdaptedBlock {
                down: down.detach().copy(),
                up: up.detach().copy(),
                scale: *scale,
                gain: gain.as_ref().map(Gain::deep_copy),
            }),
            Self::Plain { outputs } => Self::Plain { outputs: *outputs },
        }
    }
}

impl Adapter {
    /// Joins blocks. Returns `None` if none is adapted.
    pub(super) fn of_blocks(blocks: Vec<Block>) -> Option<Self> {
        let adapted = |block| match block {
            &Block::Adapted(AdaptedBlock { ref down, .. }) => Some(down),
            Block::Plain { .. } => None,
        };
        let downs: Vec<&Tensor> = blocks.iter().filter_map(adapted).collect();
        let ranks: Vec<i64> = downs.iter().map(|down| down.size()[0]).collect();
        let down = match &downs[..] {
            [] => return None,
            [only] => only.shallow_clone(),
            several => Tensor::cat(several, 0),
        };
        Some(Self { down, ranks, blocks })
    }

    /// Adds `s (x A^T) B^T` of every block to `output`, which is `x W^T`: `[tokens, outputs of all blocks]`. With
    /// magnitudes, scales the sum; a bias is then not yet in `output`.
    pub(super) fn add_to(&self, output: &Tensor, input: &Tensor) -> Tensor {
        let sum = output + self.apply(input);
        match self.factors() {
            Some(factors) => sum * factors.to_kind(input.kind()),
            None => sum,
        }
    }

    /// Returns `true` if a bias is to be added after [`Self::add_to`].
    pub(super) fn scales_output(&self) -> bool {
        self.blocks.iter().any(Block::has_gain)
    }

    fn apply(&self, input: &Tensor) -> Tensor {
        let inner = input.linear(&self.down, None::<&Tensor>);
        let mut inner = inner.split_with_sizes(&self.ranks[..], -1).into_iter();
        let mut part = |block: &Block| match block {
            Block::Adapted(AdaptedBlock { up, scale, .. }) => {
                let own = inner.next().expect("every adapted block has a rank");
                (own * *scale).linear(up, None::<&Tensor>)
            }
            Block::Plain { outputs } => {
                Tensor::zeros([input.size()[0], *outputs], (input.kind(), input.device()))
            }
        };
        let parts: Vec<Tensor> = self.blocks.iter().map(&mut part).collect();
        match &parts[..] {
            [only] => only.shallow_clone(),
            several => Tensor::cat(several, -1),
        }
    }

    /// Returns the factor of every output, f32, if a block has magnitudes.
    fn factors(&self) -> Option<Tensor> {
        let factors = |block: &Block| match block {
            Block::Adapted(AdaptedBlock { gain: Some(gain), .. }) => gain.factors(),
            other => Tensor::ones([other.outputs()], (Kind::Float, self.down.device())),
        };
        let parts: Vec<Tensor> = self.blocks.iter().map(factors).collect();
        self.scales_output().then(|| Tensor::cat(&parts, 0))
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self {
            down: self.down.detach().copy(),
            ranks: self.ranks.clone(),
            blocks: self.blocks.iter().map(Block::deep_copy).collect(),
        }
    }
}

/// The adapter of the input embeddings, f32.
#[derive(Debug)]
pub(super) struct EmbeddingAdapter {
    change: MatrixAdapter,
    gain: Option<Gain>,
}

impl EmbeddingAdapter {
    /// Takes the frozen weight as `[hidden, vocab]`.
    pub(super) fn new(change: MatrixAdapter, weight: &Tensor) -> Self {
        Self { gain: change.gain(weight), change }
    }

    /// Adds the change of the rows of `ids` to `rows`, `[tokens, hidden]`, the frozen ones.
    pub(super) fn add_to(&self, rows: &Tensor, ids: &Tensor) -> Tensor {
        let MatrixAdapter { down, up, scale, .. } = &self.change;
        let inner = Tensor::embedding(&down.tr(), ids, -1, false, false) * *scale;
        let sum = rows + inner.linear(up, None::<&Tensor>);
        match &self.gain {
            Some(gain) => sum * gain.factors(),
            None => sum,
        }
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self { change: self.change.deep_copy(), gain: self.gain.as_ref().map(Gain::deep_copy) }
    }
}

/// The adapter of the head over its frozen weight, f32.
#[derive(Debug)]
pub(super) struct HeadAdapter {
    pub(super) change: MatrixAdapter,
    /// `[vocab, hidden]`
    pub(super) frozen: Tensor,
}

impl HeadAdapter {
    /// Returns the head with its change, `[vocab, hidden]`, f32.
    pub(super) fn merged(&self) -> Tensor {
        self.change.merged(&self.frozen)
    }

    /// Copies every tensor into its own storage.
    pub(super) fn deep_copy(&self) -> Self {
        Self { change: self.change.deep_copy(), frozen: self.frozen.detach().copy() }
    }
}
