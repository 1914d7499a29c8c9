//! One sequence in the engine: its tokens, their cache, and the turn that it is in.

use super::blocks::BlockTable;
use super::turn::Turn;

/// The scheduling state of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceState {
    /// Between two turns; the cache is kept for the next one.
    Idle,
    /// Has a turn that is in no pass yet.
    Waiting,
    /// In the running batch.
    Running,
}

/// A sequence known to the engine.
#[derive(Debug)]
pub(super) struct Sequence {
    /// The whole context, including sampled tokens.
    pub(super) tokens: Vec<u32>,
    /// The blocks that cache the first of these tokens.
    pub(super) table: BlockTable,
    /// `Some` while the sequence is waiting or running.
    pub(super) turn: Option<Turn>,
    pub(super) state: SequenceState,
    /// `true` once the sequence counts among the `max_sequences` that may hold a cache.
    pub(super) seated: bool,
    /// Tokens of the first request.
    pub(super) prompt_tokens: usize,
    /// The most tokens that were cached at one time. Computing a token below this count again is lost
    /// work.
    pub(super) reached: usize,
}

impl Sequence {
    pub(super) fn new(prompt_tokens: usize) -> Self {
        Self {
            tokens: Vec::new(),
            table: BlockTable::default(),
            turn: None,
            state: SequenceState::Idle,
            seated: false,
            prompt_tokens,
            reached: 0,
        }
    }

    /// Returns the number of tokens that the model must see before it can predict the next one.
    pub(super) fn unseen(&self) -> usize {
        self.tokens.len() - self.table.tokens()
    }

    /// Returns `true` if the turn has sampled a token. Its last token is then the only one that was
    /// never computed.
    pub(super) fn has_sampled(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| !turn.token_ids.is_empty())
    }

    /// Returns `true` if the next pass needs only the token that was sampled last.
    pub(super) fn is_decoding(&self) -> bool {
        self.has_sampled() && self.unseen() == 1
    }

    /// Returns `true` if any block belongs to the sequence.
    pub(super) fn holds_blocks(&self) -> bool {
        !self.table.blocks().is_empty()
    }

    /// Returns the prompt while it is being computed for the first time.
    pub(super) fn prompt_in_progress(&self) -> Option<&[u32]> {
        let in_progress =
            self.state == SequenceState::Running && self.table.tokens() < self.prompt_tokens;
        in_progress.then(|| &self.tokens[..self.prompt_tokens])
    }

    /// Returns `true` if the context is the prompt alone and none of it is cached.
    pub(super) fn is_fresh(&self) -> bool {
        self.tokens.len() == self.prompt_tokens && self.table.tokens() == 0
    }
}
