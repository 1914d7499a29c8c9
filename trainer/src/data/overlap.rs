//! Questions that stand both in the training files and in the held-out ones.

use std::collections::HashMap;

use shared::contract::answer::normalize;

/// Questions that a warning names.
const NAMED: usize = 3;

/// The held-out questions that are trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Number of held-out questions that are among the training questions too.
    pub shared: usize,
    /// Number of held-out questions.
    pub held_out: usize,
    /// The first ones: id in training, id among the held-out questions.
    pub first: Vec<(String, String)>,
}

impl Overlap {
    /// Compares id and question of training rows with those of held-out ones. Two questions are one if their words
    /// are, without regard to case, marks and articles.
    pub fn of<'q>(
        training: impl IntoIterator<Item = (&'q str, &'q str)>,
        held_out: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> Self {
        let mut trained: HashMap<String, &str> = HashMap::new();
        for (id, question) in training {
            trained.entry(question_words(question)).or_insert(id);
        }
        let mut overlap = Self { shared: 0, held_out: 0, first: Vec::new() };
        for (id, question) in held_out {
            overlap.held_out += 1;
            if let Some(&other) = trained.get(&question_words(question)) {
                overlap.shared += 1;
                if overlap.first.len() < NAMED {
                    overlap.first.push((other.to_owned(), id.to_owned()));
                }
            }
        }
        overlap
    }

    /// Returns the overlap in words, if there is any.
    pub fn warning(&self) -> Option<String> {
        let named =
            self.first.iter().map(|(training, held_out)| format!("{training:?} is {held_out:?}"));
        let named: Vec<String> = named.collect();
        (self.shared > 0).then(|| {
            format!(
                "{} of {} held-out questions are among the training questions, so that their scores say little \
                 ({}{}); data.leave_out_test = true leaves them out of training",
                self.shared,
                self.held_out,
                named.join(", "),
                if self.shared > named.len() { ", …" } else { "" }
            )
        })
    }
}

/// Returns what two questions are compared by.
pub fn question_words(question: &str) -> String {
    let words = normalize(question);
    if words.is_empty() { question.trim().to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_compared_by_their_words() {
        let training = [("a", "Who wrote Hamlet"), ("b", "who wrote hamlet?"), ("c", "???")];
        let held_out = [("x", "Who wrote the Hamlet?"), ("y", "Who wrote Faust?"), ("z", "!!")];
        let overlap = Overlap::of(training, held_out);
        assert_eq!((overlap.shared, overlap.held_out), (1, 3));
        assert_eq!(overlap.first, [("a".to_owned(), "x".to_owned())]);
        let warning = overlap.warning().unwrap();
        assert!(warning.starts_with("1 of 3 held-out questions are among"), "{warning}");
        assert!(warning.contains("(\"a\" is \"x\")"), "{warning}");
        assert_eq!(Overlap::of(training, [("y", "Who wrote Faust?")]).warning(), None);
    }
}
