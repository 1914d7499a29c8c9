//! Log-probs and entropies of chosen tokens. Logits are computed only for sampled tokens, and only for
//! [`CHUNK_TARGETS`] of them at a time, forward and backward.

use tch::{Kind, Tensor};

use super::decoder::{Decoder, Weights};
use super::packing::MaskedTokens;
use super::pass::{PackedPass, flow};

/// Number of tokens whose logits exist at a time. A matrix product with this many rows already runs at full speed,
/// and their f32 logits over a vocabulary of 150,000 take 150 MB.
pub const CHUNK_TARGETS: i64 = 256;

/// Per-token results for the target tokens of a packed batch, in packing order.
#[derive(Debug)]
pub struct TokenStatistics {
    /// Log-prob of each target, `[targets]`, f32.
    pub log_probs: Tensor,
    /// Entropy of each target's distribution in nats, `[targets]`, f32.
    pub entropies: Tensor,
}

/// Scores the tokens of packed sequences at which the mask is true, without gradients. Divides logits by
/// `temperature`, as sampling does. A sequence's first token has no context and cannot be a target.
pub fn token_statistics(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[MaskedTokens<'_>],
    temperature: f64,
) -> TokenStatistics {
    let pass = PackedPass::without_gradients(decoder, weights, sequences);
    tch::no_grad(|| statistics_of(&weights.whole_head(), &pass, temperature))
}

/// Scored tokens that can propagate gradients into the model.
#[derive(Debug)]
pub struct ScoredPass<'m> {
    /// The results of [`token_statistics`], as leaves of the graph that a loss is computed from.
    pub statistics: TokenStatistics,
    pass: PackedPass<'m>,
    /// `[vocab, hidden]`, in the graph of its parameters.
    head: Tensor,
    temperature: f64,
}

impl<'m> ScoredPass<'m> {
    /// Scores tokens as [`token_statistics`] does and keeps the data that [`Self::backward`] needs. Gradients
    /// reach the parameters if `weights` are part of their graph.
    pub fn new(
        decoder: &'m Decoder,
        weights: &'m Weights,
        sequences: &[MaskedTokens<'_>],
        temperature: f64,
    ) -> Self {
        let pass = PackedPass::with_gradients(decoder, weights, sequences);
        let head = weights.whole_head();
        let scored = tch::no_grad(|| statistics_of(&head, &pass, temperature));
        let statistics = TokenStatistics {
            log_probs: scored.log_probs.set_requires_grad(true),
            entropies: scored.entropies.set_requires_grad(true),
        };
        Self { statistics, pass, head, temperature }
    }

    /// Adds the gradient of `loss`, a function of [`Self::statistics`], to the gradients of the parameters.
    pub fn backward(self, loss: &Tensor) {
        if self.statistics.log_probs.numel() == 0 {
            return;
        }
        loss.backward();
        let (by_hidden, by_head) = tch::no_grad(|| self.gradients());
        // This frees the head's gradient, as large as the vocabulary's matrix, before the layers run.
        if let Some(by_head) = by_head {
            flow(&self.head, &by_head);
        }
        self.pass.backward(&by_hidden);
    }

    /// Returns the gradients of the loss by the hidden states and by the head, in the compute type. A head that
    /// is not trained has none.
    ///
    /// Let `p` be the softmax of a token's logits `z`, `l` the log-prob of its target and `H` the entropy. Then
    /// `dl/dz_j` is `[j is the target] - p_j`, and `dH/dz_j` is `-p_j (ln p_j + H)`.
    fn gradients(&self) -> (Tensor, Option<Tensor>) {
        let Self { statistics, pass, head, temperature } = self;
        let by_hidden = pass.hidden.zeros_like();
        let is_trained = head.requires_grad();
        let mut by_head = is_trained.then(|| head.zeros_like().to_kind(Kind::Float));
        let by_entropy = statistics.entropies.grad();
        // Each chunk computes its logits again, then their gradient, then its share of both results. Logits of
        // the whole pass never exist.
        for (start, count) in chunks(&pass.targets) {
            let part = |tensor: &Tensor| tensor.narrow(0, start, count);
            let column = |tensor: &Tensor| part(tensor).unsqueeze(1);
            let hidden = part(&pass.hidden);
            let logits = scaled_logits(head, &hidden, *temperature);
            let by_log_prob = column(&statistics.log_probs.grad());
            let mut by_logits = if by_entropy.defined() {
                let log_softmax = logits.log_softmax(-1, Kind::Float);
                let surprise = &log_softmax + column(&statistics.entropies);
                let factor = surprise.g_mul(&column(&by_entropy)) + &by_log_prob;
                log_softmax.exp() * -factor
            } else {
                logits.softmax(-1, Kind::Float).g_mul_(&-&by_log_prob)
            };
            let _ = by_logits.scatter_add_(1, &column(&pass.targets), &by_log_prob);
            if differs_from_one(*temperature) {
                let _ = by_logits.g_div_scalar_(*temperature);
            }
            let by_logits = by_logits.to_kind(head.kind());
            part(&by_hidden).copy_(&by_logits.matmul(head));
            if let Some(by_head) = &mut by_head {
                let _ = by_head.g_add_(&by_logits.tr().matmul(&hidden));
            }
        }
        (by_hidden, by_head.map(|by_head| by_head.to_kind(head.kind())))
    }
}

/// Returns the starts and sizes of the chunks of `[targets]`.
fn chunks(targets: &Tensor) -> impl Iterator<Item = (i64, i64)> {
    let total = targets.numel() as i64;
    let start = (0..total).step_by(CHUNK_TARGETS as usize);
    start.map(move |start| (start, CHUNK_TARGETS.min(total - start)))
}

fn statistics_of(head: &Tensor, pass: &PackedPass<'_>, temperature: f64) -> TokenStatistics {
    let options = (Kind::Float, head.device());
    let log_probs = Tensor::zeros([pass.targets.numel() as i64], options);
    let entropies = log_probs.zeros_like();
    for (start, count) in chunks(&pass.targets) {
        let part = |tensor: &Tensor| tensor.narrow(0, start, count);
        let logits = scaled_logits(head, &part(&pass.hidden), temperature);
        let chunk = statistics_of_logits(&logits, &part(&pass.targets));
        part(&log_probs).copy_(&chunk.log_probs);
        part(&entropies).copy_(&chunk.entropies);
    }
    TokenStatistics { log_probs, entropies }
}

/// Scores `targets` (`[tokens]`, i64) under the softmax of `logits` (`[tokens, vocab]`, f32).
pub(super) fn statistics_of_logits(logits: &Tensor, targets: &Tensor) -> TokenStatistics {
    let all = logits.log_softmax(-1, Kind::Float);
    let chosen = all.gather(1, &targets.unsqueeze(1), false);
    let terms = all.exp().g_mul_(&all);
    let entropies = -terms.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
    TokenStatistics { log_probs: chosen.squeeze_dim(1), entropies }
}

/// Computes the logits divided by the temperature, `[tokens, vocab]`, f32.
fn scaled_logits(head: &Tensor, hidden: &Tensor, temperature: f64) -> Tensor {
    let logits = hidden.linear(head, None::<&Tensor>).to_kind(Kind::Float);
    if differs_from_one(temperature) { logits / temperature } else { logits }
}

fn differs_from_one(temperature: f64) -> bool {
    (temperature - 1.0).abs() > f64::EPSILON
}
