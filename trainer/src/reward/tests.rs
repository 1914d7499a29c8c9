//! Checks against every recorded normalisation, match, outcome and structured score, and of the default reading.

use serde::Deserialize;

use super::format::{FormatVerdict, check_reference_text, check_segments};
use super::{
    MeasureWeights, Reward, RewardKind, RewardReading, RewardRules, StructuredScores, answer,
    matching, reward, score,
};
use crate::golden;
use crate::rollout::{EndReason, Segment, SegmentKind, Trajectory};

#[derive(Deserialize)]
struct Recording {
    normalize: Vec<(String, String)>,
    #[serde(rename = "match")]
    matches: Vec<Match>,
    outcome: Vec<Outcome>,
    structured: Vec<Structured>,
}

#[derive(Deserialize)]
struct Match {
    prediction: String,
    golden: Golden,
    em: f64,
    sub_em: f64,
}

#[derive(Deserialize)]
struct Outcome {
    text: String,
    golden: Golden,
    format_score: f64,
    extracted: Option<String>,
    em: f64,
    sub_em: f64,
}

#[derive(Deserialize)]
struct Structured {
    text: String,
    golden: Golden,
    valid: bool,
    /// Arguments of the reference. They default to 0.
    #[serde(default)]
    structure_format_score: f64,
    #[serde(default)]
    final_format_score: f64,
    #[serde(default)]
    retrieval_score: f64,
    score: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Golden {
    One(String),
    Several(Vec<String>),
}

impl Golden {
    fn list(&self) -> Vec<String> {
        match self {
            Self::One(answer) => vec![answer.clone()],
            Self::Several(answers) => answers.clone(),
        }
    }
}

const NO_VERDICT: FormatVerdict =
    FormatVerdict { is_well_formed: false, is_answer_retrieved: false };

fn recording() -> Recording {
    golden::read("rewards.json")
}

#[track_caller]
fn check_close(actual: f64, expected: f64, case: &str) {
    assert!((actual - expected).abs() < 1e-12, "{actual} is not {expected}: {case}");
}

#[test]
fn normalization_vectors_pass() {
    let cases = recording().normalize;
    assert!(!cases.is_empty());
    for (text, normalized) in cases {
        assert_eq!(matching::normalize(&text), normalized, "{text:?}");
    }
}

fn is_matchable(golden: &[String]) -> bool {
    golden.iter().any(|gold| !matching::normalize(gold).is_empty())
}

#[test]
fn match_vectors_pass() {
    let cases = recording().matches;
    assert!(!cases.is_empty());
    for case in cases {
        let golden = case.golden.list();
        // Deliberately different: an answer of which nothing is left matches nothing.
        let (em, sub_em) = if is_matchable(&golden) { (case.em, case.sub_em) } else { (0.0, 0.0) };
        check_close(matching::exact_match(&case.prediction, &golden), em, &case.prediction);
        let matched = matching::sub_exact_match(&case.prediction, &golden);
        check_close(matched, sub_em, &case.prediction);
    }
}

#[test]
fn outcome_vectors_pass() {
    let cases = recording().outcome;
    assert!(!cases.is_empty());
    for case in cases {
        let golden = case.golden.list();
        let extracted = answer::after_example(&case.text);
        assert_eq!(extracted, case.extracted, "{:?}", case.text);
        for (kind, expected) in
            [(RewardKind::ExactMatch, case.em), (RewardKind::SubExactMatch, case.sub_em)]
        {
            let config = RewardRules {
                kind,
                wrong_answer_score: case.format_score,
                ..RewardRules::default()
            };
            let scored = score(extracted.clone(), NO_VERDICT, &golden, &config);
            check_close(scored.score, expected, &case.text);
        }
    }
}

#[test]
fn structured_score_vectors_pass() {
    let cases = recording().structured;
    assert!(!cases.is_empty());
    for case in cases {
        let golden = case.golden.list();
        let config = RewardRules {
            kind: RewardKind::Structured,
            reading: RewardReading::Reference,
            structured: StructuredScores {
                structure: case.structure_format_score,
                final_answer: case.final_format_score,
                retrieval: case.retrieval_score,
            },
            ..RewardRules::default()
        };
        let verdict = check_reference_text(&case.text, &golden);
        assert_eq!(verdict.is_well_formed, case.valid, "{:?}", case.text);
        // The same through a trajectory, whose segments are joined.
        let scored = reward(&trajectory(&[(SegmentKind::Prompt, &case.text)]), &golden, &config);
        assert_eq!(scored.is_well_formed, case.valid);
        check_close(scored.score, case.score, &case.text);
    }
}

#[derive(Deserialize)]
struct SquadCase {
    prediction: String,
    gold: String,
    norm_prediction: String,
    norm_gold: String,
    em: f64,
    f1: f64,
}

#[test]
fn squad_em_and_f1_vectors_pass() {
    let cases: Vec<SquadCase> = golden::read("em-f1.json");
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!(matching::normalize(&case.prediction), case.norm_prediction);
        assert_eq!(matching::normalize(&case.gold), case.norm_gold);
        let golden = [case.gold];
        let (em, f1) = if is_matchable(&golden) { (case.em, case.f1) } else { (0.0, 0.0) };
        check_close(matching::exact_match(&case.prediction, &golden), em, &case.prediction);
        check_close(matching::f1(&case.prediction, &golden), f1, &case.prediction);
    }
}

fn trajectory(segments: &[(SegmentKind, &str)]) -> Trajectory {
    let segment = |&(kind, text): &(SegmentKind, &str)| Segment {
        kind,
        token_ids: Vec::new(),
        log_probs: Vec::new(),
        policy_version: 0,
        text: text.to_owned(),
    };
    Trajectory {
        prompt: 0,
        sample: 0,
        example_id: "e".to_owned(),
        segments: segments.iter().map(segment).collect(),
        end: EndReason::Answered,
        turns: 1,
        valid_actions: 0,
        valid_searches: 0,
        invalid_actions: 0,
        length_stops: 0,
        shortened_observations: 0,
        searches: Vec::new(),
    }
}

use SegmentKind::{Injected, Observation, Prompt, Sampled};

const PROMPT: (SegmentKind, &str) = (Prompt, "like this: <answer> Beijing </answer>. who?\n");
const SEARCH: (SegmentKind, &str) = (Sampled, "<think>a</think>\n<search>q</search>");
const PASSAGE: (SegmentKind, &str) =
    (Observation, "\n\n<information>Doc 1(Title: x) In <answer>Paris</answer></information>\n\n");
const ANSWER: (SegmentKind, &str) = (Sampled, "<think>b</think> <answer>The Paris.</answer>\n");

fn scored(segments: &[(SegmentKind, &str)], kind: RewardKind) -> Reward {
    let config = RewardRules { kind, ..RewardRules::default() };
    reward(&trajectory(segments), &["Paris".to_owned()], &config)
}

#[track_caller]
fn check_default(segments: &[(SegmentKind, &str)], exact: f64, structured: f64) {
    check_close(scored(segments, RewardKind::ExactMatch).score, exact, "exact match");
    check_close(scored(segments, RewardKind::Structured).score, structured, "structured");
}

#[test]
fn only_what_the_model_wrote_is_an_answer() {
    check_default(&[PROMPT, SEARCH, PASSAGE, ANSWER], 1.0, 1.0);
    // Only the passage holds the answer. The form is right up to there, but there is no answer.
    check_default(&[PROMPT, SEARCH, PASSAGE], 0.0, 0.0);
    check_default(&[PROMPT], 0.0, 0.0);
    // The tags enclose a passage, not words of the model.
    let open = (Sampled, "<think>a</think><answer><search>q</search>");
    check_default(&[PROMPT, open, PASSAGE, (Sampled, "Paris</answer>")], 0.0, 0.0);
    // The prompt's example is not the model's answer.
    let config = RewardRules::default();
    let beijing = reward(&trajectory(&[PROMPT]), &["Beijing".to_owned()], &config);
    assert_eq!((beijing.score, beijing.answer), (0.0, None));
    // The last answer counts.
    check_default(&[PROMPT, (Sampled, "<answer>Paris</answer><answer>Rome</answer>")], 0.0, 0.1);
}

#[test]
fn the_form_is_read_from_segments_without_a_chat_template() {
    let wrong = (Sampled, "<think>b</think><answer>Rome</answer>");
    check_default(&[PROMPT, SEARCH, PASSAGE, wrong], 0.0, 0.3);
    let elsewhere = (Observation, "<information>Oslo</information>");
    check_default(&[PROMPT, SEARCH, elsewhere, wrong], 0.0, 0.2);
    check_default(&[PROMPT, SEARCH, PASSAGE, SEARCH, elsewhere, ANSWER], 1.0, 1.0);
    check_default(&[PROMPT, ANSWER], 1.0, 1.0);
}

/// Templates of reasoning models end in `<think>`, so the model's text begins inside of it.
#[test]
fn a_thought_that_the_prompt_opens_counts_as_opened() {
    let opened = (Prompt, "<|im_start|>assistant\n<think>\n");
    let answer = (Sampled, "hm</think>\n<answer>Paris</answer>");
    let search = (Sampled, "hm</think><search>q</search>");
    check_default(&[opened, answer], 1.0, 1.0);
    check_default(&[opened, search, PASSAGE, ANSWER], 1.0, 1.0);
    check_default(&[PROMPT, answer], 1.0, 0.8);
    check_default(&[opened, ANSWER], 1.0, 0.8);
    check_default(&[opened, search, PASSAGE, answer], 1.0, 0.8);
    let closed = (Prompt, "<|im_start|>assistant\n<think>\n\n</think>\n\n");
    check_default(&[closed, ANSWER], 1.0, 1.0);
}

#[test]
fn misplaced_parts_spoil_the_form() {
    let made_up = (Sampled, "<think>a</think><search>q</search><information>Paris</information>");
    let message = (Injected, "\nMy previous action is invalid.\n");
    for segments in [
        vec![PROMPT, SEARCH, ANSWER],
        vec![PROMPT, (Sampled, "plain"), message, ANSWER],
        vec![PROMPT, made_up, ANSWER],
        vec![PROMPT, (Sampled, "<answer>Paris</answer>")],
        vec![PROMPT, (Sampled, "<think>a</think> stray <answer>Paris</answer>")],
        vec![PROMPT, (Sampled, "<think>a</think><answer>Paris</answer> trailing")],
        vec![PROMPT, (Sampled, "<think>a<answer>Paris</answer>")],
        vec![PROMPT, (Sampled, "<search>q</search>"), PASSAGE, ANSWER],
    ] {
        let verdict = check_segments(&trajectory(&segments).segments, &[]);
        assert!(!verdict.is_well_formed, "{segments:?}");
        check_default(&segments, 1.0, 0.8);
    }
}

#[test]
fn figures_are_reported_for_every_kind_of_reward() {
    let close = (Sampled, "<think>a</think><answer>Paris, France</answer>");
    for kind in [RewardKind::ExactMatch, RewardKind::SubExactMatch, RewardKind::F1] {
        let scored = scored(&[PROMPT, close], kind);
        assert_eq!(scored.answer.as_deref(), Some("Paris, France"));
        assert_eq!((scored.exact_match, scored.sub_exact_match), (0.0, 1.0));
        check_close(scored.f1, 2.0 / 3.0, "one of two words");
        assert!(scored.is_well_formed && !scored.is_answer_retrieved);
    }
    check_close(scored(&[PROMPT, close], RewardKind::F1).score, 2.0 / 3.0, "paid");
}

#[test]
fn a_wrong_answer_may_be_paid_and_no_answer_never_is() {
    let config = RewardRules { wrong_answer_score: 0.1, ..RewardRules::default() };
    let golden = ["Paris".to_owned()];
    let wrong = trajectory(&[PROMPT, (Sampled, "<answer>Rome</answer>")]);
    check_close(reward(&wrong, &golden, &config).score, 0.1, "wrong");
    let none = trajectory(&[PROMPT, (Sampled, "Rome")]);
    check_close(reward(&none, &golden, &config).score, 0.0, "none");
}

#[test]
fn the_reference_reading_takes_answers_from_passages() {
    let config = RewardRules { reading: RewardReading::Reference, ..RewardRules::default() };
    let searched = trajectory(&[PROMPT, SEARCH, PASSAGE]);
    check_close(
        reward(&searched, &["Paris".to_owned()], &config).score,
        1.0,
        "as the reference does",
    );
}

#[test]
fn a_gold_answer_of_which_nothing_is_left_is_paid_for_no_answer() {
    for gold in ["A", "The The", "?!", ""] {
        let golden = [gold.to_owned()];
        for answer in ["", "The", "a", "Lima", gold] {
            let said = trajectory(&[PROMPT, (Sampled, &format!("<answer>{answer}</answer>"))]);
            let texts = [SEARCH, PASSAGE, (Sampled, "<think>b</think><answer>Rome</answer>")];
            for kind in [
                RewardKind::ExactMatch,
                RewardKind::SubExactMatch,
                RewardKind::F1,
                RewardKind::Structured,
            ] {
                let config = RewardRules { kind, ..RewardRules::default() };
                let scored = reward(&said, &golden, &config);
                let measures = (scored.exact_match, scored.sub_exact_match, scored.f1);
                assert_eq!(measures, (0.0, 0.0, 0.0), "{gold:?} {answer:?}");
                assert!(!reward(&trajectory(&texts), &golden, &config).is_answer_retrieved);
            }
        }
    }
}

#[test]
fn abstaining_has_a_score_of_its_own_unless_it_is_right() {
    let verdict = FormatVerdict { is_well_formed: true, is_answer_retrieved: false };
    let config = RewardRules {
        wrong_answer_score: -0.5,
        abstentions: vec!["I don't know".to_owned()],
        abstention_score: 0.1,
        ..RewardRules::default()
    };
    let golden = ["Ada".to_owned()];
    let of = |answer: Option<&str>, golden: &[String]| {
        let reward = score(answer.map(str::to_owned), verdict, golden, &config);
        (reward.score, reward.is_abstention)
    };
    assert_eq!(of(Some("i don't KNOW."), &golden), (0.1, true));
    assert_eq!(of(Some("Bob"), &golden), (-0.5, false));
    assert_eq!(of(None, &golden), (0.0, false));
    assert_eq!(of(Some("I don't know"), &["I don't know".to_owned()]), (1.0, false));
}

#[test]
fn measures_are_added_with_their_weights() {
    let verdict = FormatVerdict { is_well_formed: false, is_answer_retrieved: false };
    let config = RewardRules {
        weights: MeasureWeights { kind: 0.5, exact_match: 2.0, sub_exact_match: 4.0, f1: 8.0 },
        ..RewardRules::default()
    };
    let of = |answer: &str| score(Some(answer.to_owned()), verdict, &["Ada".to_owned()], &config);
    assert!((of("Ada").score - 14.5).abs() < 1e-12);
    // The golden answer is within, and F1 is 2 · 0.25 · 1 / 1.25.
    assert!((of("Countess Ada of Lovelace").score - (4.0 + 8.0 * 0.4)).abs() < 1e-12);
    assert!(of("Bob").score.abs() < 1e-12);
}
