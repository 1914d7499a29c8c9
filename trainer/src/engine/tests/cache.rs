//! Generation with the cache, compared with full passes over the same tokens.

use super::{CONFIG, check_close, engine, generate, greedy_request, native_engine, request};
use crate::engine::{BuiltinEngine, GenerateRequest, Sampling, StopRule};
use crate::policy::tests::{BF16, CHECKPOINTS, F32, packed_logits, tiny};
use crate::policy::{Decoder, Policy, token_statistics};
use crate::token::Tokenizer;

/// The tokens of a sequence, a flag for each that was sampled, and the log-probs of the sampled ones.
#[derive(Default)]
struct Context {
    ids: Vec<u32>,
    sampled: Vec<bool>,
    log_probs: Vec<f32>,
}

impl Context {
    /// Generates one turn and records it.
    fn turn(&mut self, engine: &mut BuiltinEngine, request: GenerateRequest) {
        let (id, appended) = (request.sequence, request.append.clone());
        let mut generations = generate(engine, &Tokenizer::characters(), vec![request]);
        let generation = generations.remove(&id).unwrap();
        self.extend(&appended, false);
        self.extend(&generation.token_ids, true);
        self.log_probs.extend(&generation.log_probs);
    }

    fn extend(&mut self, ids: &[u32], sampled: bool) {
        self.ids.extend(ids);
        self.sampled.extend(vec![sampled; ids.len()]);
    }

    /// Returns the log-probs of the sampled tokens from one pass over all tokens.
    fn full_pass(&self, policy: &Policy, decoder: &Decoder, temperature: f64) -> Vec<f32> {
        tch::no_grad(|| {
            let packed = [(self.ids.as_slice(), self.sampled.as_slice())];
            let weights = policy.weights();
            let scored = token_statistics(decoder, &weights, &packed, temperature);
            Vec::try_from(&scored.log_probs).unwrap()
        })
    }
}

const PROMPT: [u32; 9] = [7, 1, 60, 33, 2, 2, 41, 19, 5];
const OBSERVATION: [u32; 6] = [11, 50, 3, 3, 62, 0];

/// Generates three turns: after a prompt, after an observation, and directly after the second turn.
fn three_turns(engine: &mut BuiltinEngine, sampling: Sampling) -> Context {
    let mut context = Context::default();
    for (appended, tokens) in [(&PROMPT[..], 7), (&OBSERVATION[..], 5), (&[][..], 4)] {
        let request = GenerateRequest { sampling, ..request(1, appended, tokens) };
        context.turn(engine, request);
    }
    assert_eq!(context.log_probs.len(), 7 + 5 + 4);
    assert_eq!(context.ids.len(), PROMPT.len() + OBSERVATION.len() + 7 + 5 + 4);
    context
}

#[test]
fn log_probs_over_several_turns_are_those_of_a_full_pass() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        for (temperature, top_p) in [(1.0, 1.0), (0.7, 1.0), (1.5, 0.8)] {
            let sampling = Sampling { temperature, top_p };
            let context = three_turns(&mut engine(&policy, CONFIG), sampling);
            let expected = context.full_pass(&policy, &decoder, f64::from(temperature));
            let name = format!("{checkpoint} at {temperature}");
            check_close(&context.log_probs, &expected, 1e-4, &name);
        }
    }
}

/// Compares the native kernels with tensor operations, for every family.
#[test]
fn kernels_say_what_a_full_pass_says() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let sampling = Sampling { temperature: 1.0, top_p: 1.0 };
        let context = three_turns(&mut native_engine(&policy, CONFIG), sampling);
        let expected = context.full_pass(&policy, &decoder, 1.0);
        check_close(&context.log_probs, &expected, 1e-5, checkpoint);
        let eager = three_turns(&mut engine(&policy, CONFIG), sampling);
        assert_eq!(context.ids, eager.ids, "{checkpoint}");
    }
}

#[test]
fn greedy_tokens_are_the_most_likely_of_full_passes() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let sampling = Sampling { temperature: 0.0, top_p: 1.0 };
        let context = three_turns(&mut engine(&policy, CONFIG), sampling);
        let logits = tch::no_grad(|| packed_logits(&policy, &decoder, &[&context.ids]));
        let best: Vec<i64> = Vec::try_from(logits[0].argmax(-1, false)).unwrap();
        let sampled = (0..context.ids.len()).filter(|&index| context.sampled[index]);
        for index in sampled {
            assert_eq!(i64::from(context.ids[index]), best[index - 1], "{checkpoint} {index}");
        }
        let expected = context.full_pass(&policy, &decoder, 1.0);
        check_close(&context.log_probs, &expected, 1e-4, checkpoint);
    }
}

/// Tokens that a cut drops must leave the cache too.
#[test]
fn a_turn_after_a_cut_continues_on_what_was_kept() {
    let (policy, decoder) = tiny(CHECKPOINTS[0], F32);
    let tokenizer = Tokenizer::characters();
    let mut uncut = engine(&policy, CONFIG);
    let whole = generate(&mut uncut, &tokenizer, vec![greedy_request(1, &PROMPT, 8)]);
    let whole = &whole[&1].token_ids;
    // Two characters, because an earlier token alone could match one.
    let tag = tokenizer.decode(&whole[2..4]).unwrap();
    let holds_tag = |end: &usize| tokenizer.decode(&whole[..*end]).unwrap().contains(&tag);
    let kept = (1..whole.len()).find(holds_tag).unwrap();

    let mut engine = engine(&policy, CONFIG);
    let stop = StopRule { stop_at: Vec::new(), cut_after: vec![tag] };
    let mut context = Context::default();
    context.turn(&mut engine, GenerateRequest { stop, ..greedy_request(1, &PROMPT, 8) });
    assert_eq!(context.ids[PROMPT.len()..], whole[..kept]);
    context.turn(&mut engine, request(1, &OBSERVATION, 9));
    assert_eq!(context.log_probs.len(), kept + 9);
    let expected = context.full_pass(&policy, &decoder, 1.0);
    check_close(&context.log_probs, &expected, 1e-4, "after a cut");
}

#[test]
fn bf16_log_probs_are_near_those_of_a_full_pass() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, BF16);
        let sampling = Sampling { temperature: 1.0, top_p: 1.0 };
        let context = three_turns(&mut engine(&policy, CONFIG), sampling);
        let same_type = context.full_pass(&policy, &decoder, 1.0);
        check_close(&context.log_probs, &same_type, 0.15, checkpoint);
        let (exact, decoder) = tiny(checkpoint, F32);
        let exact = context.full_pass(&exact, &decoder, 1.0);
        check_close(&context.log_probs, &exact, 0.3, checkpoint);
    }
}

#[test]
fn new_weights_take_effect_between_turns() {
    let (first, _) = tiny(CHECKPOINTS[0], F32);
    let (second, decoder) = tiny(CHECKPOINTS[0], F32);
    tch::no_grad(|| {
        for (name, parameter) in &second.parameters {
            let mut parameter = parameter.shallow_clone();
            let _ = parameter.g_mul_scalar_(if name.contains("norm") { 1.0 } else { 0.5 });
        }
    });
    let mut engine = engine(&first, CONFIG);
    let tokenizer = Tokenizer::characters();
    let before = generate(&mut engine, &tokenizer, vec![request(1, &PROMPT, 6)]);
    assert_eq!(before[&1].policy_version, 0);
    engine.set_weights(second.detached_weights(), 3);
    let mut context = Context::default();
    context.turn(&mut engine, request(2, &PROMPT, 6));
    let expected = context.full_pass(&second, &decoder, 1.0);
    check_close(&context.log_probs, &expected, 1e-4, "with the second weights");
    let after = generate(&mut engine, &tokenizer, vec![request(3, &PROMPT, 6)]);
    assert_eq!(after[&3].policy_version, 3);
}
