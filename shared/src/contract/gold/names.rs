//! The names of fields with answers, and of fields that only look so.

/// The part that a field plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Answers.
    Answer,
    /// Other spellings of the answer.
    Alias,
    /// The place of the answer among the choices; without choices it says nothing.
    Key,
    /// Something else, in spite of its name.
    Ignored,
}

/// Answers: FlashRAG and Search-R1 (`golden_answers`), DPR, SQuAD, WebQuestions (`answers`), HotpotQA, MuSiQue, TriviaQA,
/// BoolQ (`answer`), veRL (`target`, `ground_truth`), SciQ (`correct_answer`), TruthfulQA (`best_answer`), GAIA
/// (`Final answer`).
const ANSWERS: [&str; 16] = [
    "goldenanswers",
    "goldenanswer",
    "goldanswers",
    "goldanswer",
    "answers",
    "answer",
    "target",
    "targets",
    "groundtruth",
    "groundtruths",
    "shortanswers",
    "shortanswer",
    "correctanswers",
    "correctanswer",
    "bestanswer",
    "finalanswer",
];

/// Other spellings: MuSiQue (`answer_aliases`), PopQA (`possible_answers`), ASearcher (`aug_answer`), TriviaQA.
const ALIASES: [&str; 13] = [
    "answeraliases",
    "answeralias",
    "answersaliases",
    "aliases",
    "possibleanswers",
    "acceptableanswers",
    "alternativeanswers",
    "alternateanswers",
    "auganswer",
    "auganswers",
    "normalizedaliases",
    "normalizedvalue",
    "humananswers",
];

/// Places among choices: ARC, OpenBookQA, CommonsenseQA (`answerKey`), MedQA (`answer_idx`), MMLU-Pro (`answer_index`),
/// MedMCQA (`cop`), HellaSwag (`label`).
const KEYS: [&str; 14] = [
    "answerkey",
    "answeridx",
    "answerindex",
    "answerlabel",
    "answerletter",
    "answeroption",
    "correctindex",
    "correctidx",
    "correctanswerindex",
    "correctoption",
    "correctchoice",
    "cop",
    "label",
    "gold",
];

/// Fields that look like answers but are none: offsets, kinds, identifiers, wrong answers, the passages of the answer,
/// the names of PopQA's subject (`s_aliases`) and those of its object, which are in `possible_answers` too, identifiers
/// of WebQSP and FreebaseQA.
const IGNORED: [&str; 36] = [
    "answerstart",
    "answerstarts",
    "answerend",
    "answerends",
    "answerspan",
    "answertype",
    "answertypes",
    "answerid",
    "answerids",
    "answerable",
    "isanswerable",
    "hasanswer",
    "answersentence",
    "answersentences",
    "answerurl",
    "answerurls",
    "answercount",
    "answerchoices",
    "answerlanguage",
    "goldids",
    "goldid",
    "goldpassageids",
    "goldpassages",
    "goldtitles",
    "golddocs",
    "goldevidence",
    "goldenpassages",
    "incorrectanswers",
    "incorrectanswer",
    "wronganswers",
    "plausibleanswers",
    "longanswer",
    "saliases",
    "oaliases",
    "answerargument",
    "answersmid",
];

/// Parts of names that suggest answers.
const SUGGESTIVE: [&str; 6] = ["answer", "alias", "gold", "groundtruth", "solution", "target"];

/// Returns the name in lower case without the marks between its words, which differ from set to set.
pub(super) fn canonical(name: &str) -> String {
    name.chars()
        .filter(|letter| !matches!(letter, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Returns the role of a field by its canonical name.
pub(super) fn role(canonical: &str) -> Option<Role> {
    [
        (&ANSWERS[..], Role::Answer),
        (&ALIASES[..], Role::Alias),
        (&KEYS[..], Role::Key),
        (&IGNORED[..], Role::Ignored),
    ]
    .into_iter()
    .find_map(|(names, role)| names.contains(&canonical).then_some(role))
}

/// Returns `true` if a name suggests answers.
pub(super) fn looks_like_answers(canonical: &str) -> bool {
    canonical == "label"
        || canonical == "labels"
        || SUGGESTIVE.iter().any(|part| canonical.contains(part))
}
