//! The paragraphs of a page that fit a query best, by BM25 over the page.

use std::collections::HashMap;

use tantivy::fieldnorm::FieldNormReader;

use crate::lexical::analyzer::terms;
use crate::lexical::bm25::{Bm25Parameters, CollectionStatistics, LengthNorms};

/// Paragraphs of a page that are returned.
const BEST_PARAGRAPHS: usize = 3;

/// Returns the best paragraphs in their order on the page; `None` if no term of the query occurs.
pub(super) fn paragraphs(query: &str, page: &[String]) -> Option<String> {
    let scores = scores(query, page);
    let mut ranked: Vec<usize> = (0..page.len()).filter(|&index| scores[index] > 0.0).collect();
    ranked.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    ranked.truncate(BEST_PARAGRAPHS);
    ranked.sort_unstable();
    let best: Vec<&str> = ranked.into_iter().map(|index| page[index].as_str()).collect();
    (!best.is_empty()).then(|| best.join("\n"))
}

fn scores(query: &str, page: &[String]) -> Vec<f32> {
    let documents: Vec<HashMap<String, u32>> = page.iter().map(|text| counted(text)).collect();
    let lengths: Vec<u32> = documents.iter().map(|counts| counts.values().sum()).collect();
    let statistics = CollectionStatistics {
        passage_count: lengths.iter().filter(|&&length| length > 0).count() as u64,
        token_count: lengths.iter().map(|&length| u64::from(length)).sum(),
    };
    let norms = LengthNorms::new(Bm25Parameters::default(), statistics);
    let mut scores = vec![0.0; page.len()];
    for (term, count) in counted(query) {
        let holders = documents.iter().filter(|document| document.contains_key(&term)).count();
        let idf = statistics.inverse_document_frequency(holders as u32);
        for (index, document) in documents.iter().enumerate() {
            if let Some(&frequency) = document.get(&term) {
                let length_id = FieldNormReader::fieldnorm_to_id(lengths[index]);
                scores[index] += norms.contribution(idf * count as f32, frequency, length_id);
            }
        }
    }
    scores
}

fn counted(text: &str) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for term in terms(text) {
        *counts.entry(term).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_that_name_the_query_are_returned_in_their_order() {
        let page = [
            "The menu of the site.",
            "The tower was built by Gustave Eiffel's company.",
            "Tickets cost ten euros.",
            "Eiffel's tower is in Paris.",
            "The tower is tall.",
            "A tower in a park.",
        ]
        .map(str::to_owned);
        let best = paragraphs("who built the tower of Eiffel", &page).unwrap();
        let lines: Vec<&str> = best.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[..2], [page[1].as_str(), page[3].as_str()]);
        assert_eq!(paragraphs("volcano", &page), None);
        assert_eq!(paragraphs("tower", &[]), None);
    }
}
