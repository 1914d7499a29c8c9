//! The part of a query that a provider takes. Models write longer queries than providers accept, and a
//! provider refuses such a query as a whole.

use std::borrow::Cow;

/// The longest query of a provider.
#[derive(Clone, Copy, Debug)]
pub struct QueryLimit {
    /// Characters.
    pub chars: usize,
    /// Words between white space.
    pub words: usize,
    /// Bytes of the query in a URL.
    pub url_bytes: usize,
}

impl QueryLimit {
    /// No limit but that of URLs, which many servers cut off at 8 KiB.
    pub const OF_URL: Self = Self { chars: 2048, words: usize::MAX, url_bytes: 6 * 1024 };

    /// Returns the first words of `query` that fit: at least a part of the first one.
    pub fn clip<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if self.fits(query) {
            return Cow::Borrowed(query);
        }
        let mut kept = String::new();
        for word in query.split_whitespace().take(self.words) {
            let longer = if kept.is_empty() { word.to_owned() } else { format!("{kept} {word}") };
            if !self.fits(&longer) {
                if kept.is_empty() {
                    kept = self.part_of(word);
                }
                break;
            }
            kept = longer;
        }
        Cow::Owned(kept)
    }

    fn fits(&self, text: &str) -> bool {
        text.chars().count() <= self.chars
            && text.split_whitespace().count() <= self.words
            && text.bytes().map(encoded_bytes).sum::<usize>() <= self.url_bytes
    }

    fn part_of(&self, word: &str) -> String {
        let mut part = String::new();
        let mut bytes = 0;
        for letter in word.chars().take(self.chars) {
            let mut buffer = [0; 4];
            bytes += letter.encode_utf8(&mut buffer).bytes().map(encoded_bytes).sum::<usize>();
            if bytes > self.url_bytes && !part.is_empty() {
                break;
            }
            part.push(letter);
        }
        part
    }
}

/// Returns the length of a byte in a URL.
fn encoded_bytes(byte: u8) -> usize {
    if byte.is_ascii_alphanumeric() || b"*-._ ".contains(&byte) { 1 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_clipped_after_a_word() {
        let limit = QueryLimit { chars: 10, words: 3, url_bytes: 30 };
        for (query, expected) in [
            ("who wrote", "who wrote"),
            ("who wrote it", "who wrote"),
            ("a b c d", "a b c"),
            ("incomprehensible word", "incomprehe"),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9} a", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"),
            ("\u{1f30a}\u{1f30a}\u{1f30a}", "\u{1f30a}\u{1f30a}"),
        ] {
            assert_eq!(limit.clip(query), expected, "{query}");
            assert!(limit.fits(&limit.clip(query)));
        }
    }
}
