//! The main text of a page in paragraphs. `dom_smoothie` finds it, as Firefox's reader view does.

use dom_smoothie::{Config, Readability, TextMode};

use super::fetch::Page;

/// Most elements of a page; a page with more is not taken apart.
const MAX_ELEMENTS: usize = 50_000;

/// Deepest nesting of elements; the time to take a page apart grows with its square. Browsers stop at 512.
const MAX_NESTING: usize = 400;

/// Elements that have no end tag, or often none: they do not nest.
const UNNESTED: [&str; 24] = [
    "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta",
    "option", "p", "param", "source", "tbody", "td", "th", "thead", "tr", "track", "wbr",
];

/// Shortest paragraph that stands alone; a shorter one, such as a heading, goes with the next.
const MIN_PARAGRAPH_BYTES: usize = 200;

/// Longest paragraph.
const MAX_PARAGRAPH_BYTES: usize = 1500;

/// Returns the paragraphs of a page; none if it has no main text.
pub(super) fn paragraphs(page: &Page) -> Vec<String> {
    if !page.is_html {
        return divided(&page.text);
    }
    if nesting(&page.text) > MAX_NESTING {
        return Vec::new();
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

/// Returns the deepest nesting of tags, as far as a look at the text without parsing tells.
fn nesting(html: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for tag in html.split('<').skip(1) {
        let (is_end, tag) = tag.strip_prefix('/').map_or((false, tag), |tag| (true, tag));
        let length = tag.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let name = tag[..length].to_ascii_lowercase();
        if name.is_empty() || UNNESTED.contains(&name.as_str()) {
            continue;
        }
        depth = if is_end { depth.saturating_sub(1) } else { depth + 1 };
        deepest = deepest.max(depth);
    }
    deepest
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
    fn deeply_nested_pages_are_not_taken_apart() {
        let page = |text: String| Page { url: "http://a.org/".to_owned(), text, is_html: true };
        let nested = |depth: usize| "<div>".repeat(depth) + &"word ".repeat(100) + "</div>";
        for text in [nested(20_000), "<b><p>text ".repeat(5_000), "<a x=\"<\">".repeat(10_000)] {
            assert!(paragraphs(&page(text)).is_empty());
        }
        assert!(!paragraphs(&page(nested(20))).is_empty());
        for text in ["<".repeat(10_000), "\0".repeat(1000), "<p>a<br>b".repeat(500), String::new()]
        {
            paragraphs(&page(text));
        }
    }

    #[test]
    fn elements_without_an_end_do_not_nest() {
        for (html, expected) in [
            ("<p>a<p>b<br><li>c<td>", 0),
            ("<DIV><b>a</b><i>b</i></DIV><div>", 2),
            ("a < b > c </div></div><div>", 1),
            ("<!-- <x> -->", 1),
            ("<\u{e9}>", 0),
        ] {
            assert_eq!(nesting(html), expected, "{html}");
        }
    }
}
