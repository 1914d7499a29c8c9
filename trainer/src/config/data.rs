//! The section of questions and prompts.

use std::path::PathBuf;

use super::choice::{PromptSource, TemplateChoice};
use super::section::section;

section! {
    /// Questions, prompts, and the passages of the random control.
    pub struct DataConfig in "data" {
        /// File with the training questions, or folder with its parts: JSON Lines, a JSON list, a table or parquet.
        train: PathBuf = PathBuf::new();
        /// File or folder with the held-out questions, likewise.
        test: PathBuf = PathBuf::new();
        /// The corpus, in any form that the retriever reads; read only by evaluations that answer searches with random passages.
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
        /// Leaves out training questions that are among the held-out ones too, by their words.
        leave_out_test: bool = false;
        /// Maximum number of hops of a question, where the file states it; 0 uses all questions.
        max_hops: usize ["hops"] = 0;
    }
}
