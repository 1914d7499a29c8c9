//! Query files with known answers, in all forms of [`shared::contract::rows`]. The accepted field names are
//! those of BEIR (`_id`, `text`), of FlashRAG and Search-R1 (`id`, `question`, `golden_answers`) and of the
//! project's own question files (`gold_ids`). Tables without names are those of MS MARCO (identifier and
//! question) and of DPR (question and a list of answers).

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};
use shared::contract::rows::{Place, RowFault, Rows, RowsError, question_columns};

use crate::json_kind::json_kind;

const ID_FIELDS: [&str; 5] = ["id", "_id", "qid", "query_id", "query-id"];
const TEXT_FIELDS: [&str; 3] = ["question", "text", "query"];
const ANSWER_FIELDS: [&str; 3] = ["golden_answers", "answers", "answer"];
const GOLD_FIELDS: [&str; 2] = ["gold_ids", "gold_passage_ids"];

/// A query with its known answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationQuery {
    /// The identifier, unique in its file; `line-N` if the record has none.
    pub id: String,
    /// The text of the query.
    pub text: String,
    /// The texts that count as an answer. Often empty.
    pub answers: Vec<String>,
    /// The identifiers of passages with the answer. Often empty.
    pub gold_ids: Vec<String>,
}

/// Reads the queries of a file in order. Blank lines are skipped.
pub fn read(path: &Path) -> Result<Vec<EvaluationQuery>, RowsError> {
    let mut place_of_id: HashMap<String, Place> = HashMap::new();
    let mut queries = Vec::new();
    for row in Rows::open(path, question_columns)? {
        let mut row = row?;
        let fields = std::mem::take(&mut row.fields);
        let query = query(fields, row.number).map_err(|reason| row.fault(reason))?;
        if let Some(earlier) = place_of_id.insert(query.id.clone(), row.place()) {
            let earlier = match earlier {
                Place::Line(line) => format!("line {line}"),
                Place::Row(row) => format!("row {row}"),
                Place::File => "the file".to_owned(),
            };
            let reason = format!("id {:?} was used before, in {earlier}", query.id);
            return Err(row.fault(reason));
        }
        queries.push(query);
    }
    if queries.is_empty() {
        let reason = "there are no queries, expected rows {\"id\": …, \"question\": …}".to_owned();
        return Err(RowsError::file(path, RowFault::Record(reason)));
    }
    Ok(queries)
}

fn query(mut fields: Map<String, Value>, row: u64) -> Result<EvaluationQuery, String> {
    let id = match take(&mut fields, &ID_FIELDS) {
        None => format!("line-{row}"),
        Some((name, value)) => {
            text_or_integer(&value).filter(|id| !id.is_empty()).ok_or_else(|| {
                format!("{name} is {}, expected a string or an integer", json_kind(&value))
            })?
        }
    };
    let text = match take(&mut fields, &TEXT_FIELDS) {
        Some((_, Value::String(text))) => text,
        Some((name, other)) => {
            return Err(format!("{name} is {}, expected a string", json_kind(&other)));
        }
        None => return Err("the query is missing, expected question, text or query".to_owned()),
    };
    let answers = texts(take(&mut fields, &ANSWER_FIELDS))?;
    let gold_ids = texts(take(&mut fields, &GOLD_FIELDS))?;
    Ok(EvaluationQuery { id, text, answers, gold_ids })
}

/// Removes the fields called `names` up to the first that is not null, and returns that one.
fn take(fields: &mut Map<String, Value>, names: &[&'static str]) -> Option<(&'static str, Value)> {
    names
        .iter()
        .filter_map(|&name| fields.remove(name).map(|value| (name, value)))
        .find(|(_, value)| !value.is_null())
}

/// Converts a field with a single text or a list of texts.
fn texts(field: Option<(&'static str, Value)>) -> Result<Vec<String>, String> {
    let Some((name, value)) = field else { return Ok(Vec::new()) };
    let texts = match &value {
        Value::Array(items) => items.iter().map(text_or_integer).collect(),
        other => text_or_integer(other).map(|text| vec![text]),
    };
    texts.ok_or_else(|| {
        format!("{name} is {}, expected a string or a list of strings", json_kind(&value))
    })
}

fn text_or_integer(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<EvaluationQuery>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.jsonl");
        std::fs::write(&path, text).unwrap();
        let shown = format!("{}/", folder.path().display());
        read(&path).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn the_names_of_several_collections_are_read() {
        let text = "{\"_id\": 7, \"text\": \"a\", \"metadata\": {}}\n\n\
                    {\"id\": \"b\", \"question\": \"q\", \"golden_answers\": [\"x\", 5], \
                    \"gold_ids\": [\"p1\"], \"bridge\": null}\n\
                    {\"query\": \"no id\", \"answers\": \"one\"}";
        let query = |id: &str, text: &str, answers: &[&str], gold_ids: &[&str]| EvaluationQuery {
            id: id.to_owned(),
            text: text.to_owned(),
            answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
            gold_ids: gold_ids.iter().map(|&id| id.to_owned()).collect(),
        };
        let expected = [
            query("7", "a", &[], &[]),
            query("b", "q", &["x", "5"], &["p1"]),
            query("line-4", "no id", &["one"], &[]),
        ];
        assert_eq!(read_text(text).unwrap(), expected);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        for (text, expected) in [
            ("{\"id\": \"1\"}", ":1: the query is missing, expected question, text or query"),
            ("{\"question\": [\"a\"]}", ":1: question is a list, expected a string"),
            ("{\"id\": true, \"text\": \"a\"}", ":1: id is a boolean, expected a string or an"),
            ("{\"text\": \"a\", \"answers\": {}}", ":1: answers is an object, expected a string"),
            ("[]", ": there are no queries"),
            ("[7]", ", row 1: is a number, expected an object"),
            ("{\"text\": \"a\"", ":1: is not JSON: EOF while parsing"),
            (
                "{\"id\":1,\"text\":\"a\"}\n{\"id\":\"1\",\"text\":\"b\"}",
                ":2: id \"1\" was used before, in line 1",
            ),
            ("\n", ": there are no queries"),
            ("print(1)\n", ": is a Python script, expected rows"),
        ] {
            let error = read_text(text).unwrap_err();
            let expected = format!("queries.jsonl{expected}");
            assert!(error.starts_with(&expected), "{error} does not start with {expected}");
        }
    }

    #[test]
    fn the_forms_of_published_sets_are_read() {
        let of = |text: &str| -> Vec<(String, String, Vec<String>)> {
            let queries = read_text(text).unwrap();
            queries.into_iter().map(|query| (query.id, query.text, query.answers)).collect()
        };
        let row = |id: &str, text: &str, answers: &[&str]| {
            let answers = answers.iter().map(|&answer| answer.to_owned()).collect::<Vec<_>>();
            (id.to_owned(), text.to_owned(), answers)
        };
        // MS MARCO's queries.dev.tsv.
        let expected = vec![row("1048585", "what is paula deen's brother", &[])];
        assert_eq!(of("1048585\twhat is paula deen's brother\n"), expected);
        // DPR's nq-test.qa.csv and trivia-test.qa.csv.
        let dpr = "who won it\t['Wilhelm Röntgen', \"d'Or\"]\nwhich\t\"[\"\"it's\"\"]\"\n";
        let expected = vec![
            row("line-1", "who won it", &["Wilhelm Röntgen", "d'Or"]),
            row("line-2", "which", &["it's"]),
        ];
        assert_eq!(of(dpr), expected);
        // BEIR's queries.jsonl, as a Windows tool saves it.
        let beir = "\u{feff}{\"_id\": \"PLAIN-2\", \"text\": \"statins\", \"metadata\": {\"url\": NaN}}\r\n";
        assert_eq!(of(beir), [row("PLAIN-2", "statins", &[])]);
        // One list.
        let list = "[{\"id\": 1, \"question\": \"a\"},\n {\"id\": 2, \"question\": \"b\"}]";
        assert_eq!(of(list), [row("1", "a", &[]), row("2", "b", &[])]);
        let error = read_text("[{\"id\":1,\"text\":\"a\"},{\"id\":1,\"text\":\"a\"}]").unwrap_err();
        assert_eq!(error, "queries.jsonl, row 2: id \"1\" was used before, in row 1");
    }
}
