//! Sets of questions that results are published for, by name and size.

/// A published set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSet {
    /// Its name in tables.
    pub title: &'static str,
    /// Names that stand for it, in lower case, letters and digits only.
    names: &'static [&'static str],
    /// Number of questions in the split that results are published for.
    pub questions: usize,
}

/// The seven sets of Search-R1 (arXiv 2503.09516, section 4.1) in FlashRAG's splits, and FRAMES (arXiv 2409.12941) and
/// SimpleQA (arXiv 2411.04368).
pub const PUBLISHED_SETS: [PublishedSet; 9] = [
    set("NQ", &["nq", "naturalquestions", "nqopen"], 3610),
    set("TriviaQA", &["triviaqa", "trivia", "tqa"], 11_313),
    set("PopQA", &["popqa"], 14_267),
    set("HotpotQA", &["hotpotqa", "hotpot"], 7405),
    set("2WikiMultihopQA", &["2wikimultihopqa", "2wiki", "2wikimqa"], 12_576),
    set("MuSiQue", &["musique"], 2417),
    set("Bamboogle", &["bamboogle"], 125),
    set("FRAMES", &["frames"], 824),
    set("SimpleQA", &["simpleqa"], 4326),
];

const fn set(
    title: &'static str,
    names: &'static [&'static str],
    questions: usize,
) -> PublishedSet {
    PublishedSet { title, names, questions }
}

/// The part of a published set that a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// The name stands for no published set.
    Unknown,
    /// All questions of the set.
    Whole(&'static PublishedSet),
    /// Fewer questions.
    Part(&'static PublishedSet),
}

/// A file with more questions than the set that its name stands for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the set {name:?} has {found} questions, {} has {}: give it another name, or the file of the split that results \
     are published for",
    set.title,
    set.questions
)]
pub struct OtherSet {
    name: String,
    found: usize,
    set: &'static PublishedSet,
}

/// Compares the number of questions with that of the published set called `name`.
///
/// # Errors
/// More questions than the set has.
pub fn coverage(name: &str, found: usize) -> Result<Coverage, OtherSet> {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let Some(set) = PUBLISHED_SETS.iter().find(|set| set.names.contains(&plain.as_str())) else {
        return Ok(Coverage::Unknown);
    };
    match found.cmp(&set.questions) {
        std::cmp::Ordering::Equal => Ok(Coverage::Whole(set)),
        std::cmp::Ordering::Less => Ok(Coverage::Part(set)),
        std::cmp::Ordering::Greater => Err(OtherSet { name: name.to_owned(), found, set }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_sets_of_published_sizes() {
        for (name, questions, title) in [
            ("nq", 3610, "NQ"),
            ("TriviaQA", 11_313, "TriviaQA"),
            ("popqa", 14_267, "PopQA"),
            ("HotpotQA", 7405, "HotpotQA"),
            ("2wiki", 12_576, "2WikiMultihopQA"),
            ("2WikiMultihopQA", 12_576, "2WikiMultihopQA"),
            ("musique", 2417, "MuSiQue"),
            ("bamboogle", 125, "Bamboogle"),
            ("simple-qa", 4326, "SimpleQA"),
        ] {
            let Ok(Coverage::Whole(set)) = coverage(name, questions) else { panic!("{name}") };
            assert_eq!(set.title, title);
            assert!(matches!(coverage(name, questions - 1), Ok(Coverage::Part(_))), "{name}");
            let message = coverage(name, questions + 1).unwrap_err().to_string();
            assert!(
                message.contains(title) && message.contains(&questions.to_string()),
                "{message}"
            );
        }
        assert_eq!(coverage("worldqa", 1260), Ok(Coverage::Unknown));
    }
}
