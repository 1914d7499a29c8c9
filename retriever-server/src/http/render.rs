//! The responses of every shape and encoding, from answers to bytes.

use std::sync::Arc;

use serde::Serialize;
use shared::contract::passage::Passage;
use shared::contract::wire::{QueryError, RankedPassage, RetrieveResponse};

use super::dialect::{Encoding, Shape};
use super::respond;
use super::retrieve::errors;
use crate::config::PassageFields;
use crate::query::{Answer, QueryAnswer};

/// The serialisation of answers.
pub(super) struct Rendering {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
    pub(super) fields: PassageFields,
    pub(super) method: &'static str,
    pub(super) queries: Arc<[String]>,
}

/// The response that rLLM's client reads.
#[derive(Debug, Serialize)]
struct RllmResponse<'a> {
    query: &'a str,
    method: &'static str,
    results: Vec<RllmResult>,
    num_results: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<QueryError>,
}

#[derive(Debug, Serialize)]
struct RllmResult {
    id: String,
    content: String,
    score: f64,
}

/// The response to the one query of GEM's client.
#[derive(Debug, Serialize)]
struct SingleResponse {
    result: Vec<RankedPassage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<QueryError>,
}

/// The response of Search-R1's web search servers.
#[derive(Debug, Serialize)]
struct WrappedResponse {
    result: Vec<Vec<Wrapped>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<QueryError>,
}

#[derive(Debug, Serialize)]
struct Wrapped {
    document: Passage,
}

#[derive(Debug, Serialize)]
struct Text {
    text: String,
}

#[derive(Debug, Serialize)]
struct Document {
    id: String,
    contents: String,
}

/// The response of R1-Searcher's server.
#[derive(Debug, Serialize)]
struct AnswersResponse<'a> {
    queries: &'a [String],
    answers: Vec<Vec<String>>,
}

impl Rendering {
    /// Writes the response, or nothing if it has no form, which is logged.
    pub(super) fn write(&self, answers: Vec<QueryAnswer>) -> Option<Vec<u8>> {
        let errors = errors(&answers);
        let lists = answers.into_iter().map(Result::unwrap_or_default);
        match self.shape {
            Shape::Rllm => {
                let results: Vec<RllmResult> = lists.flatten().map(rllm_result).collect();
                self.encode(&RllmResponse {
                    query: self.queries.first().map_or("", String::as_str),
                    method: self.method,
                    num_results: results.len(),
                    results,
                    errors,
                })
            }
            Shape::Scored | Shape::Bare => {
                let result = lists
                    .map(|list| list.into_iter().map(|answer| self.ranked(answer)).collect())
                    .collect();
                self.encode(&RetrieveResponse { result, errors })
            }
            Shape::Single => {
                let result = lists.flatten().map(|answer| self.ranked(answer)).collect();
                self.encode(&SingleResponse { result, errors })
            }
            Shape::Wrapped => {
                let wrap = |answer: Answer| Wrapped { document: self.document(answer.passage) };
                let result = lists.map(|list| list.into_iter().map(wrap).collect()).collect();
                self.encode(&WrappedResponse { result, errors })
            }
            Shape::Texts => {
                let text = |answer: Answer| Text { text: answer.passage.contents };
                self.encode(&lists.flatten().map(text).collect::<Vec<_>>())
            }
            Shape::Documents { is_single, with_scores } => {
                let split: Vec<(Vec<Document>, Vec<f64>)> =
                    lists.map(|list| list.into_iter().map(scored_document).unzip()).collect();
                self.documents(split, is_single, with_scores)
            }
            Shape::Answers => {
                let answers = lists.map(numbered).collect();
                self.encode(&AnswersResponse { queries: &self.queries, answers })
            }
        }
    }

    /// Writes the response of ReCall's server.
    fn documents(
        &self,
        mut lists: Vec<(Vec<Document>, Vec<f64>)>,
        is_single: bool,
        with_scores: bool,
    ) -> Option<Vec<u8>> {
        if is_single {
            let list = lists.pop().unwrap_or_default();
            return if with_scores { self.encode(&list) } else { self.encode(&list.0) };
        }
        let lists: (Vec<_>, Vec<_>) = lists.into_iter().unzip();
        if with_scores { self.encode(&lists) } else { self.encode(&lists.0) }
    }

    fn encode(&self, response: &impl Serialize) -> Option<Vec<u8>> {
        respond::encode(self.encoding, response)
    }

    fn document(&self, passage: Passage) -> Passage {
        match self.fields {
            PassageFields::Full => passage,
            PassageFields::Minimal => Passage { title: None, text: None, ..passage },
            PassageFields::Url => {
                let url = Some(passage.url.unwrap_or_default());
                Passage { title: None, text: None, url, ..passage }
            }
        }
    }

    fn ranked(&self, answer: Answer) -> RankedPassage {
        let document = self.document(answer.passage);
        if matches!(self.shape, Shape::Scored | Shape::Single) {
            RankedPassage::Scored { document, score: f64::from(answer.score) }
        } else {
            RankedPassage::Bare(document)
        }
    }
}

fn rllm_result(answer: Answer) -> RllmResult {
    let Answer { passage, score } = answer;
    RllmResult { id: passage.id, content: passage.contents, score: f64::from(score) }
}

fn scored_document(answer: Answer) -> (Document, f64) {
    let Answer { passage, score } = answer;
    (Document { id: passage.id, contents: passage.contents }, f64::from(score))
}

/// Returns passages as lines of R1-Searcher's corpus, from which its client cuts off a number and a tab. An id that
/// is no number is replaced by the passage's rank.
fn numbered(list: Vec<Answer>) -> Vec<String> {
    let line = |(rank, answer): (usize, Answer)| {
        let Passage { id, contents, .. } = answer.passage;
        let is_number = !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit());
        let number = if is_number { id } else { (rank + 1).to_string() };
        format!("{number}\t{contents}")
    };
    list.into_iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::query::SearchFault;

    fn answer(id: &str, score: f32) -> Answer {
        let passage = Passage {
            id: id.to_owned(),
            contents: format!("\"T\"\n{id}"),
            title: Some("t".to_owned()),
            url: Some("u".to_owned()),
            ..Passage::default()
        };
        Answer { passage, score }
    }

    fn written(shape: Shape, encoding: Encoding, answers: Vec<QueryAnswer>) -> Vec<u8> {
        let queries = ["a", "b"].map(str::to_owned).into();
        let fields = PassageFields::Minimal;
        let rendering = Rendering { shape, encoding, fields, method: "bm25", queries };
        rendering.write(answers).unwrap()
    }

    #[test]
    fn a_failed_query_is_marked_in_its_slot() {
        let answers = vec![Ok(vec![answer("1", 1.5)]), Err(SearchFault::DeadlineExceeded)];
        let text = String::from_utf8(written(Shape::Bare, Encoding::Json, answers)).unwrap();
        assert_eq!(
            text,
            r#"{"result":[[{"id":"1","contents":"\"T\"\n1","url":"u"}],[]],"errors":[{"index":1,"code":"deadline_exceeded","retryable":true}]}"#
        );
    }

    #[test]
    fn every_shape_is_the_same_in_both_encodings() {
        let two = || vec![Ok(vec![answer("7", 1.5), answer("x", 0.5)]), Ok(Vec::new())];
        let one = || vec![Ok(vec![answer("7", 1.5), answer("x", 0.5)])];
        let document = |id: &str| json!({"id": id, "contents": format!("\"T\"\n{id}")});
        let stored = |id: &str| json!({"id": id, "contents": format!("\"T\"\n{id}"), "url": "u"});
        let scored = |id: &str, score: f64| json!({"document": stored(id), "score": score});
        let list = json!([document("7"), document("x")]);
        let documents = |is_single, with_scores| Shape::Documents { is_single, with_scores };
        for (shape, answers, expected) in [
            (Shape::Scored, two(), json!({"result": [[scored("7", 1.5), scored("x", 0.5)], []]})),
            (Shape::Bare, two(), json!({"result": [[stored("7"), stored("x")], []]})),
            (
                Shape::Wrapped,
                two(),
                json!({"result": [[{"document": stored("7")}, {"document": stored("x")}], []]}),
            ),
            (Shape::Single, one(), json!({"result": [scored("7", 1.5), scored("x", 0.5)]})),
            (Shape::Texts, one(), json!([{"text": "\"T\"\n7"}, {"text": "\"T\"\nx"}])),
            (documents(true, false), one(), list.clone()),
            (documents(true, true), one(), json!([list.clone(), [1.5, 0.5]])),
            (documents(false, false), two(), json!([list.clone(), []])),
            (documents(false, true), two(), json!([[list, []], [[1.5, 0.5], []]])),
            (
                Shape::Answers,
                two(),
                json!({"queries": ["a", "b"], "answers": [["7\t\"T\"\n7", "2\t\"T\"\nx"], []]}),
            ),
        ] {
            let bytes = written(shape, Encoding::Json, answers.clone());
            assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expected, "{shape:?}");
            let bytes = written(shape, Encoding::MessagePack, answers);
            assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), expected, "{shape:?}");
        }
    }
}
