//! An audit as text.

use std::fmt::Write as _;

use super::super::table::aligned;
use super::ceiling::Ceiling;
use super::file::Audit;

/// Returns two tables: the classes of each set with the ceiling, and for each retriever the share of questions with an
/// answer among the first passages.
pub fn audit_table(audit: &Audit) -> String {
    let depth = audit.depth;
    let has_retrievers = !audit.retrievers.is_empty();
    let mut header = vec!["set".to_owned(), "questions".to_owned(), "in no passage".to_owned()];
    if has_retrievers {
        header.extend([format!("not in first {depth}"), format!("in first {depth}")]);
    }
    header.extend(["EM ceiling".to_owned(), "95 % interval".to_owned()]);
    let (mut classes, mut ranks) = (vec![header], Vec::new());
    let mut notes = String::new();
    for set in &audit.sets {
        let ceiling = Ceiling::of_set(audit, set);
        let share = |count: usize| format!("{:.3}", count as f64 / ceiling.questions as f64);
        let mut cells = vec![set.name.clone(), ceiling.questions.to_string()];
        let absent = ceiling.questions - ceiling.in_corpus;
        cells.push(format!("{absent} ({})", share(absent)));
        if has_retrievers {
            let within = ceiling.in_corpus.saturating_sub(ceiling.beyond);
            for count in [ceiling.beyond, within] {
                cells.push(format!("{count} ({})", share(count)));
            }
        }
        let interval = ceiling.share().interval();
        cells.push(share(ceiling.in_corpus));
        cells.push(format!("{:.3} to {:.3}", interval.low, interval.high));
        classes.push(cells);
        for retriever in &ceiling.retrievers {
            if ranks.is_empty() {
                let cutoffs = retriever.within.iter().map(|(k, _)| format!("first {k}"));
                ranks.push(
                    ["set".to_owned(), "back end".to_owned()].into_iter().chain(cutoffs).collect(),
                );
            }
            let shares = retriever.within.iter().map(|(_, count)| share(*count));
            ranks.push(
                [set.name.clone(), retriever.name.clone()].into_iter().chain(shares).collect(),
            );
            if retriever.not_in_corpus > 0 {
                let _ = writeln!(
                    notes,
                    "{}, {}: {} questions have an answer in a returned passage and in none of the corpus: it \
                     serves another corpus",
                    set.name, retriever.name, retriever.not_in_corpus
                );
            }
        }
    }
    let mut text = aligned(&classes, 1);
    if has_retrievers {
        let _ =
            write!(text, "\nshare of questions with an accepted answer among the first passages\n");
        text.push_str(&aligned(&ranks, 2));
    }
    text + &notes
}
