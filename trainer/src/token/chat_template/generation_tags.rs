//! The tags `{% generation %}` and `{% endgeneration %}`, with which templates mark the assistant's text.
//! Jinja does not know them. The Python library renders the text between them in its own scope; beyond
//! that, they only matter if a mask is requested.

/// Replaces every such pair by a scope and keeps the marks for white space.
pub(super) fn replace(source: &str) -> String {
    let mut rest = source;
    let mut replaced = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        // A comment may contain tags, which are not replaced.
        let comment = rest.find("{#").filter(|&comment| comment < start);
        let (opened, closing) = match comment {
            Some(comment) => (comment, "#}"),
            None => (start, "%}"),
        };
        let Some(length) = rest[opened + 2..].find(closing) else { break };
        let inner = &rest[opened + 2..opened + 2 + length];
        replaced.push_str(&rest[..opened + 2]);
        let name = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        match name.trim() {
            "generation" if comment.is_none() => replaced.push_str(&renamed(inner, "with")),
            "endgeneration" if comment.is_none() => replaced.push_str(&renamed(inner, "endwith")),
            _ => replaced.push_str(inner),
        }
        replaced.push_str(closing);
        rest = &rest[opened + 2 + length + closing.len()..];
    }
    replaced.push_str(rest);
    replaced
}

/// Returns the inside of a tag with another name and the same marks.
fn renamed(inner: &str, name: &str) -> String {
    let mark = |letter: Option<char>| letter.filter(|mark| ['-', '+'].contains(mark));
    let (first, last) = (mark(inner.chars().next()), mark(inner.chars().next_back()));
    let mut tag = String::new();
    tag.extend(first);
    tag.extend([" ", name, " "]);
    tag.extend(last);
    tag
}
