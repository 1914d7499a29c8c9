//! Results of web search, the same for every provider, and the passages that they become.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::contract::passage::Passage;
use thiserror::Error;

/// Longest text of a result. Some providers return whole pages.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// Longest title of a result.
const MAX_TITLE_BYTES: usize = 512;

/// One result of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebResult {
    /// The title, on one line; may be empty.
    pub title: String,
    /// The address of the page, if there is one.
    pub url: Option<String>,
    /// What the page says about the query; may be empty.
    pub text: String,
}

/// The reason why a query has no results.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WebFault {
    /// There was no answer before the deadline.
    #[error("{0}")]
    Deadline(String),
    /// All providers failed, and one of them may answer later.
    #[error("{0}")]
    Upstream(String),
    /// All providers refused; a person must act.
    #[error("{0}")]
    Refused(String),
}

impl WebResult {
    /// Makes a result without surplus white space, cut to the longest title and text.
    pub fn new(title: &str, url: Option<&str>, text: &str) -> Self {
        let text: Vec<String> =
            text.lines().map(one_line).filter(|line| !line.is_empty()).collect();
        Self {
            title: cut(one_line(title), MAX_TITLE_BYTES),
            url: url.map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned),
            text: cut(text.join("\n"), MAX_TEXT_BYTES),
        }
    }

    /// Turns the result into a passage with the title in the first line, as in Search-R1's corpora. Its identifier
    /// is its address, or `fallback_id` without one.
    pub fn into_passage(self, fallback_id: &str) -> Passage {
        let Self { title, url, text } = self;
        let heading = match (&title, &url) {
            (title, _) if !title.is_empty() => title.as_str(),
            (_, Some(url)) => host(url),
            _ => "",
        };
        let contents = match (heading, text.as_str()) {
            ("", text) => text.to_owned(),
            (heading, "") => format!("\"{heading}\""),
            (heading, text) => format!("\"{heading}\"\n{text}"),
        };
        Passage {
            id: url.clone().unwrap_or_else(|| fallback_id.to_owned()),
            contents,
            title: Some(title).filter(|title| !title.is_empty()),
            text: Some(text).filter(|text| !text.is_empty()),
            url,
        }
    }

    fn says_nothing(&self) -> bool {
        self.title.is_empty() && self.text.is_empty()
    }
}

/// Leaves out results that say nothing, and joins those of one page at the first one's rank.
pub fn distinct(results: Vec<WebResult>) -> Vec<WebResult> {
    let mut ranks: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<WebResult> = Vec::with_capacity(results.len());
    for result in results.into_iter().filter(|result| !result.says_nothing()) {
        let known = result.url.as_deref().map(page);
        if let Some(&rank) = known.as_ref().and_then(|page| ranks.get(page)) {
            join(&mut kept[rank], &result);
        } else {
            if let Some(page) = known {
                ranks.insert(page, kept.len());
            }
            kept.push(result);
        }
    }
    kept
}

/// Returns an address without the parts that do not name another page.
fn page(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let bare = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    bare.trim_end_matches('/').to_owned()
}

fn join(first: &mut WebResult, other: &WebResult) {
    if first.title.is_empty() {
        first.title.clone_from(&other.title);
    }
    if !first.text.contains(&other.text) {
        let both = format!("{}\n{}", first.text, other.text);
        first.text = cut(both.trim().to_owned(), MAX_TEXT_BYTES);
    }
}

fn host(url: &str) -> &str {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.split(['/', '?', '#']).next().unwrap_or(bare)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(title: &str, url: Option<&str>, text: &str) -> (String, String) {
        let passage = WebResult::new(title, url, text).into_passage("serper:1");
        (passage.id, passage.contents)
    }

    #[test]
    fn a_result_becomes_a_passage_with_a_title_line() {
        let url = Some("https://example.org/lima?a=1");
        for (title, url, text, expected) in [
            ("Lima ", url, " A\u{a0}city.\n\n In  Peru.", "\"Lima\"\nA city.\nIn Peru."),
            ("", url, "A city.", "\"example.org\"\nA city."),
            ("Lima", url, "", "\"Lima\""),
            ("", None, "A city.", "A city."),
        ] {
            let id = url.unwrap_or("serper:1").to_owned();
            assert_eq!(contents(title, url, text), (id, expected.to_owned()));
        }
    }

    #[test]
    fn texts_are_bounded_and_cut_after_a_character() {
        let long = WebResult::new(&"\u{e9}".repeat(5000), None, &"\u{1f30a}".repeat(50_000));
        assert_eq!((long.title.len(), long.text.len()), (MAX_TITLE_BYTES, MAX_TEXT_BYTES));
    }

    #[test]
    fn results_of_one_page_are_joined_at_the_first_rank() {
        let result = |title: &str, url: &str, text: &str| WebResult::new(title, Some(url), text);
        let joined = distinct(vec![
            result("a", "https://x.org/a", "one"),
            result("b", "https://x.org/b", "two"),
            result("a", "http://x.org/a/#part", "three"),
            result("b", "https://x.org/b", "two"),
            WebResult::new("", None, ""),
            WebResult::new("no address", None, ""),
            WebResult::new("no address", None, ""),
        ]);
        let texts: Vec<_> = joined.iter().map(|result| result.text.as_str()).collect();
        assert_eq!(texts, ["one\nthree", "two", "", ""]);
    }
}
