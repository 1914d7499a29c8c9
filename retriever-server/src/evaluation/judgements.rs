//! Judgements of how well passages answer queries: qrels in the format of TREC
//! (`query 0 passage grade`) or of BEIR (`query⇥passage⇥grade`, after a line of column names), as JSON or
//! parquet with BEIR's keys, or as the object `{query: {passage: grade}}` that pytrec_eval takes. The file may be
//! compressed with gzip or zstd.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};
use shared::contract::jsonl::LineFault;
use shared::contract::rows::{self, RowFault, Rows, RowsError, kind_of};

use super::queries::{EvaluationQuery, text_or_integer};

/// The keys of a judgement in JSON and parquet, in order of precedence.
const QUERY_KEYS: [&str; 5] = ["query-id", "query_id", "qid", "query", "topic"];
const PASSAGE_KEYS: [&str; 8] =
    ["corpus-id", "corpus_id", "docid", "doc_id", "docno", "pid", "passage_id", "passage"];
const GRADE_KEYS: [&str; 5] = ["score", "relevance", "grade", "rel", "label"];

/// The judged passages of one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relevance {
    grades: HashMap<String, i32>,
}

impl Relevance {
    /// Makes judgements from passages with their grades. A grade of at least 1 means relevant, and a
    /// higher grade is better.
    pub fn new(grades: impl IntoIterator<Item = (String, i32)>) -> Self {
        Self { grades: grades.into_iter().collect() }
    }

    /// Returns the grade of a passage, or 0 if it is not judged.
    pub fn grade(&self, passage: &str) -> i32 {
        self.grades.get(passage).copied().unwrap_or(0)
    }

    /// Returns `true` if a passage is relevant.
    pub fn is_relevant(&self, passage: &str) -> bool {
        self.grade(passage) > 0
    }

    /// Returns the number of relevant passages, in the index or not.
    pub fn relevant_count(&self) -> usize {
        self.grades.values().filter(|&&grade| grade > 0).count()
    }

    /// Returns all grades, best first.
    pub fn grades_descending(&self) -> Vec<i32> {
        let mut grades: Vec<i32> = self.grades.values().copied().collect();
        grades.sort_unstable_by(|left, right| right.cmp(left));
        grades
    }

    /// Returns the judged passages.
    pub fn passages(&self) -> impl Iterator<Item = &str> {
        self.grades.keys().map(String::as_str)
    }
}

/// The judged passages of all queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgements {
    /// The judged passages by the identifier of the query.
    pub queries: BTreeMap<String, Relevance>,
}

impl Judgements {
    /// Gives grade 1 to the gold passages that the query file names.
    pub fn from_gold_passages(queries: &[EvaluationQuery]) -> Self {
        let judged = queries.iter().filter(|query| !query.gold_ids.is_empty()).map(|query| {
            let grades = query.gold_ids.iter().map(|id| (id.clone(), 1));
            (query.id.clone(), Relevance::new(grades))
        });
        Self { queries: judged.collect() }
    }

    /// Reads qrels and skips blank lines. A passage that is judged twice is an error.
    pub fn read(path: &Path) -> Result<Self, RowsError> {
        let mut judgements = Self::default();
        if rows::holds_objects(path)? {
            for row in Rows::open(path, |_| None)? {
                let row = row?;
                judgements.add_object(&row.fields).map_err(|reason| row.fault(reason))?;
            }
        } else {
            judgements.add_lines(path)?;
        }
        if judgements.queries.is_empty() {
            let reason = "there are no judgements, expected lines `query 0 passage grade`";
            return Err(RowsError::file(path, RowFault::Record(reason.to_owned())));
        }
        Ok(judgements)
    }

    fn add_lines(&mut self, path: &Path) -> Result<(), RowsError> {
        let mut lines = rows::open_lines(path)?;
        while let Some(line) = lines.next_line()? {
            if line.number == 1 && is_header(line.text) {
                continue;
            }
            let added = judgement(line.text)
                .and_then(|(query, passage, grade)| self.add(query, passage, grade));
            added.map_err(|reason| line.fault(LineFault::Record(reason)))?;
        }
        Ok(())
    }

    /// Adds one judgement with its keys, or those of an object for each query.
    fn add_object(&mut self, fields: &Map<String, Value>) -> Result<(), String> {
        if QUERY_KEYS.iter().any(|&key| fields.contains_key(key)) {
            let [query, passage] =
                [&QUERY_KEYS[..], &PASSAGE_KEYS].map(|keys| identifier(fields, keys));
            let (key, value) = present(fields, &GRADE_KEYS)?;
            return self.add(&query?, &passage?, grade(key, value)?);
        }
        for (query, judged) in fields {
            let Value::Object(judged) = judged else {
                return Err(format!(
                    "{query} is {}, expected a judgement with {}, {} and {}, or an object of \
                     queries with their passages and grades",
                    kind_of(judged),
                    QUERY_KEYS[0],
                    PASSAGE_KEYS[0],
                    GRADE_KEYS[0]
                ));
            };
            for (passage, value) in judged {
                self.add(query, passage, grade(passage, value)?)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, query: &str, passage: &str, grade: i32) -> Result<(), String> {
        let grades = &mut self.queries.entry(query.to_owned()).or_default().grades;
        match grades.insert(passage.to_owned(), grade) {
            None => Ok(()),
            Some(_) => Err(format!("passage {passage:?} is judged twice for query {query:?}")),
        }
    }
}

/// Returns the first of the keys that is there.
fn present<'a>(
    fields: &'a Map<String, Value>,
    keys: &[&'static str],
) -> Result<(&'static str, &'a Value), String> {
    let mut found = keys.iter().filter_map(|&key| Some((key, fields.get(key)?)));
    found
        .next()
        .ok_or_else(|| format!("{} is missing, expected one of {}", keys[0], keys.join(", ")))
}

fn identifier(fields: &Map<String, Value>, keys: &[&'static str]) -> Result<String, String> {
    let (key, value) = present(fields, keys)?;
    let id = text_or_integer(value).filter(|id| !id.is_empty());
    id.ok_or_else(|| {
        format!("{key} is {value}, expected a string that is not empty, or an integer")
    })
}

/// Reads a grade, which tables may hold as a whole number with a fraction of 0.
fn grade(key: &str, value: &Value) -> Result<i32, String> {
    let whole = value.as_f64().filter(|number| number.fract() == 0.0);
    let grade = whole.filter(|number| number.abs() <= f64::from(i32::MAX));
    grade
        .map(|number| number as i32)
        .ok_or_else(|| format!("{key} is {value}, expected an integer as the grade"))
}

fn is_header(line: &str) -> bool {
    ["query-id\t", "query_id\t", "qid\t", "_id\t"].iter().any(|start| line.starts_with(start))
}

/// Parses query, passage and grade of a line. If tabs separate the columns, identifiers may contain
/// spaces.
fn judgement(line: &str) -> Result<(&str, &str, i32), String> {
    const ACCEPTED: &str = "expected `query 0 passage grade` or `query⇥passage⇥grade`";
    let columns: Vec<&str> = if line.contains('\t') {
        line.split('\t').map(str::trim).collect()
    } else {
        line.split_whitespace().collect()
    };
    let (query, passage, grade) = match columns[..] {
        [query, _, passage, grade] => (query, passage, grade),
        [query, passage, grade] if line.contains('\t') => (query, passage, grade),
        _ => return Err(format!("has {} columns, {ACCEPTED}", columns.len())),
    };
    if query.is_empty() || passage.is_empty() {
        return Err(format!("query or passage is empty, {ACCEPTED}"));
    }
    let grade =
        grade.parse().map_err(|_| format!("the grade is {grade:?}, expected an integer"))?;
    Ok((query, passage, grade))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Judgements, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qrels");
        std::fs::write(&path, text).unwrap();
        let shown = format!("{}/", folder.path().display());
        Judgements::read(&path).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn both_formats_are_read() {
        let expected = Judgements {
            queries: BTreeMap::from([
                ("1".to_owned(), Relevance::new([("a".to_owned(), 2), ("b".to_owned(), 0)])),
                ("2".to_owned(), Relevance::new([("c".to_owned(), -1)])),
            ]),
        };
        assert_eq!(
            read_text("1 0 a 2\n1  Q0\tb 0\n").unwrap_err().split(':').next(),
            Some("qrels")
        );
        assert_eq!(read_text("1 0 a 2\n1  Q0  b 0\n\n2 0 c -1\r\n").unwrap(), expected);
        let beir = "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n2\tc\t-1";
        assert_eq!(read_text(beir).unwrap(), expected);
        assert_eq!(read_text(&format!("\u{feff}{beir}\r\n")).unwrap(), expected);
        let spaces = read_text("q\t0\tvital:Vasco da Gama\t1").unwrap();
        assert!(spaces.queries["q"].is_relevant("vital:Vasco da Gama"));
        assert_eq!(spaces.queries["q"].passages().count(), 1);
    }

    #[test]
    fn judgements_as_objects_are_read() {
        let lines = read_text("1 0 a 2\n1 0 b 0\n2 0 c -1").unwrap();
        let beir = "{\"query-id\": 1, \"corpus-id\": \"a\", \"score\": 2}\n\
                    {\"query-id\": 1, \"corpus-id\": \"b\", \"score\": 0.0}\n\
                    {\"query-id\": 2, \"corpus-id\": \"c\", \"score\": -1}";
        assert_eq!(read_text(beir).unwrap(), lines);
        let list = "[{\"qid\": \"1\", \"docid\": \"a\", \"relevance\": 2},\n\
                    {\"qid\": \"1\", \"docid\": \"b\", \"relevance\": 0},\n\
                    {\"qid\": \"2\", \"docid\": \"c\", \"relevance\": -1}]";
        assert_eq!(read_text(list).unwrap(), lines);
        let pytrec = "{\"1\": {\"a\": 2, \"b\": 0}, \"2\": {\"c\": -1}}";
        assert_eq!(read_text(pytrec).unwrap(), lines);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        for (text, expected) in [
            ("{\"qid\": 1, \"docid\": 2}", "qrels:1: score is missing, expected one of score"),
            ("{\"qid\": 1, \"score\": 2}", "qrels:1: corpus-id is missing, expected one of"),
            ("{\"qid\": true, \"docid\": 2, \"rel\": 1}", "qrels:1: qid is true, expected a"),
            ("{\"qid\": 1, \"docid\": 2, \"rel\": 0.5}", "qrels:1: rel is 0.5, expected an int"),
            ("{\"1\": {\"a\": \"x\"}}", "qrels:1: a is \"x\", expected an integer as the grade"),
            ("{\"1\": 5}", "qrels:1: 1 is a number, expected a judgement with query-id"),
            ("1 0 a", "qrels:1: has 3 columns, expected `query 0 passage grade`"),
            ("1 0 a 1\n1 0 b high", "qrels:2: the grade is \"high\", expected an integer"),
            ("1 0 a 1\n1 0 a 0", "qrels:2: passage \"a\" is judged twice for query \"1\""),
            ("1\t\t1", "qrels:1: query or passage is empty"),
            ("query-id\tcorpus-id\tscore\n", "qrels: there are no judgements"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
