//! Splits a model's text into thoughts, searches and answers while the model writes it. Tags may arrive in
//! pieces; text is returned as soon as it cannot be part of a tag.

/// The kind of a stretch of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Voice {
    #[default]
    Thought,
    Search,
    Answer,
}

/// Longest text in angle brackets that can be a tag, in bytes.
const TAG_LIMIT_BYTES: usize = 32;

/// A part of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(Voice, String),
    /// A search or an answer ended, by its closing tag or without one. A thought ends so only if it is never closed.
    Ended {
        voice: Voice,
        is_closed: bool,
    },
}

/// The state of the splitter within a turn.
#[derive(Debug, Default)]
pub(crate) struct TagSplitter {
    voice: Voice,
    /// `true` after `<think>`, until `</think>`.
    is_thinking: bool,
    /// Text that begins with `<` and may become a tag, or an empty text.
    pending: String,
}

impl TagSplitter {
    /// Begins the next turn inside a thought: the prompt has opened it.
    pub(crate) fn open_thought(&mut self) {
        self.is_thinking = true;
    }

    /// Adds text and returns the pieces that are certain, in order.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = std::mem::take(&mut self.pending) + text;
        while let Some(start) = rest.find('<') {
            add(&mut pieces, self.voice, &rest[..start]);
            let tail = &rest[start..];
            match tail[1..].find(['>', '<']).map(|end| end + 1) {
                Some(end) if tail.as_bytes()[end] == b'>' => {
                    self.tag(&tail[..=end], &mut pieces);
                    rest = tail[end + 1..].to_owned();
                }
                // Another tag begins before this one ends: the first `<` was plain text.
                Some(end) => {
                    add(&mut pieces, self.voice, &tail[..end]);
                    rest = tail[end..].to_owned();
                }
                None if tail.len() > TAG_LIMIT_BYTES => {
                    add(&mut pieces, self.voice, tail);
                    rest = String::new();
                }
                None => {
                    tail.clone_into(&mut self.pending);
                    return pieces;
                }
            }
        }
        add(&mut pieces, self.voice, &rest);
        pieces
    }

    /// Ends the turn. Returns a pending incomplete tag as text, and what was not closed.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        add(&mut pieces, self.voice, &pending);
        self.change(Voice::Thought, false, &mut pieces);
        if std::mem::take(&mut self.is_thinking) {
            pieces.push(Piece::Ended { voice: Voice::Thought, is_closed: false });
        }
        pieces
    }

    fn tag(&mut self, tag: &str, pieces: &mut Vec<Piece>) {
        match tag {
            // The same tag again is part of the text, as the reference reads it.
            "<search>" if self.voice != Voice::Search => self.change(Voice::Search, false, pieces),
            "<answer>" if self.voice != Voice::Answer => self.change(Voice::Answer, false, pieces),
            "</search>" => self.change(Voice::Thought, self.voice == Voice::Search, pieces),
            "</answer>" => self.change(Voice::Thought, self.voice == Voice::Answer, pieces),
            "<think>" | "</think>" => {
                let is_inside = self.voice != Voice::Thought;
                self.is_thinking = tag == "<think>" && (self.is_thinking || !is_inside);
                // A search or an answer goes on to its own closing tag, and has this one in its text.
                if is_inside {
                    add(pieces, self.voice, tag);
                }
            }
            _ if is_special_token(tag) => {}
            _ => add(pieces, self.voice, tag),
        }
    }

    /// Changes the voice; a search or an answer ends.
    fn change(&mut self, voice: Voice, is_closed: bool, pieces: &mut Vec<Piece>) {
        let ended = std::mem::replace(&mut self.voice, voice);
        if ended != Voice::Thought {
            pieces.push(Piece::Ended { voice: ended, is_closed });
        }
    }
}

fn add(pieces: &mut Vec<Piece>, voice: Voice, text: &str) {
    if text.is_empty() {
        return;
    }
    match pieces.last_mut() {
        Some(Piece::Text(last, stretch)) if *last == voice => stretch.push_str(text),
        _ => pieces.push(Piece::Text(voice, text.to_owned())),
    }
}

/// Returns `true` for tokens such as `<|im_end|>`, which are not part of the text.
fn is_special_token(tag: &str) -> bool {
    tag.starts_with("<|") && tag.ends_with("|>")
}
