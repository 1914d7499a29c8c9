//! The end of turns: at the token that completes a stop string, at the end of sequence, at a limit.

use serde_json::{Map, Value, json};

use super::{CONFIG, chain_model, engine, generate, generate_one, request};
use crate::engine::{GenerateRequest, Generation, StopReason, StopRule};
use crate::token::Tokenizer;

const SEARCH: &str = "</search>";
const ANSWER: &str = "</answer>";

fn rule(stop_at: &[&str], cut_after: &[&str]) -> StopRule {
    let owned = |tags: &[&str]| tags.iter().copied().map(str::to_owned).collect();
    StopRule { stop_at: owned(stop_at), cut_after: owned(cut_after) }
}

fn tag(text: &str) -> StopReason {
    StopReason::Tag(text.to_owned())
}

/// Returns a tokenizer whose ids are the indices of `tokens`; the last token ends a sequence.
fn tokenizer(tokens: &[&str]) -> Tokenizer {
    let numbered: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect();
    let end = tokens.last().unwrap();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{"id": tokens.len() - 1, "content": end, "single_word": false,
                          "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": numbered, "unk_token": end},
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, contents: Value| {
        std::fs::write(folder.path().join(name), contents.to_string()).unwrap();
    };
    write("tokenizer.json", tokenizer);
    write("tokenizer_config.json", json!({"eos_token": end}));
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// Generates from the first of `tokens` under `stop`; each token is followed by the next.
fn generate_chain(tokens: &[&str], stop: StopRule, max_new_tokens: usize) -> Generation {
    let ids: Vec<u32> = (0..tokens.len() as u32).collect();
    let policy = chain_model(&ids);
    let request = GenerateRequest { stop, ..request(1, &[0], max_new_tokens) };
    let mut engine = engine(&policy, CONFIG);
    generate(&mut engine, &tokenizer(tokens), vec![request]).remove(&1).unwrap()
}

/// Checks that the first `kept` tokens after the prompt are kept, and that the turn ends for `reason`.
#[track_caller]
fn check_chain(tokens: &[&str], stop: StopRule, kept: u32, reason: &StopReason) {
    let generation = generate_chain(tokens, stop, 6);
    assert_eq!(generation.token_ids, (1..=kept).collect::<Vec<_>>());
    assert_eq!(generation.stop, *reason);
    assert_eq!(generation.log_probs.len(), kept as usize);
    assert!(generation.log_probs.iter().all(|log_prob| log_prob.abs() < 1e-3));
}

#[test]
fn a_turn_ends_with_the_character_that_completes_the_tag() {
    let text = "x</search>YZ";
    let ids: Vec<u32> = text.chars().map(u32::from).collect();
    let policy = chain_model(&ids);
    let stop = rule(&[ANSWER, SEARCH], &[]);
    let request = GenerateRequest { stop, ..request(1, &ids[..1], 20) };
    let generation = generate_one(&mut engine(&policy, CONFIG), request);
    let actual = Tokenizer::characters().decode(&generation.token_ids).unwrap();
    assert_eq!((actual.as_str(), generation.stop), (SEARCH, tag(SEARCH)));
}

#[test]
fn a_tag_may_span_several_tokens_and_end_within_one() {
    let stop = || rule(&[SEARCH, ANSWER], &[]);
    let end = "<|end|>";
    check_chain(&["p", "q", "</sea", "rch>", "more", end], stop(), 3, &tag(SEARCH));
    check_chain(&["p", "q</", "search", "> so\n", "more", end], stop(), 3, &tag(SEARCH));
    check_chain(&["p", "I </search> you", "more", "most", end], stop(), 1, &tag(SEARCH));
    check_chain(&["p", "</search", ">", "</answer>", end], stop(), 2, &tag(SEARCH));
    // Near misses.
    check_chain(&["p", "</sea", "rch >", "</ search>", end], stop(), 4, &StopReason::EndOfSequence);
}

/// A tag is not completed if its beginning was sampled in an earlier turn, or appended.
#[test]
fn a_tag_does_not_reach_back_over_turns() {
    let tokens = ["p", "</sea", "rch>", "more", "<|end|>"];
    let tokenizer = tokenizer(&tokens);
    let policy = chain_model(&[0, 1, 2, 3, 4]);
    let mut engine = engine(&policy, CONFIG);
    let request = |append: &[u32], tokens| {
        let stop = rule(&[SEARCH], &[]);
        vec![GenerateRequest { stop, ..request(1, append, tokens) }]
    };
    let first = generate(&mut engine, &tokenizer, request(&[0], 1)).remove(&1).unwrap();
    assert_eq!((first.token_ids, first.stop), (vec![1], StopReason::Length));
    let second = generate(&mut engine, &tokenizer, request(&[], 2)).remove(&1).unwrap();
    assert_eq!((second.token_ids, second.stop), (vec![2, 3], StopReason::Length));
    let third = generate(&mut engine, &tokenizer, request(&[1], 2)).remove(&1).unwrap();
    assert_eq!((third.token_ids, third.stop), (vec![2, 3], StopReason::Length));
}

#[test]
fn a_stop_string_of_any_length_is_seen() {
    let characters: Vec<u32> = ('!'..='~').map(u32::from).collect();
    let policy = chain_model(&characters);
    let text: String = ('"'..='~').take(50).collect();
    let stop = rule(&[&text], &[]);
    let request = GenerateRequest { stop, ..request(1, &characters[..1], 60) };
    let generation = generate_one(&mut engine(&policy, CONFIG), request);
    let actual = Tokenizer::characters().decode(&generation.token_ids).unwrap();
    assert_eq!(actual, text);
    assert_eq!(generation.stop, tag(&text));
}

#[test]
fn the_end_of_sequence_is_kept_and_ends_a_turn() {
    let tokens = ["p", "a", "b", "<|end|>"];
    check_chain(&tokens, rule(&[SEARCH], &[]), 3, &StopReason::EndOfSequence);
}

#[test]
fn a_turn_ends_at_its_limit() {
    for limit in 1..=3 {
        let generation =
            generate_chain(&["p", "a", "b", "c", "d", "<|end|>"], rule(&[], &[]), limit);
        assert_eq!(generation.stop, StopReason::Length);
        assert_eq!(generation.token_ids.len(), limit);
    }
}

#[test]
fn tokens_after_a_cut_string_are_dropped_once_the_turn_has_ended() {
    let cut = || rule(&[SEARCH], &[ANSWER]);
    let end = "<|end|>";
    // At the length limit, at the end of sequence, and with nothing to drop.
    let long = ["p", "</ans", "wer>!", "a", "b", "c", "d", "e", end];
    check_chain(&long, cut(), 2, &tag(ANSWER));
    check_chain(&["p", "</ans", "wer>!", "a", end], cut(), 2, &tag(ANSWER));
    check_chain(&["p", "a", "b", "c", "d", "e", "</answer>", end], cut(), 6, &tag(ANSWER));
    // The first of several answers counts.
    check_chain(&["p", "</answer>", "a", "</answer> ", end], cut(), 1, &tag(ANSWER));
    // There is nothing to cut after.
    check_chain(&["p", "a", "</answer", end], cut(), 3, &StopReason::EndOfSequence);
}

#[test]
fn a_stop_string_wins_over_an_earlier_cut_string() {
    let tokens = ["p", "</answer>", "a", "</search>", "b", "<|end|>"];
    check_chain(&tokens, rule(&[SEARCH], &[ANSWER]), 3, &tag(SEARCH));
    check_chain(&tokens, rule(&[SEARCH, ANSWER], &[]), 1, &tag(ANSWER));
}
