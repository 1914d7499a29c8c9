//! The trajectories that a checkpoint keeps because no step has learned from them yet: groups that a step did not wait
//! for, and rollouts that were played ahead. A resumed run cannot play them again: the weights that sampled them are gone.

use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::questions::{Position, UnfinishedGroup};
use crate::data::Example;
use crate::run::rollouts::{Rollouts, SavedRollout};

/// Name of the file in the folder of the state; absent if nothing is in flight.
pub(super) const FILE: &str = "in_flight.json.zst";

/// Trajectories between two steps that no step has learned from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct InFlight {
    /// Position of the next question after those of `unfinished`.
    next_question: u64,
    unfinished: Vec<UnfinishedGroup>,
    ahead: Vec<SavedRollout>,
}

impl InFlight {
    /// Returns what is in flight at `position`; waits for rollouts that were ordered.
    ///
    /// # Errors
    /// A rollout that failed.
    pub(super) fn of(position: &Position, rollouts: &mut Rollouts) -> anyhow::Result<Self> {
        let ahead = match rollouts {
            Rollouts::Ahead(ahead) => ahead.in_flight(position.step)?,
            Rollouts::Between(_) => Vec::new(),
        };
        let (next_question, unfinished) = (position.next_question, position.unfinished.clone());
        Ok(Self { next_question, unfinished, ahead })
    }

    /// Returns the file's content; `None` if nothing is in flight.
    ///
    /// # Errors
    /// Memory for the compression that cannot be had.
    pub(super) fn encode(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if self.unfinished.is_empty() && self.ahead.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_vec(self)?;
        Ok(Some(zstd::encode_all(text.as_slice(), zstd::DEFAULT_COMPRESSION_LEVEL)?))
    }

    /// Reads the file's content.
    ///
    /// # Errors
    /// A content that [`Self::encode`] has not written.
    pub(super) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        let text = zstd::decode_all(bytes).map_err(serde_json::Error::custom)?;
        serde_json::from_slice(&text)
    }

    /// Puts everything back into flight. If the questions were chosen differently since (`data.max_train_questions`),
    /// the unfinished groups are left out and asked again; rollouts that were played for another setting of
    /// `rollout.max_staleness` are left out as well.
    pub(super) fn restore(
        self,
        examples: &[Example],
        position: &mut Position,
        rollouts: &mut Rollouts,
    ) {
        let fits = self.unfinished.iter().all(|group| group.belongs_to(examples));
        if fits && !self.unfinished.is_empty() {
            position.next_question = self.next_question;
            position.unfinished = self.unfinished;
        }
        let first = position.step + 1;
        let in_order = self.ahead.iter().zip(first..).all(|(saved, step)| saved.step == step);
        if let (Rollouts::Ahead(ahead), true) = (rollouts, in_order) {
            ahead.restore(self.ahead);
        }
    }
}
