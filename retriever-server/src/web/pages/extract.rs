//! The main text of a page in paragraphs. `dom_smoothie` finds it, as Firefox's reader view does.

use dom_smoothie::{Config, Readability, TextMode};

use super::fetch::Page;

/// Most elements of a page; a page with more is not taken apart.
const MAX_ELEMENTS: usize = 50_000;

/// Shortest paragraph that stands alone; a shorter one, such as a heading, goes with the next.
const MIN_PARAGRAPH_BYTES: usize = 200;

/// Longest paragraph.
const MAX_PARAGRAPH_BYTES: usize = 1500;

/// Returns the paragraphs of a page; none if it has no main text.
pub(super) fn paragraphs(page: &Page) -> Vec<String> {
    if !page.is_html {
        return divided(&page.text);
    }
    let config = Config {
        max_elements_to_parse: MAX_ELEMENTS,
        text_mode: TextMode::Formatted,
        ..Config::default()
    };
    let parsed = Readability::new(page.text.as_str(), Some(&page.url), Some(config))
        .and_then(|mut readability| readability.parse());
    parsed.map(|article| divided(&article.text_content)).unwrap_or_default()
}

/// Divides a text at its line breaks into paragraphs that are neither too short nor too long.
fn divided(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut current = String::new();
    let mut words_of_line = |line: &str, current: &mut String| {
        for word in line.split_whitespace() {
            if current.len() + word.len() > MAX_PARAGRAPH_BYTES && !current.is_empty() {
                paragraphs.push(std::mem::take(current));
            }
            if !current.is_empty() && !current.ends_with('\n') {
                current.push(' ');
            }
            current.push_str(word);
        }
        if current.len() >= MIN_PARAGRAPH_BYTES {
            paragraphs.push(std::mem::take(current));
        } else if !current.is_empty() && !current.ends_with('\n') {
            current.push('\n');
        }
    };
    for line in text.lines() {
        words_of_line(line, &mut current);
    }
    let rest = current.trim_end();
    if !rest.is_empty() {
        paragraphs.push(rest.to_owned());
    }
    paragraphs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_join_their_paragraph_and_long_ones_are_divided() {
        let long = "word ".repeat(500);
        let text = format!("Heading\n\nShort.\n{}\n{long}\nEnd", "a b ".repeat(60));
        let paragraphs = divided(&text);
        assert!(paragraphs[0].starts_with("Heading\nShort.\na b a b"), "{paragraphs:?}");
        assert!(paragraphs.iter().all(|paragraph| paragraph.len() <= MAX_PARAGRAPH_BYTES));
        assert_eq!(paragraphs.last().unwrap(), "End");
        assert_eq!(paragraphs.len(), 4);
    }

    #[test]
    fn hostile_pages_end() {
        let page = |text: String| Page { url: "http://a.org/".to_owned(), text, is_html: true };
        let nested = "<div>".repeat(20_000) + "text";
        let bold = "<b><p>".repeat(5_000);
        for text in [nested, bold, "<".repeat(100_000), "\0".repeat(1000), String::new()] {
            paragraphs(&page(text));
        }
    }
}
