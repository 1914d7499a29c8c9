//! Comparison of an answer with the golden answers: SQuAD normalisation, exact match, containment, F1.

use std::collections::BTreeMap;

pub use shared::contract::answer::normalize;

/// Returns 1 if `answer` equals one of `golden`, both normalised, else 0.
pub fn exact_match(answer: &str, golden: &[String]) -> f64 {
    let answer = normalize(answer);
    indicator(golden.iter().any(|gold| normalize(gold) == answer))
}

/// Returns 1 if `answer` contains one of `golden`, both normalised, else 0.
pub fn sub_exact_match(answer: &str, golden: &[String]) -> f64 {
    indicator(contains_any(answer, golden))
}

/// Returns `true` if `text` contains one of `golden`, both normalised.
pub fn contains_any(text: &str, golden: &[String]) -> bool {
    let text = normalize(text);
    golden.iter().any(|gold| text.contains(&normalize(gold)))
}

/// Returns the best F1 between the words of `answer` and those of one of `golden`, all normalised. Two texts without
/// words match.
pub fn f1(answer: &str, golden: &[String]) -> f64 {
    golden.iter().map(|gold| f1_of_one(answer, gold)).fold(0.0, f64::max)
}

fn f1_of_one(answer: &str, gold: &str) -> f64 {
    let (answer, gold) = (normalize(answer), normalize(gold));
    let (answer, gold): (Vec<&str>, Vec<&str>) = (words(&answer), words(&gold));
    if answer.is_empty() || gold.is_empty() {
        return indicator(answer == gold);
    }
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
