//! A comparison of the kernels with libtorch before anything is sampled: an untested device or compiler must
//! not spoil a run silently.

use tch::{Kind, Tensor};

use super::arguments::Launcher;
use super::runner::FusedRunner;
use crate::engine::runner::{BLOCK_TOKENS, Draw, Pass, Runner, Span};
use crate::engine::{Sampling, SamplingKey};
use crate::policy::{Decoder, PackedCausalAttention};

/// Tokens of the compared sequence, more than two blocks hold.
const TOKENS: usize = 2 * BLOCK_TOKENS + 6;
/// Tokens of the first and of the second pass; each later pass feeds one token.
const PASSES: [usize; 2] = [35, 20];
/// The largest accepted mean difference of log-probs. Rounding to bf16 causes a few hundredths.
const BF16_GAP_MAX: f64 = 0.1;
const F32_GAP_MAX: f64 = 1e-3;

impl<L: Launcher> FusedRunner<L> {
    /// Feeds a sequence and returns the mean difference of its log-probs from those of libtorch's decoder.
    ///
    /// # Errors
    /// A kernel failed, or the difference is larger than rounding explains.
    pub(super) fn check(&mut self) -> Result<f64, String> {
        let tokens = TOKENS.min(self.blocks() * BLOCK_TOKENS);
        let vocabulary = self.decoder.config.vocab_size as usize;
        let ids: Vec<u32> =
            (0..tokens).map(|index| ((index * 7919 + 13) % vocabulary) as u32).collect();
        let expected = self.log_probs(&ids);
        let blocks: Vec<u32> = (0..tokens.div_ceil(BLOCK_TOKENS) as u32).rev().collect();
        let sampling = Sampling { temperature: 1.0, top_p: 1.0 };
        let (mut past, mut sum) = (0, 0.0);
        for pass in PASSES.into_iter().chain(std::iter::repeat(1)) {
            let fed = &ids[past..(past + pass).min(tokens)];
            if fed.is_empty() {
                break;
            }
            let rows = fed.len();
            let positions: Vec<u32> = (past..past + rows).map(|position| position as u32).collect();
            let spans = [Span { rows: 0..rows, past, blocks: &blocks }];
            let draw = |row: usize| Draw {
                row,
                sampling,
                key: SamplingKey { seed: 1, step: 0, prompt: 0, sample: 0 },
                position: (past + row + 1) as u64,
            };
            let draws: Vec<Draw> = (0..rows).map(draw).collect();
            let pass = Pass { ids: fed, positions: &positions, spans: &spans };
            let choices = self.run(&pass, &draws).map_err(|error| error.to_string())?;
            for (row, choice) in choices.into_iter().enumerate() {
                if choice.token as usize >= vocabulary {
                    return Err(format!(
                        "token {} was drawn from a vocabulary of {vocabulary}",
                        choice.token
                    ));
                }
                let index = [(past + row) as i64, i64::from(choice.token)];
                sum += (f64::from(choice.log_prob) - expected.double_value(&index)).abs();
            }
            past += rows;
        }
        let gap = sum / tokens as f64;
        let most = if self.weights.kind() == Kind::Float { F32_GAP_MAX } else { BF16_GAP_MAX };
        // NaN fails this comparison.
        if gap < most {
            Ok(gap)
        } else {
            Err(format!(
                "their log-probs differ from libtorch's by {gap:.4} on average, expected less than {most}"
            ))
        }
    }

    /// Returns the log-probs of libtorch's decoder, `[tokens, vocab]`, f32, on the host.
    fn log_probs(&self, ids: &[u32]) -> Tensor {
        tch::no_grad(|| {
            let device = self.weights.device();
            let wide: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let positions = Tensor::arange(ids.len() as i64, (Kind::Int64, device));
            let mut attention = PackedCausalAttention::of_lengths(&[ids.len() as i64]);
            let ids = Tensor::from_slice(&wide).to_device(device);
            let hidden =
                self.decoder.hidden_states(&self.weights, &ids, &positions, &mut attention);
            let log_probs = Decoder::logits(&self.weights, &hidden).log_softmax(-1, Kind::Float);
            log_probs.to_device(tch::Device::Cpu)
        })
    }
}
