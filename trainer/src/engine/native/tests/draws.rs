//! Draws from the head, compared with draws from whole rows of log-probs.

use tch::{Kind, Tensor};

use super::{Draw, GREEDY, Instructions, Part, WARM, WeightFormat, feed, key, runner, tokens};
use crate::engine::Sampling;
use crate::engine::sample::choose;
use crate::policy::tests::{F32, packed_logits, tiny};

const DRAWS: usize = 400;

#[test]
fn draws_are_those_from_whole_rows() {
    for name in ["llama-tiny-tied", "qwen2-tiny"] {
        let (policy, decoder) = tiny(name, F32);
        let ids = tokens(&policy, 24, 4);
        let logits = tch::no_grad(|| packed_logits(&policy, &decoder, &[&ids]).remove(0));
        let mut runner = runner(&policy, WeightFormat::F32, Instructions::detect(), 2);
        let nucleus = Sampling { temperature: 1.3, top_p: 0.8 };
        let samplings = [GREEDY, WARM, Sampling { temperature: 1.0, top_p: 1.0 }, nucleus];
        let draws: Vec<Draw> = (0..DRAWS)
            .map(|index| Draw {
                row: index * 5 % ids.len(),
                sampling: samplings[index % samplings.len()],
                key: key(1, index),
                position: index as u64,
            })
            .collect();
        let part = Part { ids: &ids, past: 0, blocks: &[0] };
        let actual = feed(&mut runner, &[part], &draws).unwrap();
        assert_eq!(actual.len(), draws.len());
        for (draw, actual) in draws.iter().zip(actual) {
            let Draw { row, sampling, key, position } = *draw;
            let temperature = if sampling == GREEDY { 1.0 } else { sampling.temperature };
            let row = logits.get(row as i64) / f64::from(temperature);
            let log_probs: Vec<f32> = values(&row.log_softmax(-1, Kind::Float));
            let probabilities: Vec<f32> = log_probs.iter().map(|value| value.exp()).collect();
            let expected = choose(&log_probs, &probabilities, sampling, key, position);
            assert_eq!(actual.token, expected.token, "{name}, {draw:?}");
            assert!((actual.log_prob - expected.log_prob).abs() < 1e-5, "{name}, {draw:?}");
        }
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}
