//! The page of an evaluation of several sets.

use std::fmt::Write as _;

use super::markup::escape;
use super::page::STYLE;
use crate::eval::Suite;

const ROW_COLUMNS: [&str; 12] = [
    "Model",
    "Set",
    "Turns",
    "Questions",
    "EM",
    "95 % interval",
    "Contains",
    "F1",
    "Ceiling",
    "Searches",
    "In passages",
    "Finished",
];
const AVERAGE_COLUMNS: [&str; 11] = [
    "Model",
    "Turns",
    "Sets",
    "Questions",
    "Macro EM",
    "95 % interval",
    "Macro contains",
    "Macro F1",
    "Micro EM",
    "95 % interval",
    "Micro F1",
];

/// Returns the page, which needs no other file.
pub fn suite_page(suite: &Suite) -> String {
    let title = escape(&format!("Evaluation “{}”", suite.name));
    let decoding = if suite.temperature > 0.0 {
        format!("sampled at temperature {}", suite.temperature)
    } else {
        "greedy".to_owned()
    };
    let averages: Vec<Vec<String>> =
        suite.averages.iter().map(crate::eval::SuiteAverage::cells).collect();
    let rows: Vec<Vec<String>> = suite.rows.iter().map(crate::eval::SuiteRow::cells).collect();
    let mut html = format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport \
         content=\"width=device-width, initial-scale=1\"><meta name=color-scheme content=\"light dark\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><header><h1>{title}</h1>\
         <p class=lead>Decoding is {decoding}.</p></header>"
    );
    let _ = write!(
        html,
        "<section><h2>Averages over the sets</h2>{}</section><section><h2>Each set</h2>{}",
        table(&AVERAGE_COLUMNS, &averages, 1),
        table(&ROW_COLUMNS, &rows, 2)
    );
    for note in suite.rows.iter().filter_map(crate::eval::SuiteRow::note) {
        let _ = write!(html, "<p class=note>{}.</p>", escape(&note));
    }
    html.push_str(
        "<p class=note>EM: the answer equals a golden answer after normalisation. Contains: it contains one. \
         Turns: turns that may search, at most. Ceiling: questions with a golden answer in the corpus. In passages: \
         questions with a golden answer in a passage that the model saw. Finished: episodes that ended with an \
         answer. Intervals of one set are Wilson's.</p></section></main></body></html>\n",
    );
    html.replace("95 %", "95\u{a0}%")
}

/// Returns a table whose first `left` columns are text.
fn table(columns: &[&str], rows: &[Vec<String>], left: usize) -> String {
    let class = |column: usize| if column < left { "" } else { " class=n" };
    let mut html = String::from("<div class=scroll><table class=evals><thead><tr>");
    for (column, name) in columns.iter().enumerate() {
        let _ = write!(html, "<th scope=col{}>{name}", class(column));
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(html, "<td{}>{}", class(column), escape(cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::EvalResult;

    #[test]
    fn the_page_has_every_row_and_escapes_names() {
        let json = r#"{"name":"<b>","model":"m","searches":"retriever","questions":1,"seconds":1.0,"set":"nq",
            "max_turns":4,"rows":[{"example_id":"1","question":"q?","golden_answers":["Rome"],"prediction":"Rome",
            "em":true,"sub_em":true,"f1":1.0,"searches":2,"end":"answered","trajectory":null}]}"#;
        let result: EvalResult = serde_json::from_str(json).unwrap();
        let page = suite_page(&Suite::of("tes<t", 0.0, &[result]));
        for part in [
            "tes&lt;t",
            "<td>&lt;b&gt;<td>nq<td class=n>4<td class=n>1<td class=n>1.000",
            "Decoding is greedy",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(page.contains("nq: 1 of the 3610 questions"), "{page}");
    }
}
