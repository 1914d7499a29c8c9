//! Shows one episode on a terminal: line by line, or word by word if the engine reports partial turns.

use std::cell::RefCell;
use std::io::{self, Write};

use shared::contract::client::Passage;

use super::paint::Paint;
use super::tags::{Piece, TagSplitter, Voice};
use crate::rollout::parse::opens_thought;
use crate::rollout::{EndReason, RolloutEvent, RolloutObserver, SegmentKind, Trajectory};

/// Width of the column of labels.
const LABEL_WIDTH: usize = 10;
/// Most characters of a passage that are shown.
const PASSAGE_CHARACTERS: usize = 160;

/// The view of a conversation. Writing can fail, for example on a closed pipe. The view keeps the first
/// error and writes nothing after it.
#[derive(Debug)]
pub struct Conversation<W> {
    out: W,
    paint: Paint,
    tags: TagSplitter,
    /// The voice of the current line; `None` at the start of a line.
    open: Option<Voice>,
    /// White space that is written only if more text of the same voice follows.
    held_space: String,
    /// The part of the current turn that has been shown.
    streamed: String,
    /// The search or answer that is being written. It is shown when its tag is closed: without the tag nothing is
    /// searched or answered.
    action: String,
    /// A whole search that has not been sent yet.
    unsent: Option<String>,
    error: Option<io::Error>,
}

impl<W: Write> Conversation<W> {
    pub fn new(out: W, paint: Paint) -> Self {
        Self {
            out,
            paint,
            tags: TagSplitter::default(),
            open: None,
            held_space: String::new(),
            streamed: String::new(),
            action: String::new(),
            unsent: None,
            error: None,
        }
    }

    /// Takes the error that stopped the view, if there is one.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Returns the writer, for text between two episodes.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Takes note of the prompt: a chat template may open the first thought itself.
    pub fn began(&mut self, prompt: &str) {
        if opens_thought(prompt) {
            self.tags.open_thought();
        }
    }

    /// Shows more text of the current turn.
    pub fn sampled(&mut self, text: &str) {
        self.streamed.push_str(text);
        let pieces = self.tags.push(text);
        self.show_all(pieces);
    }

    /// Ends the turn, whose whole text is `text`, and shows the part that has not been shown yet.
    pub fn turn_ended(&mut self, text: &str) {
        let streamed = std::mem::take(&mut self.streamed);
        // A turn that was cut at its end may be shorter than the text already shown.
        if let Some(rest) = text.strip_prefix(streamed.as_str()) {
            let pieces = self.tags.push(rest);
            self.show_all(pieces);
        }
        let pieces = self.tags.finish();
        self.show_all(pieces);
        self.end_line();
    }

    /// Shows a search that is sent.
    pub fn searching(&mut self, query: &str) {
        self.unsent = None;
        self.whole(Voice::Search, query.trim());
    }

    /// Shows the passages of a search, shortened.
    pub fn found(&mut self, passages: &[Passage]) {
        if passages.is_empty() {
            self.line("finds", &self.paint.warning("nothing"));
        }
        for (index, passage) in passages.iter().enumerate() {
            let label = if index == 0 { "finds" } else { "" };
            let (title, text) = passage.title_and_text();
            let title = self.paint.bold(title.trim().trim_matches('"'));
            let text = self.paint.dim(shortened(text, PASSAGE_CHARACTERS));
            self.line(label, &format!("{}. {title}  {text}", index + 1));
        }
    }

    /// Shows a message of the loop to the model, such as the one after an invalid action.
    pub fn injected(&mut self, text: &str) {
        let text = self.paint.dim(shortened(text, PASSAGE_CHARACTERS));
        self.line("is told", &text);
    }

    pub fn search_failed(&mut self, reason: &str) {
        let text = self.paint.warning(reason);
        self.line("error", &format!("search failed: {text}"));
    }

    /// Shows a summary of the episode.
    pub fn finished(&mut self, trajectory: &Trajectory) {
        if let Some(query) = self.unsent.take() {
            let reason = self.paint.warning("the episode ended, so nothing was searched");
            let query = shortened(&query, PASSAGE_CHARACTERS);
            self.line("unsent", &format!("<search> {query}: {reason}"));
        }
        match trajectory.end {
            EndReason::Answered => {}
            EndReason::TurnLimit => self.no_answer("out of turns"),
            EndReason::ContextLimit => self.no_answer("the context is full"),
            EndReason::SearchFailed => self.no_answer("the search failed"),
        }
        let searches = counted(trajectory.searches.len(), "search", "searches");
        let tokens = counted(trajectory.sampled_tokens(), "token", "tokens");
        let summary = self.paint.dim(format!("{searches}, {tokens} written"));
        self.line("", &summary);
        self.write("\n");
    }

    fn no_answer(&mut self, reason: &str) {
        let reason = self.paint.warning(reason);
        self.line("stops", &format!("without an answer: {reason}"));
    }

    fn show_all(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            match piece {
                Piece::Text(Voice::Thought, text) => self.show(Voice::Thought, &text),
                Piece::Text(_, text) => self.action.push_str(&text),
                Piece::Ended { voice, is_closed } => self.ended(voice, is_closed),
            }
        }
        let flushed = self.out.flush();
        self.keep(flushed);
    }

    /// Shows a search or an answer that has ended, or says that it, or a thought, was not closed.
    fn ended(&mut self, voice: Voice, is_closed: bool) {
        let written = std::mem::take(&mut self.action);
        let text = written.trim();
        if !is_closed {
            let (tag, consequence) = match voice {
                Voice::Thought => ("think", ""),
                Voice::Search => ("search", ", so nothing was searched"),
                Voice::Answer => ("answer", ", so it does not count as an answer"),
            };
            let missing = self.paint.warning(format!("</{tag}> is missing{consequence}"));
            let text = shortened(text, PASSAGE_CHARACTERS);
            let gap = if text.is_empty() { "" } else { " " };
            self.line("unclosed", &format!("<{tag}>{gap}{text}: {missing}"));
        } else if voice == Voice::Search {
            self.unsent = Some(text.to_owned());
        } else {
            self.whole(voice, text);
        }
    }

    /// Shows a whole search or answer.
    fn whole(&mut self, voice: Voice, text: &str) {
        if text.is_empty() {
            self.line(label(voice), &self.paint.warning("(empty)"));
            return;
        }
        self.show(voice, text);
        self.end_line();
    }

    fn show(&mut self, voice: Voice, text: &str) {
        let mut text = text;
        if self.open.is_none_or(|open| open != voice) {
            text = text.trim_start();
            if text.is_empty() {
                return;
            }
            self.end_line();
            let label = self.label(label(voice));
            self.write(&label);
            self.open = Some(voice);
        }
        self.show_inside(voice, text);
    }

    /// Writes text into the current line; trailing white space waits for more text.
    fn show_inside(&mut self, voice: Voice, text: &str) {
        let whole = std::mem::take(&mut self.held_space) + text;
        let visible = whole.trim_end();
        whole[visible.len()..].clone_into(&mut self.held_space);
        if visible.is_empty() {
            return;
        }
        // Drop empty lines inside the text: they would break up the conversation.
        let lines: Vec<&str> = visible.split('\n').map(str::trim_end).collect();
        let mut shown = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            if index == 0 || !line.is_empty() {
                shown.push(if line.is_empty() { String::new() } else { self.painted(voice, line) });
            }
        }
        let indent = format!("\n{:LABEL_WIDTH$}", "");
        self.write(&shown.join(&indent));
    }

    fn painted(&self, voice: Voice, text: &str) -> String {
        match voice {
            Voice::Thought => text.to_owned(),
            Voice::Search => self.paint.search(text),
            Voice::Answer => self.paint.answer(text),
        }
    }

    fn label(&self, label: &str) -> String {
        self.paint.dim(format!("{label:<LABEL_WIDTH$}"))
    }

    /// Writes one whole line with its label.
    fn line(&mut self, label: &str, text: &str) {
        self.end_line();
        let label = self.label(label);
        self.write(&format!("{label}{text}\n"));
        let flushed = self.out.flush();
        self.keep(flushed);
    }

    fn end_line(&mut self) {
        self.held_space.clear();
        if self.open.take().is_some() {
            self.write("\n");
        }
    }

    fn write(&mut self, text: &str) {
        if self.error.is_none() {
            let written = self.out.write_all(text.as_bytes());
            self.keep(written);
        }
    }

    /// Keeps the first error.
    fn keep(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

/// Returns the label of a voice.
fn label(voice: Voice) -> &'static str {
    match voice {
        Voice::Thought => "thinks",
        Voice::Search => "searches",
        Voice::Answer => "answers",
    }
}

/// Shows the events of a rollout of one episode. The conversation is shared with
/// [`super::StreamingEngine`], which shows each turn while it is written.
#[derive(Debug)]
pub struct ChatObserver<'a, W>(pub &'a RefCell<Conversation<W>>);

impl<W: Write> RolloutObserver for ChatObserver<'_, W> {
    fn observe(&mut self, event: RolloutEvent<'_>) {
        let mut conversation = self.0.borrow_mut();
        match event {
            RolloutEvent::Appended { segment, .. } => match segment.kind {
                SegmentKind::Sampled => conversation.turn_ended(&segment.text),
                SegmentKind::Injected => conversation.injected(&segment.text),
                // The user typed the question.
                SegmentKind::Prompt => conversation.began(&segment.text),
                // `Found` has shown the passages.
                SegmentKind::Observation => {}
            },
            RolloutEvent::Searching { query, .. } => conversation.searching(query),
            RolloutEvent::Sampling { .. }
            | RolloutEvent::Stepped { .. }
            | RolloutEvent::Waited { .. } => {}
            RolloutEvent::Found { passages, .. } => conversation.found(passages),
            RolloutEvent::SearchFailed { reason, .. } => conversation.search_failed(reason),
            RolloutEvent::Finished { trajectory, .. } => conversation.finished(trajectory),
        }
    }
}

/// Returns the text as one line of at most `limit` characters. Cuts at the end of a word if one is near.
fn shortened(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    let cut: String = line.chars().take(limit).collect();
    let end = cut.rfind(' ').filter(|end| *end > cut.len() / 2).unwrap_or(cut.len());
    format!("{} …", cut[..end].trim_end())
}

fn counted(count: usize, singular: &str, plural: &str) -> String {
    format!("{count} {}", if count == 1 { singular } else { plural })
}
