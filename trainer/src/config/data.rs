//! The section of questions and prompts.

use std::path::PathBuf;

use super::choice::{PromptSource, TemplateChoice};
use super::section::section;
use super::value::Range;

section! {
    /// Questions, prompts, and the passages of the random control.
    pub struct DataConfig in "data" {
        /// File with the training questions, or folder with its parts: JSON Lines, a JSON list, a table or parquet, each
        /// plain or compressed. Several files are separated by commas.
        train: PathBuf = PathBuf::new();
        /// File or folder with the held-out questions, likewise.
        test: PathBuf = PathBuf::new();
        /// Weights of the files in `data.train`, separated by commas, such as `0.7, 0.3`: the shares of the questions that
        /// each file gives. Empty: every question of all files is asked equally often.
        mix: String = String::new();
        /// File with rows of `id` and `weight`, such as `trainer audit` writes: a question of weight 0.5 is asked in every
        /// other pass over its file, one of 0 never. Questions that it does not name have the weight 1.
        weights: Option<PathBuf> = None;
        /// Values of `data_source` that training questions must have, separated by commas. Empty: all.
        sources: String = String::new();
        /// The corpus, in any form that the retriever reads; read only by `trainer audit` and by evaluations that answer
        /// searches with random passages.
        corpus: Option<PathBuf> = None;
        /// Source of the prompts: the template, or the prompt that each row of the file carries (`prompt` as a text or
        /// as messages, as Search-R1 and veRL write it), token for token.
        prompt: PromptSource = PromptSource::Template;
        /// Template that turns a question into a prompt.
        template: TemplateChoice = TemplateChoice::SearchR1;
        /// Puts the prompt into the model's chat template, as the user's message. A model without a chat template
        /// gets the plain text in any case.
        chat: bool = true;
        /// Maximum number of training questions, taken evenly from the file; 0 uses all.
        max_train_questions: usize ["questions"] = 0;
        /// Leaves out training questions whose prompts are longer than `rollout.max_prompt_tokens`, with a count in the
        /// log. If false, such a question is refused.
        skip_long_prompts: bool = false;
        /// Leaves out training questions that are among the held-out ones too, by their words.
        leave_out_test: bool = false;
        /// Maximum number of hops of a question, where the file states it; 0 uses all questions.
        max_hops: usize ["hops"] = 0;
        /// Asks questions that the policy always or never answers only at some of their turns. A checkpoint keeps their
        /// pass rates.
        curriculum: bool = false;
        /// For `data.curriculum`: pass rates up to this one are too hard.
        curriculum_hard: f64 = 0.0, Range::between(0.0, 1.0);
        /// For `data.curriculum`: pass rates from this one on are too easy.
        curriculum_easy: f64 = 1.0, Range::between(0.0, 1.0);
        /// For `data.curriculum`: share of the turns at which such questions are asked nevertheless.
        curriculum_kept: f64 = 0.25, Range::above_up_to(0.0, 1.0);
    }
}
