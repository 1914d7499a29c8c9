//! Passes that the runner refuses.

use tch::Tensor;

use super::{
    BLOCKS, Draw, GREEDY, Instructions, Part, Pass, Runner, Span, WeightFormat, feed, key, runner,
    tokens,
};
use crate::policy::tests::{F32, tiny};

/// Checks that a pass of the given ids and positions, with one span of `blocks`, is refused with `expected`.
#[track_caller]
fn check_refused(ids: &[u32], positions: &[u32], blocks: &[u32], expected: &str) {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let mut runner = runner(&policy, WeightFormat::F32, Instructions::detect(), 1);
    let span = Span { rows: 0..ids.len(), past: 0, blocks };
    let error = runner.run(&Pass { ids, positions, spans: &[span] }, &[]).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn passes_beyond_the_model_or_the_pool_are_refused() {
    check_refused(&[128], &[0], &[0], "has the token 128, the vocabulary 128");
    check_refused(&[1], &[400], &[0], "has the position 400, the runner 400");
    check_refused(&[1, 2], &[0], &[0], "has 1 positions for 2 ids");
    check_refused(&[1], &[0], &[], "has a span of 0 blocks that needs 1");
    check_refused(&[1], &[0], &[BLOCKS as u32], "names the block 40, the cache has 40");
}

#[test]
fn spans_and_draws_that_do_not_fit_the_rows_are_refused() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    let mut runner = runner(&policy, WeightFormat::F32, Instructions::detect(), 1);
    let span = |rows| Span { rows, past: 0, blocks: &[0] };
    for (spans, expected) in [
        (vec![span(0..1)], "of 3 rows has spans of 1"),
        (vec![span(0..1), span(2..3)], "span of rows 2..3 after row 1"),
        (vec![span(0..4)], "span of rows 0..4 after row 0"),
    ] {
        let pass = Pass { ids: &[1, 2, 3], positions: &[0, 1, 2], spans: &spans };
        let error = runner.run(&pass, &[]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let draw = Draw { row: 1, sampling: GREEDY, key: key(0, 0), position: 1 };
    let part = Part { ids: &[1], past: 0, blocks: &[0] };
    let error = feed(&mut runner, &[part], &[draw]).unwrap_err();
    assert!(error.to_string().contains("of 1 rows has a draw from row 1"), "{error}");
}

#[test]
fn nothing_is_drawn_from_weights_that_are_not_finite() {
    let (policy, _) = tiny("llama-tiny-tied", F32);
    tch::no_grad(|| {
        let norm: &Tensor = &policy.parameters["model.norm.weight"];
        let _ = norm.get(0).fill_(f64::NAN);
    });
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
        let mut runner = runner(&policy, format, Instructions::detect(), 1);
        let ids = tokens(&policy, 3, 1);
        let draw = Draw { row: 2, sampling: GREEDY, key: key(0, 0), position: 3 };
        let part = Part { ids: &ids, past: 0, blocks: &[0] };
        let error = feed(&mut runner, &[part], &[draw]).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{format:?}: {error}");
    }
}
