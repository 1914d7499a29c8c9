//! The words of SQL for a collection, and what the versions of pgvector differ in.

use shared::contract::passage::Passage;

/// The most components that the graph's index takes, by the type of its vectors.
const MAX_HALVES: usize = 4000;
const MAX_FLOATS: usize = 2000;

/// The version of the extension: the first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
    }

    /// Returns `true` if there are vectors of halves.
    pub(super) fn has_halves(self) -> bool {
        self >= Self(0, 7)
    }

    /// Returns `true` if a search goes on along the graph until it has enough rows.
    pub(super) fn scans_on(self) -> bool {
        self >= Self(0, 8)
    }
}

/// Returns the statement of a search: candidates along the index, then the best of them by exact vectors.
pub(super) fn search(table: &str, version: Version, dimension: usize) -> String {
    let fields = "id, contents, title, \"text\", url";
    let (column, query) = match graph_column(version, dimension) {
        Some(column) if column.contains("halfvec") => {
            let half = format!("halfvec({dimension})");
            (format!("vector::{half}"), format!("$1::vector::{half}"))
        }
        _ => ("vector".to_owned(), "$1::vector".to_owned()),
    };
    format!(
        "SELECT {fields}, score FROM (SELECT {fields}, -(vector <#> $1::vector) AS score FROM {table} \
         ORDER BY {column} <#> {query} LIMIT $2) AS nearest ORDER BY score DESC, id LIMIT $3"
    )
}

/// Returns the column of the graph's index with its operators; `None` if no index takes so many components.
pub(super) fn graph_column(version: Version, dimension: usize) -> Option<String> {
    if version.has_halves() && dimension <= MAX_HALVES {
        Some(format!("(vector::halfvec({dimension})) halfvec_ip_ops"))
    } else if dimension <= MAX_FLOATS {
        Some("vector vector_ip_ops".to_owned())
    } else {
        None
    }
}

/// Returns a name as SQL writes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn has_nul(passage: &Passage) -> bool {
    let Passage { id, contents, title, text, url } = passage;
    let optional = [title, text, url].into_iter().flatten();
    [id, contents].into_iter().chain(optional).any(|text| text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(Version::parse("0.10.0") > Version::parse("0.8.2"));
        assert_eq!(Version::parse("0.6.2").map(Version::has_halves), Some(false));
        assert_eq!(Version::parse("0.7").map(Version::has_halves), Some(true));
        assert_eq!(Version::parse("x"), None);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("wiki-18"), "\"wiki-18\"");
        assert_eq!(quoted("a\"; DROP TABLE b"), "\"a\"\"; DROP TABLE b\"");
    }

    #[test]
    fn the_index_takes_halves_where_there_are_any() {
        let halves = Some("(vector::halfvec(3000)) halfvec_ip_ops".to_owned());
        assert_eq!(graph_column(Version(0, 8), 3000), halves);
        assert_eq!(graph_column(Version(0, 6), 3000), None);
        assert_eq!(graph_column(Version(0, 6), 768), Some("vector vector_ip_ops".to_owned()));
        assert_eq!(graph_column(Version(0, 8), 5000), None);
    }
}
