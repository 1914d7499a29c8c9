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

/// The state of the splitter within a turn.
#[derive(Debug, Default)]
pub(crate) struct TagSplitter {
    voice: Voice,
    /// Text that begins with `<` and may become a tag, or an empty text.
    pending: String,
}

impl TagSplitter {
    /// Adds text and returns the stretches that are certain, in order.
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
                // Another tag begins before this one ends: the first `<` was plain text.
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

    /// Ends the turn and returns a pending incomplete tag as text.
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
        Some((last, stretch)) if *last == voice => stretch.push_str(text),
        _ => stretches.push((voice, text.to_owned())),
    }
}

/// Returns the voice after a tag of the protocol, or `None` for any other tag.
fn voice_after(tag: &str) -> Option<Voice> {
    match tag {
        "<search>" => Some(Voice::Search),
        "<answer>" => Some(Voice::Answer),
        "<think>" | "</think>" | "</search>" | "</answer>" => Some(Voice::Thought),
        _ => None,
    }
}

/// Returns `true` for tokens such as `<|im_end|>`, which are not part of the text.
fn is_special_token(tag: &str) -> bool {
    tag.starts_with("<|") && tag.ends_with("|>")
}
