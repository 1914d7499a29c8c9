//! docs/compatibility.md: each of its rows names the tests that hold it, and these exist.

use std::collections::HashSet;

use super::tidy::{expect_none, has_extension, sources};

const PAGE: &str = "docs/compatibility.md";
/// Fewer rows mean that the table was not recognised.
const ROWS_MIN: usize = 60;

#[test]
fn each_row_names_tests_that_exist() {
    let sources = sources();
    let functions: HashSet<&str> = sources
        .iter()
        .filter(|(path, _)| has_extension(path, "rs"))
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    let paths: HashSet<&str> = sources.iter().map(|(path, _)| path.as_str()).collect();
    let (_, page) = sources.iter().find(|(path, _)| path == PAGE).unwrap();

    let mut rows = 0;
    let mut offences = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let Some(row) = line.strip_prefix("| ").filter(|row| !row.starts_with("what is held"))
        else {
            continue;
        };
        rows += 1;
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            offences.push(format!("{PAGE}:{}: the row names no test", index + 1));
        }
        for name in names {
            if !functions.contains(name) && !paths.contains(name) {
                offences.push(format!("{PAGE}:{}: no test or script {name}", index + 1));
            }
        }
    }
    expect_none(&offences);
    assert!(rows >= ROWS_MIN, "{rows} rows in {PAGE}");
}
