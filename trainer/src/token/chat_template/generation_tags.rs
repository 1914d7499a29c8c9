//! `{% generation %}` and `{% endgeneration %}`, with which templates mark what an assistant said.
//! The Python library renders what is between them in a scope of its own and nothing else, unless it
//! is asked for a mask; Jinja knows no such tag.

/// `source` with every such pair turned into a scope, marks of white space kept.
pub(super) fn replace(source: &str) -> String {
    let mut rest = source;
    let mut replaced = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        // A comment may hold anything.
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

/// `inner` of a tag with another name and the same marks.
fn renamed(inner: &str, name: &str) -> String {
    let mark = |found: Option<char>| found.filter(|mark| ['-', '+'].contains(mark));
    let (first, last) = (mark(inner.chars().next()), mark(inner.chars().next_back()));
    let mut tag = String::new();
    tag.extend(first);
    tag.extend([" ", name, " "]);
    tag.extend(last);
    tag
}
