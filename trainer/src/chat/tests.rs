use std::cell::RefCell;
use std::io::Cursor;

use shared::contract::client::Passage;

use super::tags::{Piece, TagSplitter, Voice};
use super::*;
use crate::engine::{
    Engine, EngineError, GenerateRequest, Generation, Sampling, SamplingKey, SequenceId,
    StopReason, StopRule,
};
use crate::rollout::parse::{TurnAction, parse_action};
use crate::rollout::{
    EndReason, RolloutEvent, RolloutObserver, SearchRecord, Segment, SegmentKind, Trajectory,
};
use crate::token::Tokenizer;

fn segment(kind: SegmentKind, text: &str) -> Segment {
    Segment {
        kind,
        token_ids: vec![1; text.len() / 4],
        log_probs: Vec::new(),
        policy_version: 0,
        text: text.to_owned(),
    }
}

fn trajectory(end: EndReason, segments: Vec<Segment>) -> Trajectory {
    Trajectory {
        prompt: 0,
        sample: 0,
        example_id: "q1".to_owned(),
        segments,
        end,
        turns: 2,
        valid_actions: 2,
        valid_searches: 1,
        invalid_actions: 0,
        length_stops: 0,
        shortened_observations: 0,
        searches: vec![SearchRecord { query: "Ada".to_owned(), passage_ids: Vec::new() }],
    }
}

fn passages() -> Vec<Passage> {
    vec![
        Passage::new("a", "\"Ada Lovelace\"\nMathematician, born in London in 1815."),
        Passage::new("b", format!("Long\n{}", "word ".repeat(100))),
    ]
}

/// Returns the output for the events of one episode. Each sampled turn is first streamed in pieces of
/// `piece` characters, or not streamed if that is 0.
fn shown(paint: Paint, piece: usize) -> String {
    let conversation = RefCell::new(Conversation::new(Vec::new(), paint));
    let mut observer = ChatObserver(&conversation);
    let turns = [
        segment(SegmentKind::Prompt, "Where was Ada born?"),
        segment(
            SegmentKind::Sampled,
            "<think>I must find her.\n\nIt is 3 < 4.</think>\n<search> Ada Lovelace </search>",
        ),
        segment(SegmentKind::Observation, "<information>…</information>"),
        segment(SegmentKind::Injected, "\nMy previous action is invalid.\n"),
        segment(SegmentKind::Sampled, "So.\n<answer>London</answer><|im_end|>"),
    ];
    let trajectory = trajectory(EndReason::Answered, turns.to_vec());
    let passages = passages();
    for (index, segment) in turns.iter().enumerate() {
        if piece > 0 && segment.kind == SegmentKind::Sampled {
            let characters: Vec<char> = segment.text.chars().collect();
            for chunk in characters.chunks(piece) {
                conversation.borrow_mut().sampled(&chunk.iter().collect::<String>());
            }
        }
        observer.observe(RolloutEvent::Appended { job: 0, segment });
        if index == 1 {
            observer.observe(RolloutEvent::Searching { job: 0, query: "Ada Lovelace" });
            observer.observe(RolloutEvent::Found { job: 0, passages: &passages });
        }
    }
    observer.observe(RolloutEvent::Finished { job: 0, trajectory: &trajectory, done: 1, total: 1 });
    let mut conversation = conversation.borrow_mut();
    assert!(conversation.take_error().is_none());
    String::from_utf8(conversation.out().clone()).unwrap()
}

#[test]
fn an_episode_reads_as_a_conversation() {
    let text = shown(Paint::Plain, 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "thinks    I must find her.",
            "          It is 3 < 4.",
            "searches  Ada Lovelace",
            "finds     1. Ada Lovelace  Mathematician, born in London in 1815.",
        ]
    );
    assert!(lines[4].starts_with("          2. Long  word word"), "{text}");
    assert!(lines[4].ends_with("word …") && lines[4].chars().count() < 190, "{text}");
    assert_eq!(
        lines[5..9],
        [
            "is told   My previous action is invalid.",
            "thinks    So.",
            "answers   London",
            "          1 search, 28 tokens written",
        ]
    );
    assert!(!text.contains('\x1b') && !text.contains("<|"), "{text}");
}

#[test]
fn streaming_in_any_pieces_shows_the_same() {
    let whole = shown(Paint::Plain, 0);
    for piece in [1, 2, 3, 5, 7, 1000] {
        assert_eq!(shown(Paint::Plain, piece), whole, "pieces of {piece}");
    }
}

#[test]
fn colour_adds_nothing_but_escapes() {
    let coloured = shown(Paint::Colour, 0);
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, shown(Paint::Plain, 0));
    assert!(coloured.contains("\x1b[1;32mLondon\x1b[0m"), "{coloured}");
}

#[test]
fn an_episode_without_an_answer_says_why() {
    for (end, reason) in [
        (EndReason::TurnLimit, "out of turns"),
        (EndReason::ContextLimit, "the context is full"),
        (EndReason::SearchFailed, "the search failed"),
    ] {
        let mut conversation = Conversation::new(Vec::new(), Paint::Plain);
        conversation.search_failed("connection refused");
        conversation.finished(&trajectory(end, Vec::new()));
        let text = String::from_utf8(conversation.out().clone()).unwrap();
        assert!(text.contains(&format!("stops     without an answer: {reason}\n")), "{text}");
        assert!(text.starts_with("error     search failed: connection refused\n"), "{text}");
    }
}

#[test]
fn nothing_is_written_after_a_broken_pipe() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut conversation = Conversation::new(Broken, Paint::Plain);
    conversation.turn_ended("thought");
    conversation.injected("more");
    let error = conversation.take_error().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

fn text(voice: Voice, text: &str) -> Piece {
    Piece::Text(voice, text.to_owned())
}

fn ended(voice: Voice, is_closed: bool) -> Piece {
    Piece::Ended { voice, is_closed }
}

#[test]
fn tags_in_pieces_are_distinguished_from_text_that_resembles_tags() {
    let mut tags = TagSplitter::default();
    assert_eq!(tags.push("a <sea"), [text(Voice::Thought, "a ")]);
    assert_eq!(tags.push("rch>b"), [text(Voice::Search, "b")]);
    assert_eq!(tags.push("</search"), []);
    assert_eq!(
        tags.push("> x <b>y</b> 1 < 2"),
        [ended(Voice::Search, true), text(Voice::Thought, " x <b>y</b> 1 ")]
    );
    assert_eq!(tags.push("<<answer>z"), [text(Voice::Thought, "< 2<"), text(Voice::Answer, "z")]);
    assert_eq!(tags.push("<answer>"), [text(Voice::Answer, "<answer>")]);
    assert_eq!(tags.push("</ans"), []);
    assert_eq!(tags.finish(), [text(Voice::Answer, "</ans"), ended(Voice::Answer, false)]);
    assert_eq!(
        tags.push("<search>q<answer>"),
        [text(Voice::Search, "q"), ended(Voice::Search, false)]
    );
    assert_eq!(tags.push("<think>"), [text(Voice::Answer, "<think>")]);
    assert_eq!(tags.finish(), [ended(Voice::Answer, false)]);
    assert_eq!(tags.push("<think>"), []);
    assert_eq!(tags.finish(), [ended(Voice::Thought, false)]);
    tags.open_thought();
    assert_eq!(tags.push("so</think>"), [text(Voice::Thought, "so")]);
    assert_eq!(tags.finish(), []);
    let long = format!("<{}", "x".repeat(40));
    assert_eq!(tags.push(&long), [text(Voice::Thought, &long)]);
}

/// Returns what is shown for one turn after a prompt, with its search if that is sent.
fn shown_turn(prompt: &str, turn: &str) -> String {
    let conversation = RefCell::new(Conversation::new(Vec::new(), Paint::Plain));
    let mut observer = ChatObserver(&conversation);
    for segment in [segment(SegmentKind::Prompt, prompt), segment(SegmentKind::Sampled, turn)] {
        observer.observe(RolloutEvent::Appended { job: 0, segment: &segment });
    }
    if let TurnAction::Search(query) = parse_action(turn) {
        observer.observe(RolloutEvent::Searching { job: 0, query: &query });
    }
    String::from_utf8(conversation.borrow_mut().out().clone()).unwrap()
}

#[test]
fn a_search_that_is_not_sent_is_not_shown_as_one() {
    let mut conversation = Conversation::new(Vec::new(), Paint::Plain);
    conversation.turn_ended("So: <search> capital of Peru </search>");
    conversation.finished(&trajectory(EndReason::TurnLimit, Vec::new()));
    let text = String::from_utf8(conversation.out().clone()).unwrap();
    let expected = "thinks    So:\n\
                    unsent    <search> capital of Peru: the episode ended, so nothing was searched\n\
                    stops     without an answer: out of turns\n";
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn what_is_not_closed_or_empty_is_said() {
    let unclosed_search =
        "unclosed  <search> capital of Peru: </search> is missing, so nothing was searched\n";
    let unclosed_answer =
        "unclosed  <answer> Lima: </answer> is missing, so it does not count as an answer\n";
    let opened = "<|im_start|>assistant\n<think>\n";
    for (prompt, turn, expected) in [
        ("Q", "<search> capital of Peru", unclosed_search.to_owned()),
        ("Q", "<search> capital of Peru <|im_end|>", unclosed_search.to_owned()),
        ("Q", "<answer> Lima", unclosed_answer.to_owned()),
        ("Q", "<answer>", unclosed_answer.replace(" Lima", "")),
        (
            "Q",
            "<search> capital of Peru <answer>Lima</answer>",
            format!("{unclosed_search}answers   Lima\n"),
        ),
        ("Q", "<answer></answer>", "answers   (empty)\n".to_owned()),
        ("Q", "<answer> \n </answer>", "answers   (empty)\n".to_owned()),
        ("Q", "<search></search>", "searches  (empty)\n".to_owned()),
        ("Q", "<think>hm", "thinks    hm\nunclosed  <think>: </think> is missing\n".to_owned()),
        ("Q", "hm</think><answer>x</answer>", "thinks    hm\nanswers   x\n".to_owned()),
        (
            opened,
            "hm</think>\n<answer> Lima </answer>",
            "thinks    hm\nanswers   Lima\n".to_owned(),
        ),
        // The whole content counts as the answer, so that all of it is shown.
        ("Q", "<answer>ok</think> Lima</answer>", "answers   ok</think> Lima\n".to_owned()),
        (
            opened,
            "I <search> x</think><answer>y</answer>",
            "thinks    I\nunclosed  <search> x</think>: </search> is missing, so nothing was searched\n\
             answers   y\n"
                .to_owned(),
        ),
        (opened, "hm", "thinks    hm\nunclosed  <think>: </think> is missing\n".to_owned()),
    ] {
        assert_eq!(shown_turn(prompt, turn), expected, "{prompt:?} {turn:?}");
    }
}

#[test]
fn questions_are_read_until_the_end() {
    let mut input = Cursor::new("\n  Who?  \nWhat?".as_bytes().to_vec());
    let mut out = Vec::new();
    let mut next = || read_question(&mut input, &mut out, "? ").unwrap();
    assert_eq!(next(), Input::Question("Who?".to_owned()));
    assert_eq!(next(), Input::Question("What?".to_owned()));
    assert_eq!(next(), Input::End);
    assert_eq!(String::from_utf8(out).unwrap(), "? ? ? ? ");
}

#[test]
fn bad_lines_are_refused_and_the_next_one_is_read() {
    let mut bytes = b"\xff\xfe\n".to_vec();
    bytes.extend(std::iter::repeat_n(b'a', 3 * QUESTION_LIMIT_BYTES as usize));
    bytes.extend_from_slice(b"\nWho?\n");
    let mut input = Cursor::new(bytes);
    let mut next = || read_question(&mut input, &mut Vec::new(), "").unwrap();
    assert_eq!(next(), Input::Refused("the question is not valid UTF-8"));
    assert_eq!(next(), Input::Refused("the question is longer than 64 KiB"));
    assert_eq!(next(), Input::Question("Who?".to_owned()));
    assert_eq!(next(), Input::End);
}

/// An engine that writes one text, one character per step.
#[derive(Debug, Default)]
struct Speaker {
    rest: Vec<char>,
    sampled: Vec<u32>,
}

impl Engine for Speaker {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        self.rest = request.stop.stop_at[0].chars().rev().collect();
        self.sampled.clear();
        Ok(())
    }

    fn step(&mut self, _: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        self.sampled.extend(self.rest.pop().map(u32::from));
        let ended = Generation {
            sequence: 7,
            token_ids: self.sampled.clone(),
            log_probs: vec![0.0; self.sampled.len()],
            stop: StopReason::EndOfSequence,
            policy_version: 0,
        };
        Ok(if self.rest.is_empty() { vec![ended] } else { Vec::new() })
    }

    fn partial_tokens(&self, _: SequenceId) -> &[u32] {
        &self.sampled
    }

    fn release(&mut self, _: SequenceId) {}

    fn is_idle(&self) -> bool {
        self.rest.is_empty()
    }

    fn max_context_tokens(&self) -> usize {
        100
    }
}

/// Creates a request; its stop string is the text that [`Speaker`] writes.
fn request(says: &str) -> GenerateRequest {
    GenerateRequest {
        sequence: 7,
        append: vec![1],
        max_new_tokens: 100,
        stop: StopRule { stop_at: vec![says.to_owned()], cut_after: Vec::new() },
        sampling: Sampling { temperature: 0.0, top_p: 1.0 },
        key: SamplingKey { seed: 0, step: 0, prompt: 0, sample: 0 },
    }
}

#[test]
fn text_is_shown_while_it_is_written() {
    let conversation = RefCell::new(Conversation::new(Vec::new(), Paint::Plain));
    let mut speaker = Speaker::default();
    let mut engine = StreamingEngine::new(&mut speaker, &conversation);
    let tokenizer = Tokenizer::characters();
    for (says, shown, whole) in [
        ("So it is: <answer>Ada</answer>", "thinks    So it is:", "\nanswers   Ada\n"),
        ("It is Paris.<answer>Paris</answer>", "thinks    It is Paris.", "\nanswers   Paris\n"),
    ] {
        conversation.borrow_mut().out().clear();
        engine.submit(request(says)).unwrap();
        let mut lengths = Vec::new();
        while engine.step(&tokenizer).unwrap().is_empty() {
            lengths.push(conversation.borrow_mut().out().len());
        }
        let text = String::from_utf8(conversation.borrow_mut().out().clone()).unwrap();
        assert_eq!(text, format!("{shown}{whole}"));
        lengths.dedup();
        // The label, then letter by letter.
        assert!(lengths.len() > 5, "{lengths:?}");
        conversation.borrow_mut().turn_ended(says);
        let text = String::from_utf8(conversation.borrow_mut().out().clone()).unwrap();
        assert_eq!(text, format!("{shown}{whole}"), "nothing is shown twice");
    }
}
