//! A conversation in the terminal: reads questions and shows the model's thoughts, searches, passages and
//! answers as they arrive. Observes a rollout; runs neither a model nor a search itself.

mod conversation;
mod paint;
mod stream;
mod tags;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Read, Write};

pub use conversation::{ChatObserver, Conversation};
pub use paint::Paint;
pub use stream::StreamingEngine;
pub(crate) use tags::{Piece, TagSplitter, Voice};

/// Longest question, in bytes. A longer line is refused as a whole.
pub const QUESTION_LIMIT_BYTES: u64 = 64 * 1024;

/// One input of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Question(String),
    /// A line that cannot be used, with the reason.
    Refused(&'static str),
    /// The end of the input: Ctrl-D, or the end of a piped file.
    End,
}

/// Shows `prompt` and reads the next question, skipping empty lines.
pub fn read_question(
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    prompt: &str,
) -> io::Result<Input> {
    loop {
        out.write_all(prompt.as_bytes())?;
        out.flush()?;
        let mut line = Vec::new();
        let read = input.take(QUESTION_LIMIT_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(Input::End);
        }
        if read as u64 == QUESTION_LIMIT_BYTES && !line.ends_with(b"\n") {
            skip_line(input)?;
            return Ok(Input::Refused("the question is longer than 64 KiB"));
        }
        match std::str::from_utf8(&line) {
            Err(_) => return Ok(Input::Refused("the question is not valid UTF-8")),
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => return Ok(Input::Question(text.trim().to_owned())),
        }
    }
}

/// Skips the rest of the line without storing it.
fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}
