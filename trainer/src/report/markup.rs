//! Escapes text for HTML and formats numbers for the page.

/// Escapes all characters of `text` that have a meaning in HTML, for content and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 16);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // HTML does not allow other control characters, not even as references.
            '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Formats a signed difference with a typographic minus sign.
pub(super) fn signed(difference: f64) -> String {
    format!("{difference:+.3}").replace('-', "−")
}

/// Formats a number with about three significant digits.
pub(super) fn compact(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        "–".to_owned()
    } else if size == 0.0 {
        "0".to_owned()
    } else if size < 1e-3 {
        format!("{number:.1e}").replace('-', "−")
    } else if size < 10.0 {
        format!("{number:.3}").replace('-', "−")
    } else if size < 1000.0 {
        format!("{number:.1}").replace('-', "−")
    } else {
        format!("{number:.0}").replace('-', "−")
    }
}

/// Formats seconds as `42 s`, `3 min 05 s` or `1 h 02 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.0} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}
