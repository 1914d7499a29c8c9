//! Templates compared with the Python library's recorded output, and days.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ChatDate, ChatMessage, ChatTemplate};
use crate::golden;

#[derive(Deserialize)]
struct Recording {
    today: String,
    tokens: BTreeMap<String, String>,
    templates: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<ChatMessage>,
    text: Option<String>,
    error: Option<String>,
}

#[test]
fn recorded_templates_are_rendered_to_the_byte() {
    let recording: Recording = golden::read("chat-templates.json");
    let today: ChatDate = recording.today.parse().unwrap();
    let compiled: BTreeMap<&str, ChatTemplate> = recording
        .templates
        .iter()
        .map(|(name, source)| {
            (name.as_str(), ChatTemplate::new(source, recording.tokens.clone(), today).unwrap())
        })
        .collect();
    assert_eq!((compiled.len(), recording.cases.len()), (7, 35));
    let mut refused = 0;
    for case in &recording.cases {
        let name = format!("{} with {:?}", case.template, case.messages);
        let rendered = compiled[case.template.as_str()].render(&case.messages);
        match (&case.text, &case.error) {
            (Some(text), None) => assert_eq!(&rendered.unwrap(), text, "{name}"),
            (None, Some(error)) => {
                let message = rendered.unwrap_err().to_string();
                assert!(message.contains(error), "{name}: {error:?} is not in {message:?}");
                refused += 1;
            }
            _ => panic!("{name} has neither text nor error, or both"),
        }
    }
    assert_eq!(refused, 2);
}

#[test]
fn a_template_that_is_wrong_says_so() {
    let refusal = |source: &str| {
        let template = ChatTemplate::new(source, BTreeMap::new(), ChatDate::default());
        template.and_then(|template| template.render(&[])).unwrap_err().to_string()
    };
    for (source, part) in [
        ("{% for %}", "syntax error"),
        ("{% generation %}", "unexpected end of the template"),
        ("{{ strftime_now('%Q') }}", "accepted: %Y"),
        ("{{ strftime_now('%') }}", "accepted: %Y"),
        ("{{ [] | tojson(separators=[',']) }}", "two texts"),
        ("{{ [] | tojson(colour=1) }}", "colour"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{{ raise_exception('no such role') }}", "no such role"),
    ] {
        let message = refusal(source);
        assert!(message.starts_with("chat template: "), "{message}");
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// The days of the week are from a calendar; the years cover every kind of leap year.
#[test]
fn days_are_named_as_in_the_calendar() {
    for (text, expected) in [
        ("2024-07-26", "Fri 26 Jul 2024, day 208"),
        ("2024-12-31", "Tue 31 Dec 2024, day 366"),
        ("2000-02-29", "Tue 29 Feb 2000, day 60"),
        ("1900-03-01", "Thu 1 Mar 1900, day 60"),
        ("2023-01-01", "Sun 1 Jan 2023, day 1"),
    ] {
        let date: ChatDate = text.parse().unwrap();
        assert_eq!(date.to_string(), text);
        assert_eq!(date.format("%a %-d %b %Y, day %-j").unwrap(), expected);
    }
    for text in ["", "2024-7-26", "2024-02-30", "2023-02-29", "2024-13-01", "2024-00-01", "today"] {
        assert!(text.parse::<ChatDate>().is_err(), "{text}");
    }
}
