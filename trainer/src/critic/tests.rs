//! A critic's gradient does not depend on its micro-batches, and its head is its own.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::*;
use crate::policy::tests::{CHECKPOINTS, F32, gap, tiny};

/// Creates sequences of several lengths: a prompt, then sampled tokens with observations between.
fn sequences() -> Vec<CriticSequence> {
    (0..5_usize)
        .map(|index| {
            let length = 12 + 3 * index;
            let mask: Vec<bool> =
                (0..length).map(|position| position > 3 && position % 5 != 0).collect();
            let valued = valued_tokens(&mask);
            let wave = |scale: f32| -> Vec<f32> {
                (0..valued).map(|token| scale * ((token + index) as f32 * 1.3).sin()).collect()
            };
            CriticSequence {
                token_ids: (0..length).map(|at| ((at * 13 + index * 7) % 60) as u32).collect(),
                mask,
                old_values: wave(0.4),
                returns: wave(-0.9),
            }
        })
        .collect()
}

fn gradients(critic: &Critic, decoder: &Decoder, tokens: usize) -> BTreeMap<String, Tensor> {
    for parameter in critic.network.parameters.values() {
        let mut gradient = parameter.grad();
        if gradient.defined() {
            let _ = gradient.zero_();
        }
    }
    let config = CriticUpdateConfig { clip: 0.5, tokens_per_micro_batch: tokens };
    let statistics =
        critic_gradient(critic, decoder, &sequences(), &config, &StopFlag::never()).unwrap();
    assert!(statistics.value_loss > 0.0 && statistics.tokens > 0, "{statistics:?}");
    let copy = |(name, parameter): (&String, &Tensor)| (name.clone(), parameter.grad().copy());
    critic.network.parameters.iter().map(copy).collect()
}

#[test]
fn a_critic_update_does_not_depend_on_its_micro_batches() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let critic = Critic::of_policy(&policy, 3);
        let expected = gradients(&critic, &decoder, 1000);
        for tokens in [1, 30, 50] {
            for (name, gradient) in gradients(&critic, &decoder, tokens) {
                let scale = expected[&name].abs().max().double_value(&[]);
                assert!(scale > 1e-8, "{checkpoint}: {name} has no gradient");
                assert!(gap(&gradient, &expected[&name]) / scale < 1e-4, "{checkpoint}: {name}");
            }
        }
        for parameter in policy.parameters.values() {
            assert!(!parameter.grad().defined(), "the policy is not touched");
        }
    }
}

#[test]
fn values_do_not_depend_on_their_neighbours() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let critic = Critic::of_policy(&policy, 3);
    let sequences = sequences();
    let packed: Vec<_> =
        sequences.iter().map(|sequence| (&sequence.token_ids[..], &sequence.mask[..])).collect();
    let values =
        |tokens| critic.sequence_values(&decoder, &packed, tokens, &StopFlag::never()).unwrap();
    let whole = values(1000);
    for (alone, together) in values(1).iter().flatten().zip(whole.iter().flatten()) {
        assert!((alone - together).abs() < 1e-5, "{alone} {together}");
    }
    assert_eq!(whole[1].len(), valued_tokens(&sequences[1].mask));
}

#[test]
fn a_new_head_is_small_and_drawn_by_its_seed() {
    let (policy, _) = tiny(CHECKPOINTS[0], F32);
    let head = |seed| Critic::of_policy(&policy, seed).network.parameters[HEAD_WEIGHT].copy();
    assert!(Tensor::equal(&head(1), &head(1)) && !Tensor::equal(&head(1), &head(2)));
    let deviation = head(1).std(true).double_value(&[]);
    assert!((0.01..0.04).contains(&deviation), "{deviation}");
    let mean = head(1).mean(Kind::Float).double_value(&[]);
    assert!(mean.abs() < 0.02, "{mean}");
    let untied = tiny(CHECKPOINTS[1], F32).0;
    let critic = Critic::of_policy(&untied, 1);
    assert!(untied.parameters.contains_key("lm_head.weight"));
    assert!(!critic.network.parameters.contains_key("lm_head.weight"));
}
