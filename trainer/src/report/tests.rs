use std::path::Path;

use super::*;
use crate::engine::EngineCounters;
use crate::eval::{EvalRow, Method, Searches};
use crate::rollout::{EndReason, SearchRecord, Segment, SegmentKind, Trajectory};
use crate::track::{AlgorithmMetrics, StepSeconds, record_phase};

fn segment(kind: SegmentKind, text: &str) -> Segment {
    Segment {
        kind,
        token_ids: vec![1; text.len().div_ceil(4)],
        log_probs: Vec::new(),
        policy_version: 0,
        text: text.to_owned(),
    }
}

/// Creates an episode of `searches` searches. In every fifth episode, an invalid action comes first.
fn episode(index: usize, searches: usize, answer: &str) -> Trajectory {
    let mut segments = vec![segment(
        SegmentKind::Prompt,
        &format!("Answer the given question. Search with <search> … </search>.\nQuestion {index}?"),
    )];
    if index.is_multiple_of(5) {
        segments.push(segment(SegmentKind::Sampled, "Let me think about this."));
        segments.push(segment(SegmentKind::Injected, "\nMy previous action is invalid.\n"));
    }
    for turn in 0..searches {
        segments.push(segment(
            SegmentKind::Sampled,
            &format!("<think>I need passage {turn}.</think>\n<search>query {turn}</search>"),
        ));
        segments.push(segment(
            SegmentKind::Observation,
            "\n\n<information>Doc 1(Title: \"Rome\") Rome & its <hills>.</information>\n\n",
        ));
    }
    segments.push(segment(SegmentKind::Sampled, &format!("<answer>{answer}</answer>")));
    let record = SearchRecord { query: "query".to_owned(), passage_ids: vec!["p".to_owned()] };
    Trajectory {
        prompt: index,
        sample: 0,
        example_id: format!("q{index}"),
        segments,
        end: EndReason::Answered,
        turns: searches + 1,
        valid_actions: searches + 1,
        valid_searches: searches,
        invalid_actions: 0,
        length_stops: 0,
        shortened_observations: 0,
        searches: vec![record; searches],
    }
}

fn evaluation(name: &str, searches: Searches, right: usize, total: usize) -> EvalResult {
    let row = |index: usize| {
        let em = index < right;
        let answer = if em { "Rome" } else { "<script>alert(1)</script>" };
        EvalRow {
            example_id: format!("q{index}"),
            question: format!("In which city is hill {index} & co?"),
            golden_answers: vec!["Rome".to_owned(), "Roma".to_owned()],
            prediction: Some(answer.to_owned()),
            em,
            sub_em: em,
            f1: f64::from(u8::from(em)),
            searches: 1 + index % 2,
            answer_in_passages: em,
            end: EndReason::Answered,
            trajectory: (index < 40).then(|| episode(index, 1 + index % 2, answer)),
        }
    };
    EvalResult {
        name: name.to_owned(),
        model: format!("runs/sample/{name} (sha256 0123…)"),
        searches,
        questions: total,
        seconds: 60.0,
        set: None,
        method: Method::Search,
        max_turns: Some(4),
        ceiling: None,
        key: None,
        rows: (0..total).map(row).collect(),
    }
}

/// Creates a step of a run that learns. The values are deterministic but not smooth.
fn step(step: u64) -> StepMetrics {
    let progress = step as f64 / 60.0;
    let ripple = ((step * 7919 % 101) as f64 / 101.0 - 0.5) * 0.14;
    let em = (0.12 + 0.45 * (1.0 - (-3.0 * progress).exp()) + ripple).clamp(0.0, 1.0);
    StepMetrics {
        step,
        reward_mean: (em + 0.04 + ripple * 0.2).min(1.0),
        em,
        searches_per_question: 0.7 + 0.9 * progress + ripple,
        invalid_actions: (30.0 * (1.0 - progress) + 40.0 * ripple.abs()) as u64,
        trajectories: 64,
        dropped_trajectories: u64::from(step == 31),
        stale_trajectories: 0,
        response_tokens: 62.0 - 18.0 * progress + 20.0 * ripple,
        entropy: 0.9 - 0.5 * progress + ripple,
        kl: 2e-4 + 6e-3 * progress * progress + 0.004 * ripple.abs(),
        clip_fraction: 0.01 + 0.05 * ripple.abs(),
        policy_loss: -0.01,
        grad_norm: 0.5 + ripple,
        learning_rate: 1e-6,
        log_prob_gap: 1e-4 * (1.0 + ripple),
        algorithm: AlgorithmMetrics::default(),
        generation: EngineCounters::default(),
        tokens_per_second: 210.0 + 90.0 * ripple,
        seconds: StepSeconds {
            rollout: 14.0,
            search: 0.6,
            generation: 13.0,
            log_probs: 3.0,
            update: 9.0,
            total: 27.0,
        },
        peak_memory_mib: 5400 + step,
        ahead: crate::track::AheadMetrics::default(),
        record: crate::track::RecordMetrics::default(),
        guard: crate::track::GuardMetrics::default(),
        reward: crate::track::RewardMetrics::default(),
        held_memory_mib: 4100,
    }
}

/// Writes a run directory in the form that the commands write.
fn sample_run(folder: &Path) {
    for (stem, name, searches, right) in [
        (AFTER, AFTER, Searches::Retriever, 110),
        (BEFORE, BEFORE, Searches::Retriever, 30),
        (AFTER_RANDOM, "after GRPO, random passages", Searches::Random, 22),
        ("none", "after GRPO, no searches", Searches::None, 12),
    ] {
        let result = evaluation(name, searches, right, 200);
        result.save(&evaluation_path(folder, stem)).unwrap();
    }
    let mut file = crate::track::MetricsFile::open(&folder.join("metrics.jsonl"), 0).unwrap();
    for index in 1..=60 {
        file.append(&step(index)).unwrap();
    }
    for (name, seconds) in [("sft", 312.0), ("train", 1630.0), ("eval after", 95.0)] {
        record_phase(folder, name, seconds).unwrap();
    }
    std::fs::write(folder.join("config.toml"), "seed = 1\n[data]\ntemplate = \"<x>\"\n").unwrap();
    std::fs::write(
        folder.join("manifest.json"),
        "{\"model\":{\"sha256\":\"b179c952\"},\"retriever\":{\"index\":\"ab\",\"documents\":12997}}",
    )
    .unwrap();
}

#[test]
fn a_run_becomes_one_page_and_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("demo");
    std::fs::create_dir(&folder).unwrap();
    sample_run(&folder);
    let mut out = Vec::new();
    let path = write_report(&folder, Some("A <sample> run"), &mut out).unwrap();
    assert_eq!(path, folder.join("report.html"));
    let html = std::fs::read_to_string(&path).unwrap();
    let text = String::from_utf8(out).unwrap();

    // The headline, on the page and on the terminal.
    let sentence = "after GRPO, compared with after the warm start: EM +0.400 (+0.311 to +0.480); the 95 % \
                    intervals do not overlap";
    assert!(text.contains(sentence), "{text}");
    assert!(html.contains("+0.400<small> EM"), "gain");
    assert!(html.contains("−0.440<small> EM"), "loss with random passages");
    assert!(html.contains("0.150 → 0.550"), "before and after");
    assert!(html.contains("the 95\u{a0}% intervals do not overlap"));
    let order: Vec<usize> =
        ["after the warm start  ", "after GRPO  ", "after GRPO, random", "after GRPO, no"]
            .iter()
            .map(|name| text.find(name).unwrap())
            .collect();
    assert!(order.is_sorted(), "rows are out of order: {text}");

    // The page loads nothing, and no text of the model becomes markup.
    for forbidden in ["<script", "http:", "https:", "url(", "@import", "<link", "<sample>"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(html.contains("Rome &amp; its &lt;hills&gt;."));
    assert!(html.contains("A &lt;sample&gt; run"));
    assert!(!html.contains("NaN") && !html.contains("inf\""));

    // Curves, episodes with masked and trained parts, facts.
    assert_eq!(
        html.matches("<svg").count(),
        2 + 9 + 4,
        "the main chart twice, small charts, intervals"
    );
    for class in ["segment masked", "segment sampled", "segment masked injected"] {
        assert!(html.contains(class), "{class}");
    }
    assert!(html.matches("<article>").count() >= 3);
    assert!(html.contains("The same question before GRPO: wrong"));
    for fact in ["retriever.documents", "12997", "b179c952", "27 min 10 s", "seed = 1"] {
        assert!(html.contains(fact), "{fact}");
    }
    assert!(html.contains("1 was dropped"));
}

/// A figure has a chart only if the run's algorithm has the figure.
#[test]
fn charts_of_an_algorithm_appear_only_for_that_algorithm() {
    let charts = |change: fn(&mut AlgorithmMetrics)| {
        let row = |index| {
            let mut row = step(index);
            change(&mut row.algorithm);
            row
        };
        let rows: Vec<StepMetrics> = (1..=3).map(row).collect();
        let html = super::curves::section(&rows);
        let count = html.matches("<svg").count() - 11;
        (count, html)
    };
    assert_eq!(charts(|_| {}).0, 0);
    // A run without corrections writes 1.
    assert_eq!(charts(|own| own.importance = 1.0).0, 0);
    for (change, title) in [
        ((|own| own.kl_coefficient = 1e-3) as fn(&mut AlgorithmMetrics), "KL weight"),
        (|own| own.importance = 0.97, "Correction weight for the sampler"),
        (|own| own.positive_log_prob = -1.5, "Log-prob of tokens with a positive advantage"),
        (|own| own.likelihood_loss = 0.1, "Likelihood loss"),
        (|own| own.value_loss = 0.1, "Value loss of the critic"),
        (|own| own.value_clip_fraction = 0.1, "Share of clipped values"),
        (|own| own.critic_grad_norm = 2.0, "Gradient norm of the critic"),
    ] {
        let (count, html) = charts(change);
        assert_eq!(count, 1, "{title}");
        assert!(html.contains(title), "{title}");
    }
}

#[test]
fn elements_are_closed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    sample_run(dir.path());
    let html = RunRecord::load(dir.path(), None).unwrap().to_html();
    // Elements that need no closing tag, or that have no content.
    let optional = ["meta", "th", "td", "tr", "br"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html.split_once("<html").unwrap().1;
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, following) = after.split_once('>').unwrap();
        rest = following;
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        if optional.contains(&name) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            let last = if name == "html" { Some("html") } else { open.pop() };
            assert_eq!(last, Some(name), "…{}", &rest[..rest.len().min(80)]);
        } else {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn missing_parts_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    evaluation("after GRPO", Searches::Retriever, 3, 10)
        .save(&evaluation_path(dir.path(), AFTER))
        .unwrap();
    let record = RunRecord::load(dir.path(), None).unwrap();
    let html = record.to_html();
    assert!(html.contains("0.300") && !html.contains("class=tiles") && !html.contains("NaN"));
    assert_eq!(Headline::from_record(&record).comparisons().count(), 0);
}

#[test]
fn an_episode_is_not_compared_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    let result = evaluation(BEFORE, Searches::Retriever, 3, 10);
    result.save(&evaluation_path(dir.path(), BEFORE)).unwrap();
    let html = RunRecord::load(dir.path(), None).unwrap().to_html();
    assert!(html.contains("<article>") && !html.contains("The same question"));
}

#[test]
fn overlapping_intervals_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    for (stem, right) in [(BEFORE, 40), (AFTER, 48)] {
        let result = evaluation(stem, Searches::Retriever, right, 200);
        result.save(&evaluation_path(dir.path(), stem)).unwrap();
    }
    let record = RunRecord::load(dir.path(), None).unwrap();
    let training = Headline::from_record(&record).training.unwrap();
    assert!(training.intervals_overlap());
    assert!(record.to_text().contains("the 95 % intervals overlap"));
    assert!(record.to_html().contains("note unsure"));
}

#[test]
fn bad_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |folder: &Path| RunRecord::load(folder, None).unwrap_err().to_string();
    assert!(error(dir.path()).contains("nothing to report"), "{}", error(dir.path()));
    let path = evaluation_path(dir.path(), "x");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "[]").unwrap();
    assert!(error(dir.path()).contains("x.json: not an evaluation"), "{}", error(dir.path()));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join("metrics.jsonl"), "nonsense\n").unwrap();
    assert!(error(dir.path()).contains("metrics.jsonl:1: "), "{}", error(dir.path()));
}
