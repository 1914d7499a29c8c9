//! The rendering of passages for the model, and their shortening.

use shared::contract::client::Passage;

use crate::rollout::observation::{Observation, ObservationBudget, render};
use crate::token::Tokenizer;

fn passage(contents: &str) -> Passage {
    Passage::new("", contents)
}

fn show(passages: &[Passage], max_tokens: usize, max_passage_tokens: usize) -> Option<Observation> {
    let budget = ObservationBudget { max_tokens, max_passage_tokens };
    render(passages, budget, &Tokenizer::characters()).unwrap()
}

#[test]
fn passages_are_framed_as_the_reference_does() {
    let passages = [passage("\"A\"\nfirst\nsecond\n"), passage("\"B\""), passage("")];
    let shown = show(&passages, usize::MAX, usize::MAX).unwrap();
    assert_eq!(
        shown.text,
        "\n\n<information>Doc 1(Title: \"A\") first\nsecond\n\nDoc 2(Title: \"B\") \nDoc 3(Title: ) \
         </information>\n\n"
            .replace(") </information>", ")</information>")
    );
    assert!(!shown.shortened);
    let nothing = show(&[], 1000, 1000).unwrap();
    assert_eq!(nothing.text, "\n\n<information></information>\n\n");
    assert!(!nothing.shortened);
}

#[test]
fn every_budget_is_met_and_the_frame_never_lost() {
    let passages = [
        passage("\"Long\"\nwords words words words words words words words words words"),
        passage("\"S\"\nshort"),
        passage("\"Longer\"\nßords ßords ßords ßords ßords ßords ßords ßords ßords ßords ßords"),
    ];
    let whole = show(&passages, 1000, 1000).unwrap();
    let frame = "\n\n<information></information>\n\n".len();
    let mut last_length = 0;
    for max_tokens in 0..=whole.token_ids.len() {
        let Some(shown) = show(&passages, max_tokens, 1000) else {
            assert!(max_tokens < frame, "{max_tokens}");
            continue;
        };
        assert!(shown.token_ids.len() <= max_tokens);
        assert!(shown.text.starts_with("\n\n<information>"), "{}", shown.text);
        assert!(shown.text.ends_with("</information>\n\n"), "{}", shown.text);
        assert_eq!(Tokenizer::characters().encode(&shown.text).unwrap(), shown.token_ids);
        assert_eq!(shown.shortened, max_tokens < whole.token_ids.len(), "{max_tokens}");
        // A larger budget never shows less, except at the step that adds one more passage.
        last_length = last_length.max(shown.token_ids.len());
    }
    assert_eq!(last_length, whole.token_ids.len());
}

#[test]
fn passages_share_the_budget() {
    let passages = [
        passage("\"A\"\nthe long text of a passage"),
        passage("\"B\"\nx"),
        passage("\"C\"\nthe long text of another"),
    ];
    let shown = show(&passages, 100, 1000).unwrap();
    for kept in ["Doc 1(Title: \"A\") the", "Doc 2(Title: \"B\") x\n", "Doc 3(Title: \"C\") the"] {
        assert!(shown.text.contains(kept), "{kept:?} is not in {:?}", shown.text);
    }
    assert!(shown.shortened);
}

#[test]
fn each_passage_has_its_own_limit() {
    let shown = show(&[passage("\"A\"\n0123456789"), passage("\"B\"\nx")], 1000, 22).unwrap();
    assert_eq!(
        shown.text,
        "\n\n<information>Doc 1(Title: \"A\") 0123\nDoc 2(Title: \"B\") x</information>\n\n"
    );
    assert!(shown.shortened);
}
