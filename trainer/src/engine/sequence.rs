//! One sequence in the engine: its tokens, how many of them are cached, and the turn it is in.

use super::blocks::BlockTable;
use super::turn::Turn;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between two turns; its cache is kept for the next.
    Idle,
    /// Has a turn that no pass has taken up.
    Waiting,
    /// In the running batch.
    Running,
}

/// A sequence known to the engine.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Its whole context, sampled tokens included.
    pub(super) tokens: Vec<u32>,
    /// How many of them are cached, and where.
    pub(super) table: BlockTable,
    pub(super) turn: Option<Turn>,
    pub(super) place: Place,
    /// Counts among those that may hold a cache.
    pub(super) seated: bool,
    /// Tokens of the first request.
    pub(super) prompt_tokens: usize,
    /// Most tokens that were cached at one time: what is computed again below it is lost work.
    pub(super) reached: usize,
}

impl Sequence {
    pub(super) fn new(prompt_tokens: usize) -> Self {
        Self {
            tokens: Vec::new(),
            table: BlockTable::default(),
            turn: None,
            place: Place::Idle,
            seated: false,
            prompt_tokens,
            reached: 0,
        }
    }

    /// Tokens that the model has yet to see before it can say the next.
    pub(super) fn unseen(&self) -> usize {
        self.tokens.len() - self.table.tokens()
    }

    /// Whether the turn has sampled a token, so that its last is the only one that was never computed.
    pub(super) fn has_sampled(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| !turn.token_ids.is_empty())
    }

    /// Whether the next pass only has to see the token that was sampled last.
    pub(super) fn is_decoding(&self) -> bool {
        self.has_sampled() && self.unseen() == 1
    }

    /// The prompt while it is being computed for the first time, else nothing.
    pub(super) fn prompt_in_progress(&self) -> Option<&[u32]> {
        let in_progress = self.place == Place::Running && self.table.tokens() < self.prompt_tokens;
        in_progress.then(|| &self.tokens[..self.prompt_tokens])
    }

    /// Whether nothing but the prompt is there, and nothing of it computed.
    pub(super) fn is_fresh(&self) -> bool {
        self.tokens.len() == self.prompt_tokens && self.table.tokens() == 0
    }
}
