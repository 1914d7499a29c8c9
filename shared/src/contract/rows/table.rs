//! Tables of text: columns with tabs or commas between them.
//!
//! A first line of names tells the columns, as in DPR's `psgs_w100.tsv` (`id text title`); then a field may stand in
//! quotes, as Python's `csv` writes it. A table without names, such as MS MARCO's `collection.tsv`, has tabs, no quotes,
//! and the columns that the caller says.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::NumberedRow;
use super::fault::{Place, RowFault, RowsError};
use super::kind;
use super::source::TextReader;
use crate::contract::jsonl::{JsonlReader, LINE_LIMIT_BYTES, LineFault};

/// Returns the columns of a table without names, by the fields of its first line; `None` if it is no such table.
pub type Headerless = fn(&[&str]) -> Option<Layout>;

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The names of the columns.
    pub names: Vec<String>,
    /// `true` if fields may stand in quotes.
    pub is_quoted: bool,
}

impl Layout {
    /// Makes a layout of these columns.
    pub fn new(names: &[&str], is_quoted: bool) -> Self {
        Self { names: names.iter().map(|&name| name.to_owned()).collect(), is_quoted }
    }
}

/// The tables of passages without names: MS MARCO's passages and documents, and DPR's without its first line.
pub fn passage_columns(fields: &[&str]) -> Option<Layout> {
    match fields {
        [id, _] if is_id(id) => Some(Layout::new(&["id", "contents"], false)),
        [id, _, _] if is_id(id) => Some(Layout::new(&["id", "text", "title"], true)),
        [id, _, _, _] if is_id(id) => Some(Layout::new(&["id", "url", "title", "text"], false)),
        _ => None,
    }
}

/// The tables of questions without names: MS MARCO's and TREC's `id question`, DPR's `question ['answer', …]`.
pub fn question_columns(fields: &[&str]) -> Option<Layout> {
    match fields {
        [_, answers] if list_in_text(&unquoted(answers)).is_some() => {
            Some(Layout::new(&["question", "answers"], true))
        }
        [id, _] if is_id(id) => Some(Layout::new(&["id", "question"], false)),
        _ => None,
    }
}

fn is_id(field: &str) -> bool {
    !field.is_empty() && !field.contains(char::is_whitespace)
}

/// Names of columns by which a first line of names is known.
const KNOWN_NAMES: [&str; 29] = [
    "id",
    "_id",
    "docid",
    "doc_id",
    "doc-id",
    "docno",
    "pid",
    "passage_id",
    "document_id",
    "corpus_id",
    "corpus-id",
    "qid",
    "query_id",
    "query-id",
    "title",
    "text",
    "contents",
    "content",
    "passage",
    "document",
    "body",
    "url",
    "question",
    "query",
    "answer",
    "answers",
    "golden_answers",
    "possible_answers",
    "label",
];

/// The most lines of a row with line breaks in quotes.
const QUOTED_LINES_LIMIT: u32 = 1000;

/// A reader of the rows of a table.
#[derive(Debug)]
pub(super) struct TableReader {
    lines: JsonlReader<TextReader>,
    path: PathBuf,
    layout: Layout,
    delimiter: char,
    /// The next line, if it was read ahead.
    waiting: Option<(u64, String)>,
}

impl TableReader {
    pub(super) fn open(
        text: TextReader,
        path: &Path,
        headerless: Headerless,
    ) -> Result<Self, RowsError> {
        let mut lines = JsonlReader::new(text, path);
        let Some(line) = lines.next_line()? else {
            return Err(RowsError::file(path, RowFault::NotRows("blank".to_owned())));
        };
        let (number, first) = (line.number, line.text.to_owned());
        let path = path.to_owned();
        for delimiter in ['\t', ','] {
            let fields: Vec<&str> = first.split(delimiter).collect();
            if let Some(names) = header(&fields) {
                let layout = Layout { names, is_quoted: true };
                return Ok(Self { lines, path, layout, delimiter, waiting: None });
            }
        }
        let fields: Vec<&str> = first.split('\t').collect();
        let Some(layout) = headerless(&fields).filter(|_| fields.len() > 1) else {
            // The name of a text in the error needs more than its first line.
            let mut head = first;
            while let Ok(Some(line)) = lines.next_line() {
                head = head + "\n" + line.text;
                if line.number > 50 {
                    break;
                }
            }
            return Err(RowsError::file(&path, RowFault::NotRows(kind::text(&head))));
        };
        Ok(Self { lines, path, layout, delimiter: '\t', waiting: Some((number, first)) })
    }

    /// Reads the next row.
    pub(super) fn next_row(&mut self) -> Result<NumberedRow, RowsError> {
        let Some((number, mut text)) = self.next_line()? else { return Ok(None) };
        let expected = self.layout.names.len();
        let mut fields = self.fields(&text);
        // A line break within quotes: the row goes on, unless the next line is a row by itself.
        for _ in 0..QUOTED_LINES_LIMIT {
            let is_open = fields.len() <= expected && fields.iter().any(|field| is_open(field));
            if !self.layout.is_quoted || !is_open {
                break;
            }
            self.peek_line()?;
            let Some((_, next)) = &self.waiting else { break };
            if self.delimiter == '\t' && self.fields(next).len() == expected {
                break;
            }
            if text.len() + next.len() > LINE_LIMIT_BYTES {
                return Err(RowsError::at(&self.path, Place::Line(number), LineFault::TooLong));
            }
            text.push('\n');
            text.push_str(next);
            self.waiting = None;
            fields = self.fields(&text);
        }
        if fields.iter().any(|field| self.delimiter == ',' && is_open(field)) {
            let reason = "has a quote that is not closed".to_owned();
            return Err(RowsError::at(&self.path, Place::Line(number), RowFault::Record(reason)));
        }
        if fields.len() != expected {
            let names = self.layout.names.join(", ");
            let reason = format!("has {} columns, expected {expected} ({names})", fields.len());
            let fault = RowFault::Record(reason);
            return Err(RowsError::at(&self.path, Place::Line(number), fault));
        }
        let named = self.layout.names.iter().zip(fields);
        let fields = named.map(|(name, field)| (name.clone(), self.value(name, &field))).collect();
        Ok(Some((number, fields)))
    }

    /// Takes the next line that is not blank.
    fn next_line(&mut self) -> Result<Option<(u64, String)>, RowsError> {
        while self.peek_line()?.is_some() {
            match self.waiting.take() {
                Some((_, text)) if text.trim().is_empty() => {}
                line => return Ok(line),
            }
        }
        Ok(None)
    }

    /// Returns the next line, which the next call returns again.
    fn peek_line(&mut self) -> Result<Option<&(u64, String)>, RowsError> {
        if self.waiting.is_none() {
            let line = self.lines.next_line_or_blank()?;
            self.waiting = line.map(|line| (line.number, line.text.to_owned()));
        }
        Ok(self.waiting.as_ref())
    }

    /// Splits a row into its fields. With commas, a comma in quotes does not separate; with tabs, every tab does.
    fn fields(&self, text: &str) -> Vec<String> {
        let mut fields: Vec<String> = Vec::new();
        for piece in text.split(self.delimiter) {
            match fields.last_mut() {
                Some(last) if self.delimiter == ',' && is_open(last) => {
                    last.push(',');
                    last.push_str(piece);
                }
                _ => fields.push(piece.to_owned()),
            }
        }
        fields
    }

    fn value(&self, name: &str, field: &str) -> Value {
        if !self.layout.is_quoted {
            return Value::String(field.to_owned());
        }
        let field = unquoted(field);
        let listed = name.contains("answer").then(|| list_in_text(&field)).flatten();
        listed.unwrap_or(Value::String(field))
    }
}

/// Returns the names in a first line, or `None` if it is a row.
fn header(fields: &[&str]) -> Option<Vec<String>> {
    let mut count = 0;
    let names: Vec<String> = fields
        .iter()
        .map(|field| {
            let name = unquoted(field).trim().to_owned();
            let lower = name.to_ascii_lowercase();
            let is_known = KNOWN_NAMES.contains(&lower.as_str());
            count += usize::from(is_known);
            if is_known { lower } else { name }
        })
        .collect();
    // pandas calls the column of its index "Unnamed: 0", or leaves the name empty.
    let is_name = |name: &String| {
        let is_word = |text: &str| {
            text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.#".contains(letter))
        };
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        (is_word(name) && !is_number) || name.starts_with("Unnamed:")
    };
    let is_header = names.len() > 1 && (count > 1 || (count == 1 && names.len() == 2));
    (is_header && names.iter().all(is_name)).then_some(names)
}

/// Returns `true` if a field begins with a quote that does not end in it.
fn is_open(field: &str) -> bool {
    field.starts_with('"') && field.matches('"').count() % 2 == 1
}

/// Returns a field without quotes around it, as Python's `csv` reads it. A field in which the quotes are part of the text
/// (`"Heroes" is a song`) stays as it is.
fn unquoted(field: &str) -> String {
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.replace("\"\"", "").contains('"') => inner.replace("\"\"", "\""),
        _ => field.to_owned(),
    }
}

/// Parses a list of texts or numbers as JSON or Python writes it.
pub fn list_in_text(text: &str) -> Option<Value> {
    let text = text.trim();
    if !(text.starts_with('[') && text.ends_with(']')) {
        return None;
    }
    if let Ok(value @ Value::Array(_)) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut rest = text[1..text.len() - 1].trim();
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, after) = python_literal(rest)?;
        items.push(item);
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(Value::Array(items))
}

/// Parses the text or number at the start of `text` and returns what follows it.
fn python_literal(text: &str) -> Option<(Value, &str)> {
    let quote = text.chars().next()?;
    if quote != '\'' && quote != '"' {
        let end = text.find(',').unwrap_or(text.len());
        let number: serde_json::Number = serde_json::from_str(text[..end].trim()).ok()?;
        return Some((Value::Number(number), &text[end..]));
    }
    let mut literal = String::new();
    let mut letters = text[1..].char_indices();
    while let Some((index, letter)) = letters.next() {
        match letter {
            _ if letter == quote => return Some((Value::String(literal), &text[index + 2..])),
            '\\' => {
                let (_, escaped) = letters.next()?;
                let digits = match escaped {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                let code: String =
                    (0..digits).map_while(|_| letters.next().map(|(_, digit)| digit)).collect();
                match escaped {
                    'n' => literal.push('\n'),
                    't' => literal.push('\t'),
                    'r' => literal.push('\r'),
                    'x' | 'u' | 'U' => {
                        let code = u32::from_str_radix(&code, 16).ok()?;
                        literal.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    '\\' | '\'' | '"' => literal.push(escaped),
                    other => literal.extend(['\\', other]),
                }
            }
            other => literal.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_python_and_json_are_read() {
        for (text, expected) in [
            (r#"['Wilhelm Conrad Röntgen', "d'Or"]"#, r#"["Wilhelm Conrad Röntgen","d'Or"]"#),
            (r"['it\'s', 'a\u00e9\\', 7, ]", r#"["it's","aé\\",7]"#),
            (r#"["a, b", "c"]"#, r#"["a, b","c"]"#),
            ("[]", "[]"),
        ] {
            assert_eq!(list_in_text(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["['a' 'b']", "['a", "a", "[a]", "[", ""] {
            assert_eq!(list_in_text(text), None, "{text}");
        }
    }

    #[test]
    fn quotes_are_taken_off_only_where_they_enclose_the_field() {
        for (field, expected) in [
            (r#""Aaron ( or ; ""Ahärôn"") is""#, r#"Aaron ( or ; "Ahärôn") is"#),
            (r#""Heroes" is a song"#, r#""Heroes" is a song"#),
            (r#""Heroes" and "Low""#, r#""Heroes" and "Low""#),
            ("plain", "plain"),
            ("\"", "\""),
            ("\"\"", ""),
        ] {
            assert_eq!(unquoted(field), expected);
        }
    }

    #[test]
    fn a_line_of_names_is_known_by_them() {
        let names = |line: &str| {
            let fields: Vec<&str> = line.split(['\t', ',']).collect();
            header(&fields).map(|names| names.join(" "))
        };
        for (line, expected) in [
            ("id\ttext\ttitle", "id text title"),
            (
                "Unnamed: 0,ID,Title,Text,date,author,section",
                "Unnamed: 0 id title text date author section",
            ),
            ("\"question\"\t\"gold\"", "question gold"),
        ] {
            assert_eq!(names(line).as_deref(), Some(expected));
        }
        for line in
            ["7\tpassage", "1\tx\ttitle", "import title, text", "id", "a\tb", "id\tWhat is it?"]
        {
            assert_eq!(names(line), None, "{line}");
        }
    }
}
