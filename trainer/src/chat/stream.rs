//! Shows a turn while the model writes it: wraps an engine and, after each step, passes the new text of its
//! sequence to the conversation.

use std::cell::RefCell;
use std::io::Write;

use super::conversation::Conversation;
use crate::engine::{Engine, EngineError, GenerateRequest, Generation, SequenceId};
use crate::token::{TextStream, Tokenizer};

/// An engine that reports to a conversation. Meant for one sequence at a time.
#[derive(Debug)]
pub struct StreamingEngine<'a, E, W> {
    inner: &'a mut E,
    conversation: &'a RefCell<Conversation<W>>,
    /// The running sequence and its text so far.
    current: Option<(SequenceId, TextStream)>,
}

impl<'a, E: Engine, W: Write> StreamingEngine<'a, E, W> {
    pub fn new(inner: &'a mut E, conversation: &'a RefCell<Conversation<W>>) -> Self {
        Self { inner, conversation, current: None }
    }
}

impl<E: Engine, W: Write> Engine for StreamingEngine<'_, E, W> {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        let sequence = request.sequence;
        self.inner.submit(request)?;
        self.current = Some((sequence, TextStream::new()));
        Ok(())
    }

    fn step(&mut self, tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        let ended = self.inner.step(tokenizer)?;
        if let Some((sequence, text)) = &mut self.current {
            let tokens = self.inner.partial_tokens(*sequence);
            let known = text.ids().len();
            for &token in tokens.iter().skip(known) {
                let new = text.push(tokenizer, token)?;
                self.conversation.borrow_mut().sampled(new);
            }
            // The rest of an ended turn is shown when it is appended to the episode.
            if ended.iter().any(|generation| generation.sequence == *sequence) {
                self.current = None;
            }
        }
        Ok(ended)
    }

    fn release(&mut self, sequence: SequenceId) {
        self.inner.release(sequence);
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    fn max_context_tokens(&self) -> usize {
        self.inner.max_context_tokens()
    }
}
