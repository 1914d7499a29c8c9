//! The result of a row does not depend on the rest of the pass, to the last bit.

use super::{Instructions, Part, Runner, WeightFormat, choices, draws_of, feed, runner};
use super::{scattered_blocks, tokens};
use crate::engine::Choice;
use crate::policy::tests::{F32, tiny};

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];

#[test]
fn a_prompt_in_parts_or_token_by_token_is_the_whole_prompt() {
    for name in ["llama-tiny-tied", "mistral-tiny", "qwen3-tiny"] {
        let (policy, _) = tiny(name, F32);
        let ids = tokens(&policy, 270, 5);
        let blocks = scattered_blocks(ids.len());
        for instructions in Instructions::available() {
            for format in FORMATS {
                let mut runner = runner(&policy, format, instructions, 1);
                let whole = choices(&mut runner, &ids, &blocks, ids.len());
                for chunk in [1, 33, 257] {
                    let parts = choices(&mut runner, &ids, &blocks, chunk);
                    assert_eq!(parts, whole, "{name}, {instructions:?}, {format:?}, {chunk}");
                }
            }
        }
    }
}

#[test]
fn neighbours_and_threads_change_nothing() {
    let (policy, _) = tiny("llama-tiny-biases", F32);
    // Sequences of different lengths: one decodes while the others are prefilled.
    let sequences: Vec<Vec<u32>> =
        [40, 3, 17, 70].iter().map(|&count| tokens(&policy, count, count as u64)).collect();
    let tables: [&[u32]; 4] = [&[5, 0], &[7], &[1], &[9, 3, 2]];
    for instructions in Instructions::available() {
        for format in FORMATS {
            let alone: Vec<Vec<[Choice; 4]>> = sequences
                .iter()
                .zip(tables)
                .map(|(ids, blocks)| {
                    let mut runner = runner(&policy, format, instructions, 1);
                    choices(&mut runner, ids, blocks, ids.len())
                })
                .collect();
            for threads in [1, 2, 5] {
                let mut runner = runner(&policy, format, instructions, threads);
                let cached = &sequences[0][..39];
                choices(&mut runner, cached, tables[0], cached.len());
                let mut parts = Vec::new();
                let (mut draws, mut expected, mut row) = (Vec::new(), Vec::new(), 0);
                for (index, (ids, blocks)) in sequences.iter().zip(tables).enumerate() {
                    let past = if index == 0 { cached.len() } else { 0 };
                    parts.push(Part { ids: &ids[past..], past, blocks });
                    for (token, choices) in alone[index].iter().enumerate().skip(past) {
                        draws.extend(draws_of(row, token));
                        expected.extend(choices);
                        row += 1;
                    }
                }
                let actual = feed(&mut runner, &parts, &draws).unwrap();
                assert_eq!(actual, expected, "{instructions:?}, {format:?}, {threads}");
            }
        }
    }
}

#[test]
fn a_fork_continues_in_copied_blocks() {
    let (policy, _) = tiny("llama-tiny-llama3", F32);
    let (prompt, first, second) =
        (tokens(&policy, 45, 1), tokens(&policy, 9, 2), tokens(&policy, 9, 3));
    for format in FORMATS {
        let fresh = || runner(&policy, format, Instructions::detect(), 2);
        let expected = |continued: &[u32]| {
            let ids = [&prompt[..], continued].concat();
            choices(&mut fresh(), &ids, &[0, 1], ids.len()).split_off(prompt.len())
        };
        let mut runner = fresh();
        choices(&mut runner, &prompt, &[8, 4], prompt.len());
        runner.copy_block(4, 6);
        // The first continues in its own blocks; the second shares the full block and has a copy of the last.
        let draws: Vec<_> = (0..first.len() + second.len())
            .flat_map(|row| draws_of(row, prompt.len() + row % first.len()))
            .collect();
        let parts = [
            Part { ids: &first, past: prompt.len(), blocks: &[8, 4] },
            Part { ids: &second, past: prompt.len(), blocks: &[8, 6] },
        ];
        let actual = feed(&mut runner, &parts, &draws).unwrap();
        let expected = [expected(&first), expected(&second)].concat();
        assert_eq!(actual, expected.concat(), "{format:?}");
    }
}

#[test]
fn weights_are_replaced() {
    let (policy, _) = tiny("qwen2-tiny", F32);
    let ids = tokens(&policy, 20, 8);
    for format in FORMATS {
        let mut runner = runner(&policy, format, Instructions::detect(), 2);
        let first = choices(&mut runner, &ids, &[2], ids.len());
        let (changed, _) = tiny("qwen2-tiny", F32);
        tch::no_grad(|| {
            for parameter in changed.parameters.values() {
                let _ = parameter.shallow_clone().g_mul_scalar_(1.25);
            }
        });
        let mut made = super::runner(&changed, format, Instructions::detect(), 2);
        let expected = choices(&mut made, &ids, &[2], ids.len());
        runner.set_weights(changed.detached_weights());
        let actual = choices(&mut runner, &ids, &[2], ids.len());
        assert_eq!(actual, expected, "{format:?}");
        assert_ne!(actual, first, "{format:?}");
    }
}
