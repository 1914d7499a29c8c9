//! Expressions and templates compared with jinja2's recorded output, and limits.

use serde::Deserialize;

use super::{Dict, JinjaError, Template, Value};
use crate::golden;

#[derive(Deserialize)]
struct Recording {
    context: Value,
    /// A template with its text; none where jinja2 fails.
    rows: Vec<(String, Option<String>)>,
}

/// Templates that jinja2 renders and this module refuses by name.
const REFUSED: [&str; 14] = [
    r#"{{ "abc".encode() }}"#,
    "{{ dict.items }}",
    r#"{{ messages | map("upper") }}"#,
    r#"{{ list | map("string") }}"#,
    "{{ list | reverse }}",
    r#"{{ text | attr("upper") }}"#,
    "{{ [1, 2, 3] | random is defined }}",
    "{{ text | wordwrap(5) }}",
    "{{ [1] | pprint }}",
    r#"{{ "<p>x</p>" | striptags }}"#,
    "{% block a %}x{% endblock %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{{ self }}",
    r#"{{ "\N{BULLET}" }}"#,
];

/// Answers for the day of the recording.
fn clock(format: &str) -> Result<String, String> {
    match format {
        "%d %b %Y" => Ok("09 Mar 2025".to_owned()),
        "%Y-%m-%d" => Ok("2025-03-09".to_owned()),
        "%A, %B %-d" => Ok("Sunday, March 9".to_owned()),
        _ => Err(format!("the format {format}")),
    }
}

fn render(source: &str, context: &Value) -> Result<String, JinjaError> {
    let Value::Dict(names) = context else { panic!("the context is an object") };
    Template::new(source)?.render((**names).clone(), &clock)
}

#[test]
fn recorded_expressions_are_rendered_to_the_byte() {
    let recording: Recording = golden::read("template-expressions.json");
    let (mut offences, mut refused, mut failures) = (Vec::new(), 0, 0);
    for (source, expected) in &recording.rows {
        match (render(source, &recording.context), expected) {
            (Ok(text), Some(expected)) if text == *expected => {}
            (Err(JinjaError::Unsupported(_)), Some(_)) if REFUSED.contains(&source.as_str()) => {
                refused += 1;
            }
            (Err(_), None) => failures += 1,
            (result, expected) => {
                offences.push(format!("{source}\n  expected {expected:?}\n  got      {result:?}"));
            }
        }
    }
    assert!(offences.is_empty(), "{} differ:\n{}", offences.len(), offences.join("\n"));
    assert_eq!(refused, REFUSED.len());
    assert!(recording.rows.len() > 1000 && failures > 140, "{failures} failures");
}

#[track_caller]
fn check_refused(source: &str, part: &str) {
    let error = render(source, &Value::from(Dict::default())).unwrap_err();
    assert!(error.to_string().contains(part), "{part:?} is not in {error}");
}

#[test]
fn a_template_without_end_is_refused() {
    check_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "levels of calls");
    check_refused("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "levels of calls");
    check_refused(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)), "nesting");
    check_refused(&format!("{{{{ 1{} }}}}", " + 1".repeat(5000)), "in a row");
    check_refused(&format!("{}x", "{% if 1 %}".repeat(5000)), "nesting");
    check_refused("{{ 'x' * 10000000000 }}", "10000000000 bytes");
    check_refused("{{ [1] * 10000000000 }}", "10000000000 bytes");
    check_refused("{{ '%999999999d' % 1 }}", "width");
    check_refused("{{ 9 ** 999 }}", "128 bits");
    let nested = "{% for a in range(99999) %}".repeat(3) + "x" + &"{% endfor %}".repeat(3);
    check_refused(&nested, "steps");
}

#[test]
fn errors_name_their_line() {
    check_refused("a\n{{ 1 +\n}}", "(line 3)");
    check_refused("a\n\n{{ missing.part }}", "'missing' is undefined (line 3)");
    check_refused(
        "a\n{% if yes is none %}\n{{ [].x.y }}{% else %}{{ none.x.y }}{% endif %}",
        "(line 3)",
    );
    check_refused("\n{{ 'a' | nothing }}", "no filter named 'nothing' (line 2)");
    check_refused("\n{% for x in 5 %}{% endfor %}", "'int' object is not iterable (line 2)");
}
