//! Query files, with known answers. Rows, questions and answers are read as the trainer reads them; the field names
//! are also those of BEIR (`_id`, `text`) and of the project's own question files (`gold_ids`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};
use shared::contract::gold;
use shared::contract::question;
use shared::contract::rows::{Place, Row, RowFault, Rows, RowsError, kind_of, question_columns};
use tracing::warn;

const ID_FIELDS: [&str; 5] = ["id", "_id", "qid", "query_id", "query-id"];
const GOLD_FIELDS: [&str; 2] = ["gold_ids", "gold_passage_ids"];

/// A query with its known answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationQuery {
    /// The identifier, unique in its file; `line-N` or `row-N` if the record has none.
    pub id: String,
    /// The text of the query.
    pub text: String,
    /// The texts that count as an answer. Often empty.
    pub answers: Vec<String>,
    /// The identifiers of passages with the answer. Often empty.
    pub gold_ids: Vec<String>,
}

/// Reads the queries of a file in order. Logs fields that look like answers and are not read.
pub fn read(path: &Path) -> Result<Vec<EvaluationQuery>, RowsError> {
    let mut place_of_id: HashMap<String, Place> = HashMap::new();
    let mut unread: BTreeMap<String, u64> = BTreeMap::new();
    let mut queries = Vec::new();
    for row in Rows::open(path, question_columns)? {
        let mut row = row?;
        let mut fields = std::mem::take(&mut row.fields);
        let query = query(&mut fields, &row, &mut unread).map_err(|reason| row.fault(reason))?;
        if let Some(earlier) = place_of_id.insert(query.id.clone(), row.place()) {
            let earlier = in_words(earlier);
            return Err(row.fault(format!("id {:?} was used before, in {earlier}", query.id)));
        }
        queries.push(query);
    }
    if queries.is_empty() {
        let reason = "there are no queries, expected rows {\"id\": …, \"question\": …}".to_owned();
        return Err(RowsError::file(path, RowFault::Record(reason)));
    }
    for (field, number) in unread {
        let path = path.display();
        warn!(
            "{path}: the field {field:?} looks like answers and is not read, first in row {number}"
        );
    }
    Ok(queries)
}

fn query(
    fields: &mut Map<String, Value>,
    row: &Row,
    unread: &mut BTreeMap<String, u64>,
) -> Result<EvaluationQuery, String> {
    let id = match take(fields, &ID_FIELDS) {
        None => in_words(row.place()).replace(' ', "-"),
        Some((name, value)) => {
            text_or_integer(&value).filter(|id| !id.is_empty()).ok_or_else(|| {
                format!("{name} is {}, expected a string or an integer", kind_of(&value))
            })?
        }
    };
    let text = question::find(fields)?.text;
    let gold_ids = texts(take(fields, &GOLD_FIELDS))?;
    let gold = gold::take(fields)?;
    for field in gold.unread {
        unread.entry(field).or_insert(row.number);
    }
    Ok(EvaluationQuery { id, text, answers: gold.answers, gold_ids })
}

fn in_words(place: Place) -> String {
    match place {
        Place::File => "the file".to_owned(),
        Place::Line(line) => format!("line {line}"),
        Place::Row(row) => format!("row {row}"),
    }
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
        format!("{name} is {}, expected a string or a list of strings", kind_of(&value))
    })
}

/// Returns a string or an integer as text.
pub(super) fn text_or_integer(value: &Value) -> Option<String> {
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
    fn answers_count_in_every_form_that_the_trainer_reads() {
        let text = "{\"question\": \"q\", \"answer\": {\"value\": \"x\", \"aliases\": [\"y\"]}}\n\
                    {\"question\": \"q\", \"answer\": \"x\", \"answer_aliases\": [\"y\"]}\n\
                    {\"query\": \"q\", \"reward_model\": {\"ground_truth\": {\"target\": [\"x\", \"y\"]}}}\n\
                    {\"question\": \"q\", \"choices\": [\"z\", \"x\"], \"answer\": 1, \"aliases\": \"y\"}";
        let queries = read_text(text).unwrap();
        assert_eq!(queries.len(), 4);
        for query in queries {
            assert_eq!(query.answers, ["x", "y"], "{}", query.id);
        }
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        for (text, expected) in [
            ("{\"id\": \"1\"}", ":1: \"question\" is missing; accepted is a text"),
            ("{\"question\": [\"a\"]}", ":1: \"question\" is [\"a\"]; accepted is a text"),
            ("{\"id\": true, \"text\": \"a\"}", ":1: id is a boolean, expected a string or an"),
            ("{\"text\": \"a\", \"answers\": {}}", ":1: \"answers\" is {}; accepted is a text"),
            ("[]", ": there are no queries"),
            ("[1]", ", row 1: is a number, expected an object"),
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
        // KILT's nq-dev-kilt.jsonl: answers, some with the article that they stand in, and one of the latter alone.
        let kilt = "{\"id\": \"-29\", \"input\": \"who won it\", \"output\": [{\"answer\": \"A B\", \
                    \"provenance\": [{\"wikipedia_id\": \"290\", \"title\": \"T\", \"bleu_score\": 1.0}]}, \
                    {\"answer\": \"C\"}, {\"provenance\": [{\"wikipedia_id\": \"291\"}]}], \"meta\": {}}\n";
        assert_eq!(of(kilt), [row("-29", "who won it", &["A B", "C"])]);
        // KILT's test files have no answers.
        let open =
            "{\"id\": \"a\", \"input\": \"who won it\", \"meta\": {\"left_context\": \"\"}}\n";
        assert_eq!(of(open), [row("a", "who won it", &[])]);
        // One list.
        let list = "[{\"id\": 1, \"question\": \"a\"},\n {\"id\": 2, \"question\": \"b\"}]";
        assert_eq!(of(list), [row("1", "a", &[]), row("2", "b", &[])]);
        let error = read_text("[{\"id\":1,\"text\":\"a\"},{\"id\":1,\"text\":\"a\"}]").unwrap_err();
        assert_eq!(error, "queries.jsonl, row 2: id \"1\" was used before, in row 1");
    }
}
