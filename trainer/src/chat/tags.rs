//! Splits a model's text into thoughts, searches and answers while it is still being written.
//! Tags may arrive in pieces; text is passed on as soon as it cannot be part of a tag any more.

/// What a stretch of text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Voice {
    #[default]
    Thought,
    Search,
    Answer,
}

/// Longest thing in angle brackets that is looked at as a tag, in bytes.
const TAG_LIMIT_BYTES: usize = 32;

/// Text on its way through the splitter.
#[derive(Debug, Default)]
pub(crate) struct TagSplitter {
    voice: Voice,
    /// Begins with `<` and may become a tag; empty otherwise.
    pending: String,
}

impl TagSplitter {
    /// Takes more text; returns the stretches that are certain, in order.
    pub(crate) fn push(&mut self, text: &str) -> Vec<(Voice, String)> {
        let mut stretches = Vec::new();
        let mut rest = std::mem::take(&mut self.pending) + text;
        while let Some(start) = rest.find('<') {
            add(&mut stretches, self.voice, &rest[..start]);
            let tail = &rest[start..];
            match tail[1..].find(['>', '<']).map(|end| end + 1) {
                Some(end) if tail.as_bytes()[end] == b'>' => {
                    let tag = &tail[..=end];
                    match voice_after(tag) {
                        Some(voice) => self.voice = voice,
                        None if is_special_token(tag) => {}
                        None => add(&mut stretches, self.voice, tag),
                    }
                    rest = tail[end + 1..].to_owned();
                }
                // Another tag begins before this one ends: the first `<` was just text.
                Some(end) => {
                    add(&mut stretches, self.voice, &tail[..end]);
                    rest = tail[end..].to_owned();
                }
                None if tail.len() > TAG_LIMIT_BYTES => {
                    add(&mut stretches, self.voice, tail);
                    rest = String::new();
                }
                None => {
                    tail.clone_into(&mut self.pending);
                    return stretches;
                }
            }
        }
        add(&mut stretches, self.voice, &rest);
        stretches
    }

    /// Ends the turn: what could have become a tag is text after all.
    pub(crate) fn finish(&mut self) -> Vec<(Voice, String)> {
        let mut stretches = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        add(&mut stretches, self.voice, &pending);
        self.voice = Voice::Thought;
        stretches
    }
}

fn add(stretches: &mut Vec<(Voice, String)>, voice: Voice, text: &str) {
    if text.is_empty() {
        return;
    }
    match stretches.last_mut() {
        Some((last, sofar)) if *last == voice => sofar.push_str(text),
        _ => stretches.push((voice, text.to_owned())),
    }
}

/// The voice that follows a tag of the protocol; `None` for any other tag.
fn voice_after(tag: &str) -> Option<Voice> {
    match tag {
        "<search>" => Some(Voice::Search),
        "<answer>" => Some(Voice::Answer),
        "<think>" | "</think>" | "</search>" | "</answer>" => Some(Voice::Thought),
        _ => None,
    }
}

/// `<|im_end|>` and its like are no part of what is said.
fn is_special_token(tag: &str) -> bool {
    tag.starts_with("<|") && tag.ends_with("|>")
}
