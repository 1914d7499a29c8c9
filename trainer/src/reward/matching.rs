//! Comparison of an answer with the golden answers: SQuAD normalisation, exact match, containment, F1.
//!
//! A golden answer of which normalisation leaves nothing, such as "A", matches no text. The reference lets it match an
//! empty answer, and every text contains it.

use std::collections::BTreeMap;

pub use shared::contract::answer::normalize;

/// Returns 1 if `answer` equals one of `golden`, both normalised, else 0.
pub fn exact_match(answer: &str, golden: &[String]) -> f64 {
    let answer = normalize(answer);
    indicator(matchable(golden).any(|gold| gold == answer))
}

/// Returns 1 if `answer` contains one of `golden`, both normalised, else 0.
pub fn sub_exact_match(answer: &str, golden: &[String]) -> f64 {
    indicator(contains_any(answer, golden))
}

/// Returns `true` if `text` contains one of `golden`, both normalised.
pub fn contains_any(text: &str, golden: &[String]) -> bool {
    let text = normalize(text);
    matchable(golden).any(|gold| text.contains(&gold))
}

/// Returns the best F1 between the words of `answer` and those of one of `golden`, all normalised.
pub fn f1(answer: &str, golden: &[String]) -> f64 {
    let answer = normalize(answer);
    matchable(golden).map(|gold| f1_of_one(&answer, &gold)).fold(0.0, f64::max)
}

/// Returns the normalised golden answers that something can match.
fn matchable(golden: &[String]) -> impl Iterator<Item = String> {
    golden.iter().map(|gold| normalize(gold)).filter(|gold| !gold.is_empty())
}

fn f1_of_one(answer: &str, gold: &str) -> f64 {
    let (answer, gold): (Vec<&str>, Vec<&str>) = (words(answer), words(gold));
    let mut unmatched: BTreeMap<&str, usize> = BTreeMap::new();
    for word in &gold {
        *unmatched.entry(word).or_default() += 1;
    }
    let mut common = 0_usize;
    for word in &answer {
        if let Some(count) = unmatched.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    if common == 0 {
        return 0.0;
    }
    let precision = common as f64 / answer.len() as f64;
    let recall = common as f64 / gold.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

fn words(normalized: &str) -> Vec<&str> {
    normalized.split(' ').filter(|word| !word.is_empty()).collect()
}

fn indicator(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}
