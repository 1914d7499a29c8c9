//! Evaluations as a plain-text table.

use super::result::EvalResult;

/// Position of the ceiling, behind exact match and its interval.
const CEILING_COLUMN: usize = 5;

/// Returns a table with one line per evaluation: EM with its 95 % interval and the ceiling of the corpus, F1, searches,
/// answers given. The ceiling has a column if one of the evaluations has it.
pub fn summary_table(results: &[&EvalResult]) -> String {
    let header =
        ["model", "passages", "questions", "EM", "95 % interval", "F1", "searches", "answered"];
    let mut header = header.map(str::to_owned).to_vec();
    let has_ceiling = results.iter().any(|result| result.ceiling.is_some());
    if has_ceiling {
        header.insert(CEILING_COLUMN, "ceiling".to_owned());
    }
    let mut rows = vec![header];
    for result in results {
        let interval = result.em().interval();
        let mut cells = vec![
            result.name.clone(),
            result.searches.as_str().to_owned(),
            result.rows.len().to_string(),
            format!("{:.3}", result.em().value()),
            format!("{:.3} to {:.3}", interval.low, interval.high),
            format!("{:.3}", result.f1().value),
            format!("{:.2}", result.searches_per_question()),
            format!("{:.3}", result.answered().value()),
        ];
        if has_ceiling {
            let ceiling = result.ceiling.as_ref().map(|ceiling| ceiling.share().value());
            cells.insert(
                CEILING_COLUMN,
                ceiling.map_or_else(|| "–".to_owned(), |share| format!("{share:.3}")),
            );
        }
        rows.push(cells);
    }
    aligned(&rows, 2)
}

/// Aligns rows in columns as wide as their widest cell. The first `left` columns are flush left, the others
/// flush right. The first row is the heading.
pub fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> =
        (0..columns).map(|column| width(column).expect("some row has this column")).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column < left {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if index == 0 {
            let rule: usize = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
            text.push_str(&"─".repeat(rule));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::result;
    use super::*;

    #[test]
    fn tables_line_up_and_show_the_interval() {
        let (before, after) = (result("warm start", 20, 200), result("after GRPO", 90, 200));
        let table = summary_table(&[&before, &after]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        let expected = "warm start  retriever        200  0.100  0.066 to 0.149  0.100      1.50     \
                        0.900";
        assert_eq!(lines[2], expected);
        let width = lines[1].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{table}");
    }

    #[test]
    fn the_ceiling_stands_beside_the_score_if_it_is_known() {
        let ceiling = super::super::audit::Ceiling {
            questions: 200,
            in_corpus: 150,
            beyond: 0,
            depth: 100,
            retrievers: Vec::new(),
        };
        let before = result("before", 20, 200);
        let after = super::super::EvalResult { ceiling: Some(ceiling), ..result("after", 90, 200) };
        let table = summary_table(&[&before, &after]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("95 % interval  ceiling"), "{table}");
        assert!(lines[2].contains("0.066 to 0.149        –  0.100"), "{table}");
        assert!(lines[3].contains("0.383 to 0.519    0.750  0.450"), "{table}");
    }

    #[test]
    fn an_empty_table_has_nothing_to_align() {
        assert_eq!(aligned(&[], 1), "");
    }
}
