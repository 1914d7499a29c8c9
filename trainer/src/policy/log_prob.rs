//! Log-probs and entropies of chosen tokens. Logits exist only where a token was sampled, and only those
//! of [`CHUNK_TARGETS`] tokens at a time, forward and backward.

use tch::{Kind, Tensor};

use super::decoder::{Decoder, Weights};
use super::packing::MaskedTokens;
use super::pass::{Pass, flow};

/// Tokens whose logits exist at a time: a matrix product of that many rows is as fast as any, and their
/// f32 logits over a vocabulary of 150,000 take 150 MB.
pub const CHUNK_TARGETS: i64 = 256;

/// Per-token results for the target tokens of a packed batch, in packing order.
#[derive(Debug)]
pub struct TokenStatistics {
    /// Log-prob of each target, `[targets]`, f32.
    pub log_probs: Tensor,
    /// Entropy of each target's distribution in nats, `[targets]`, f32.
    pub entropies: Tensor,
}

/// Scores the tokens of packed sequences at which the mask is true (a sequence's first token has no
/// context and cannot be a target), with logits divided by `temperature` as in sampling. Without
/// gradients.
pub fn token_statistics(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[MaskedTokens<'_>],
    temperature: f64,
) -> TokenStatistics {
    let pass = Pass::without_gradients(decoder, weights, sequences);
    tch::no_grad(|| statistics_of(weights, &pass, temperature))
}

/// Scored tokens whose gradients can be sent back into the model.
#[derive(Debug)]
pub struct ScoredPass<'m> {
    /// As of [`token_statistics`]; leaves of the graph, from which a loss is made.
    pub statistics: TokenStatistics,
    pass: Pass<'m>,
    weights: &'m Weights,
    temperature: f64,
}

impl<'m> ScoredPass<'m> {
    /// As [`token_statistics`], with what [`Self::backward`] needs. Gradients reach the parameters if
    /// `weights` are part of their graph.
    pub fn new(
        decoder: &'m Decoder,
        weights: &'m Weights,
        sequences: &[MaskedTokens<'_>],
        temperature: f64,
    ) -> Self {
        let pass = Pass::with_gradients(decoder, weights, sequences);
        let found = tch::no_grad(|| statistics_of(weights, &pass, temperature));
        let statistics = TokenStatistics {
            log_probs: found.log_probs.set_requires_grad(true),
            entropies: found.entropies.set_requires_grad(true),
        };
        Self { statistics, pass, weights, temperature }
    }

    /// Adds the gradient of `loss`, a function of [`Self::statistics`], to the parameters'.
    pub fn backward(self, loss: &Tensor) {
        if self.statistics.log_probs.numel() == 0 {
            return;
        }
        loss.backward();
        let head = &self.weights.head;
        let (of_hidden, of_head) = tch::no_grad(|| self.gradients());
        // The matrix is as large as the vocabulary, and nothing else needs it.
        if let Some(of_head) = of_head {
            flow(head, &of_head);
        }
        self.pass.backward(&of_hidden);
    }

    /// Gradients of the loss by the hidden states and by the head, in the compute type. With `p` the
    /// softmax of the logits `z` of a token, `l` the log-prob of its target and `H` its entropy, `dl/dz_j`
    /// is `[j is the target] - p_j` and `dH/dz_j` is `-p_j (ln p_j + H)`.
    /// A head that is not trained has none.
    fn gradients(&self) -> (Tensor, Option<Tensor>) {
        let Self { statistics, pass, weights, temperature } = self;
        let of_hidden = pass.hidden.zeros_like();
        let is_trained = weights.head.requires_grad();
        let mut of_head = is_trained.then(|| weights.head.zeros_like().to_kind(Kind::Float));
        let by_entropy = statistics.entropies.grad();
        for (start, count) in chunks(&pass.targets) {
            let part = |tensor: &Tensor| tensor.narrow(0, start, count);
            let column = |tensor: &Tensor| part(tensor).unsqueeze(1);
            let hidden = part(&pass.hidden);
            let logits = scaled_logits(weights, &hidden, *temperature);
            let by_log_prob = column(&statistics.log_probs.grad());
            let mut of_logits = if by_entropy.defined() {
                let log_softmax = logits.log_softmax(-1, Kind::Float);
                let surprise = &log_softmax + column(&statistics.entropies);
                let factor = surprise.g_mul(&column(&by_entropy)) + &by_log_prob;
                log_softmax.exp() * -factor
            } else {
                logits.softmax(-1, Kind::Float).g_mul_(&-&by_log_prob)
            };
            let _ = of_logits.scatter_add_(1, &column(&pass.targets), &by_log_prob);
            if differs_from_one(*temperature) {
                let _ = of_logits.g_div_scalar_(*temperature);
            }
            let of_logits = of_logits.to_kind(weights.kind());
            part(&of_hidden).copy_(&of_logits.matmul(&weights.head));
            if let Some(of_head) = &mut of_head {
                let _ = of_head.g_add_(&of_logits.tr().matmul(&hidden));
            }
        }
        (of_hidden, of_head.map(|of_head| of_head.to_kind(weights.kind())))
    }
}

/// Starts and sizes of the chunks of `[targets]`.
fn chunks(targets: &Tensor) -> impl Iterator<Item = (i64, i64)> {
    let total = targets.numel() as i64;
    let start = (0..total).step_by(CHUNK_TARGETS as usize);
    start.map(move |start| (start, CHUNK_TARGETS.min(total - start)))
}

fn statistics_of(weights: &Weights, pass: &Pass<'_>, temperature: f64) -> TokenStatistics {
    let of_targets = (Kind::Float, weights.device());
    let log_probs = Tensor::zeros([pass.targets.numel() as i64], of_targets);
    let entropies = log_probs.zeros_like();
    for (start, count) in chunks(&pass.targets) {
        let part = |tensor: &Tensor| tensor.narrow(0, start, count);
        let logits = scaled_logits(weights, &part(&pass.hidden), temperature);
        let all = logits.log_softmax(-1, Kind::Float);
        let chosen = all.gather(1, &part(&pass.targets).unsqueeze(1), false);
        part(&log_probs).copy_(&chosen.squeeze_dim(1));
        let terms = all.exp().g_mul_(&all);
        part(&entropies).copy_(&-terms.sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float));
    }
    TokenStatistics { log_probs, entropies }
}

/// Logits divided by the temperature, `[tokens, vocab]`, f32.
fn scaled_logits(weights: &Weights, hidden: &Tensor, temperature: f64) -> Tensor {
    let logits = Decoder::logits(weights, hidden);
    if differs_from_one(temperature) { logits / temperature } else { logits }
}

fn differs_from_one(temperature: f64) -> bool {
    (temperature - 1.0).abs() > f64::EPSILON
}
