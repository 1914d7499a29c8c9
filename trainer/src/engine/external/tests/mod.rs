//! The engine with fake servers that speak the real protocols, and with recorded answers of a real vLLM.

mod fake;
mod recorded;

use std::path::Path;
use std::time::{Duration, Instant};

use shared::contract::retry::RetryPolicy;

use super::*;
use crate::engine::{Sampling, StopRule};
use crate::rollout::scheduler::{default_stop_rule, reference_stop_rule};
use fake::{Answer, FakeServer, ids_of};

/// A limit that is long enough for a busy machine; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_mins(1);
const KEY: SamplingKey = SamplingKey { seed: 7, step: 1, prompt: 2, sample: 3 };

fn config(dialect: Dialect, servers: &[&FakeServer], deadline: Duration) -> ExternalEngineConfig {
    ExternalEngineConfig {
        dialect,
        urls: servers.iter().map(|server| server.url.clone()).collect(),
        max_context_tokens: 200,
        vocabulary: 0x11_0001,
        attempt_timeout: PATIENCE,
        retry: RetryPolicy {
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(5),
            deadline,
        },
        max_in_flight: 4,
        health_interval: Duration::from_millis(1),
    }
}

/// Creates an engine with the weights of version 5.
fn engine(dialect: Dialect, servers: &[&FakeServer]) -> ExternalEngine {
    let mut engine = ExternalEngine::new(config(dialect, servers, PATIENCE)).unwrap();
    engine.set_weights(Path::new("/weights/step-5"), 5);
    engine
}

fn request(sequence: SequenceId, append: &str, stop: StopRule) -> GenerateRequest {
    GenerateRequest {
        sequence,
        append: ids_of(append),
        max_new_tokens: 50,
        stop,
        sampling: Sampling { temperature: 1.0, top_p: 1.0 },
        key: KEY,
    }
}

/// Steps until `count` turns have ended.
fn play(engine: &mut ExternalEngine, count: usize) -> Result<Vec<Generation>, EngineError> {
    let begun = Instant::now();
    let mut ended = Vec::new();
    while ended.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} turns ended", ended.len());
        ended.extend(engine.step(&Tokenizer::characters())?);
    }
    Ok(ended)
}

fn text(generation: &Generation) -> String {
    Tokenizer::characters().decode(&generation.token_ids).unwrap()
}

#[test]
fn turns_are_played_with_the_current_weights_and_the_whole_context() {
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let answers = [
            Answer::Text("<search>x</search>", "stop"),
            Answer::Text("<answer>y</answer>", "stop"),
        ];
        let server = FakeServer::start(dialect, &answers);
        let mut engine = engine(dialect, &[&server]);
        engine.submit(request(0, "Q", default_stop_rule())).unwrap();
        let first = play(&mut engine, 1).unwrap().remove(0);
        assert_eq!((first.policy_version, text(&first).as_str()), (5, "<search>x</search>"));
        assert_eq!(first.stop, StopReason::Tag("</search>".to_owned()));
        assert_eq!(first.log_probs, vec![-0.5; first.token_ids.len()]);
        engine.submit(request(0, "P", default_stop_rule())).unwrap();
        play(&mut engine, 1).unwrap();
        assert_eq!(server.prompts(), ["Q", "Q<search>x</search>P"]);
        assert_eq!(server.state().loaded, ["/weights/step-5"]);

        engine.set_weights(Path::new("/weights/step-6"), 6);
        engine.release(0);
        engine.submit(request(0, "Q", default_stop_rule())).unwrap();
        assert_eq!(play(&mut engine, 1).unwrap()[0].policy_version, 6);
        assert_eq!(server.state().loaded, ["/weights/step-5", "/weights/step-6"]);
        let resume = if dialect == Dialect::Vllm { "/resume" } else { "/continue_generation" };
        assert_eq!(server.state().others.iter().filter(|path| *path == resume).count(), 2);
    }
}

#[test]
fn a_turn_ends_where_its_text_does() {
    let long = "thinks</answer>and so on</search>more";
    let server = FakeServer::start(
        Dialect::Vllm,
        &[Answer::Text(long, "length"), Answer::Text(long, "length")],
    );
    let mut engine = engine(Dialect::Vllm, &[&server]);
    engine.submit(request(0, "Q", default_stop_rule())).unwrap();
    assert_eq!(text(&play(&mut engine, 1).unwrap()[0]), "thinks</answer>");
    engine.submit(request(1, "Q", reference_stop_rule())).unwrap();
    assert_eq!(text(&play(&mut engine, 1).unwrap()[0]), "thinks</answer>and so on</search>");
}

#[test]
fn a_turn_without_a_tag_ends_as_the_server_says_and_never_past_the_context() {
    let long: &str = "abcdefghij";
    let answers =
        [Answer::Text(long, "length"), Answer::Text(long, "stop"), Answer::Text(long, "length")];
    let server = FakeServer::start(Dialect::Vllm, &answers);
    let mut engine = engine(Dialect::Vllm, &[&server]);
    let context = "x".repeat(194);
    for (sequence, prompt, stop, tokens) in [
        (0, "Q", StopReason::Length, 10),
        (1, "Q", StopReason::EndOfSequence, 10),
        (2, context.as_str(), StopReason::Length, 6),
    ] {
        engine.submit(request(sequence, prompt, default_stop_rule())).unwrap();
        let ended = play(&mut engine, 1).unwrap().remove(0);
        assert_eq!((ended.stop, ended.token_ids.len()), (stop, tokens));
    }
    assert_eq!(server.state().turns[2]["max_tokens"], 6);
    let error = engine.submit(request(3, &"x".repeat(200), default_stop_rule())).unwrap_err();
    assert!(error.to_string().contains("201 tokens"), "{error}");
}

#[test]
fn transient_failures_are_retried() {
    let answers = [
        Answer::Status(503),
        Answer::Status(500),
        Answer::Break,
        Answer::Text("", "abort"),
        Answer::Text("<answer>late</answer>", "stop"),
    ];
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let server = FakeServer::start(dialect, &answers);
        let mut engine = engine(dialect, &[&server]);
        engine.submit(request(0, "Q", default_stop_rule())).unwrap();
        assert_eq!(text(&play(&mut engine, 1).unwrap()[0]), "<answer>late</answer>");
        assert_eq!(server.state().turns.len(), answers.len());
        // Each attempt sends the same turn with the same seed.
        let turns = server.state().turns.clone();
        assert!(turns.iter().all(|turn| *turn == turns[0]), "{turns:?}");
    }
}

#[test]
fn a_permanent_failure_is_an_error_without_a_retry() {
    for (answer, part) in [
        (Answer::Status(400), "what the test wants"),
        (Answer::Ids(vec![0x11_0001]), "token 1114113"),
        (Answer::Text("", "stop"), "no token was sampled"),
        (Answer::Text("a", "odd"), "finish_reason is \"odd\""),
    ] {
        let server = FakeServer::start(Dialect::Vllm, &[answer]);
        let mut engine = engine(Dialect::Vllm, &[&server]);
        engine.submit(request(0, "Q", default_stop_rule())).unwrap();
        let error = play(&mut engine, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
        assert_eq!(server.state().turns.len(), 1);
    }
    let server = FakeServer::start(Dialect::Vllm, &[]);
    server.state().context = 199;
    let mut engine = engine(Dialect::Vllm, &[&server]);
    engine.submit(request(0, "Q", default_stop_rule())).unwrap();
    let error = play(&mut engine, 1).unwrap_err().to_string();
    assert!(error.contains("199 tokens") && error.contains("need 200"), "{error}");
}

#[test]
fn an_engine_that_stays_away_is_an_error_after_the_deadline() {
    let server = FakeServer::start(Dialect::Vllm, &[]);
    server.set_dead(true);
    let deadline = Duration::from_millis(50);
    let mut engine = ExternalEngine::new(config(Dialect::Vllm, &[&server], deadline)).unwrap();
    engine.set_weights(Path::new("/weights/step-5"), 5);
    engine.submit(request(0, "Q", default_stop_rule())).unwrap();
    let error = play(&mut engine, 1).unwrap_err().to_string();
    assert!(error.contains("attempts in"), "{error}");
}

#[test]
fn turns_of_a_restarted_server_with_other_weights_are_discarded() {
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let answers =
            [Answer::Restarted("<answer>stale</answer>"), Answer::Text("fresh</answer>", "stop")];
        let server = FakeServer::start(dialect, &answers);
        let mut engine = engine(dialect, &[&server]);
        engine.submit(request(0, "Q", default_stop_rule())).unwrap();
        assert_eq!(text(&play(&mut engine, 1).unwrap()[0]), "fresh</answer>");
        assert_eq!(server.state().loaded, ["/weights/step-5"; 2]);
    }
}

#[test]
fn a_conversation_stays_at_its_replica_until_that_dies_and_no_turn_is_lost() {
    let servers = [(); 2].map(|()| FakeServer::start(Dialect::Vllm, &[]));
    let mut engine = engine(Dialect::Vllm, &[&servers[0], &servers[1]]);
    let submit_all = |engine: &mut ExternalEngine| {
        for sequence in 0..8 {
            engine.submit(request(sequence, "Q", default_stop_rule())).unwrap();
        }
        play(engine, 8).unwrap()
    };
    submit_all(&mut engine);
    let turns = |server: &FakeServer| server.state().turns.len();
    let first = [turns(&servers[0]), turns(&servers[1])];
    assert!(first[0] > 0 && first[1] > 0 && first[0] + first[1] == 8, "{first:?}");
    submit_all(&mut engine);
    assert_eq!([turns(&servers[0]), turns(&servers[1])], first.map(|count| 2 * count));

    // The remaining replica gets the context of every conversation.
    servers[0].set_dead(true);
    let ended = submit_all(&mut engine);
    assert_eq!(ended.len(), 8);
    assert_eq!(turns(&servers[1]), 2 * first[1] + 8);
    assert!(servers[1].prompts()[2 * first[1]..].iter().all(|text| text.matches('Q').count() == 3));

    // The other one comes back without the weights, loads them, and plays turns again.
    servers[0].set_dead(false);
    let begun = Instant::now();
    while servers[0].state().loaded.len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the replica got no weights");
        std::thread::yield_now();
    }
    servers[1].set_dead(true);
    assert_eq!(submit_all(&mut engine).len(), 8);
}

#[test]
fn a_released_turn_is_cancelled_and_its_id_can_be_used_again() {
    let server = FakeServer::start(Dialect::Vllm, &[Answer::Hold]);
    let mut engine = engine(Dialect::Vllm, &[&server]);
    engine.submit(request(0, "Q", default_stop_rule())).unwrap();
    assert!(matches!(
        engine.submit(request(0, "Q", default_stop_rule())),
        Err(EngineError::Busy(0))
    ));
    let begun = Instant::now();
    while server.state().turns.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "the turn was not sent");
        assert!(engine.step(&Tokenizer::characters()).unwrap().is_empty());
    }
    assert!(!engine.is_idle());
    engine.release(0);
    assert!(engine.is_idle());
    server.gone.recv_timeout(PATIENCE).unwrap();
    engine.submit(request(0, "R", default_stop_rule())).unwrap();
    assert_eq!(text(&play(&mut engine, 1).unwrap()[0]), "a</answer>");
    assert_eq!(server.prompts(), ["Q", "R"]);
}

#[test]
fn every_counter_and_the_position_change_the_seed() {
    let seeds = [
        seed_of(KEY, 9),
        seed_of(KEY, 10),
        seed_of(SamplingKey { seed: 8, ..KEY }, 9),
        seed_of(SamplingKey { step: 8, ..KEY }, 9),
        seed_of(SamplingKey { prompt: 8, ..KEY }, 9),
        seed_of(SamplingKey { sample: 8, ..KEY }, 9),
    ];
    assert_eq!(seeds[0], seed_of(KEY, 9));
    for (index, seed) in seeds.iter().enumerate() {
        assert!(*seed >= 0 && !seeds[..index].contains(seed), "{seeds:?}");
    }
}
