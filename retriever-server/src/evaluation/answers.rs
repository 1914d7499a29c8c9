//! The search for answers in passages, as in DPR's retrieval accuracy (Karpukhin et al. 2020), with the
//! normalisation of exact match.

use shared::contract::answer::normalize;

/// Returns the index of the first text that contains one of `answers`. Both are normalised, and whole
/// words must match: 5 is not in 1453. An answer that normalisation leaves empty never matches.
pub fn first_with_answer<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    answers: &[String],
) -> Option<usize> {
    let answers: Vec<String> = answers
        .iter()
        .map(|answer| normalize(answer))
        .filter(|answer| !answer.is_empty())
        .map(|answer| format!(" {answer} "))
        .collect();
    let has_answer = |text: &str| {
        let text = format!(" {} ", normalize(text));
        answers.iter().any(|answer| text.contains(answer))
    };
    texts.into_iter().position(has_answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(texts: &[&str], answers: &[&str]) -> Option<usize> {
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        first_with_answer(texts.iter().copied(), &answers)
    }

    #[test]
    fn answers_are_whole_words_after_normalisation() {
        let texts = ["Born in 1453.", "He was 5; a \"Great Wall\" fell.", "5"];
        assert_eq!(first(&texts, &["5"]), Some(1));
        assert_eq!(first(&texts, &["great wall"]), Some(1));
        assert_eq!(first(&texts, &["no such", "1,453"]), Some(0));
        assert_eq!(first(&texts, &["all fell"]), None);
        assert_eq!(first(&texts, &[]), None);
        // Normalisation leaves these empty.
        assert_eq!(first(&texts, &["the", "", "?!"]), None);
    }
}
