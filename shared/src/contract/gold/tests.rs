use serde_json::json;

use super::*;

#[track_caller]
fn taken(record: &Value) -> Gold {
    let Value::Object(mut fields) = record.clone() else { panic!("{record} is not an object") };
    take(&mut fields).unwrap_or_else(|error| panic!("{record}: {error}"))
}

#[track_caller]
fn check(record: &Value, expected: &[&str]) {
    let gold = taken(record);
    // The order of an object's keys depends on how the crate is built.
    let sorted = |answers: &[&str]| answers.iter().map(|&answer| answer.to_owned()).collect();
    let expected: BTreeSet<String> = sorted(expected);
    assert_eq!(BTreeSet::from_iter(gold.answers.clone()), expected, "{record}");
    assert_eq!(gold.answers.len(), expected.len(), "{record}");
    assert!(gold.unread.is_empty(), "{record}: {:?}", gold.unread);
}

#[track_caller]
fn refused(record: &Value, fault: &str) {
    let Value::Object(mut fields) = record.clone() else { panic!("{record} is not an object") };
    let error = take(&mut fields).unwrap_err();
    assert!(error.contains(fault), "{record}: {fault:?} is not in {error:?}");
}

/// Rows as the sets publish them, shortened.
#[test]
fn the_forms_of_published_sets_are_read() {
    // FlashRAG and Search-R1; DPR; WebQuestions.
    check(&json!({"golden_answers": ["a1", "b1", "a1"]}), &["a1", "b1"]);
    check(&json!({"answers": ["x"], "positive_ctxs": []}), &["x"]);
    // HotpotQA and 2WikiMultihopQA.
    check(
        &json!({"_id": "5a", "answer": "yes", "answer_id": "Q1", "supporting_facts": []}),
        &["yes"],
    );
    // MuSiQue.
    let musique = json!({"answer": "New York City", "answer_aliases": ["NYC", "New York"], "answerable": true});
    check(&musique, &["New York City", "NYC", "New York"]);
    // TriviaQA of the hub, and the original file.
    check(
        &json!({"answer": {
            "aliases": ["Sinclair Lewis", "Lewis, (Harry) Sinclair"], "matched_wiki_entity_name": "",
            "normalized_aliases": ["lewis harry sinclair", "sinclair lewis"],
            "normalized_matched_wiki_entity_name": "", "normalized_value": "sinclair lewis",
            "type": "WikipediaEntity", "value": "Sinclair Lewis",
        }}),
        &["Sinclair Lewis", "Lewis, (Harry) Sinclair", "lewis harry sinclair", "sinclair lewis"],
    );
    let original =
        json!({"Answer": {"Aliases": ["B"], "HumanAnswers": ["Bee"], "Type": "x", "Value": "b"}});
    check(&original, &["B", "Bee", "b"]);
    // SQuAD of the hub, and the original file; version 2 has wrong answers beside.
    let squad = json!({"answers": {"text": ["Saint Bernadette", "Saint Bernadette"], "answer_start": [515, 515]}});
    check(&squad, &["Saint Bernadette"]);
    let original = json!({"answers": [{"text": "Denver", "answer_start": 177}], "plausible_answers": [{"text": "no"}]});
    check(&original, &["Denver"]);
    // BoolQ and StrategyQA.
    check(&json!({"answer": true, "passage": "p"}), &["yes", "true"]);
    check(&json!({"answer": false}), &["no", "false"]);
    // PopQA.
    let popqa = json!({
        "obj": "politician", "possible_answers": "[\"politician\", \"political leader\"]",
        "s_aliases": "[\"x\"]", "o_aliases": "[\"political leader\"]",
    });
    check(&popqa, &["politician", "political leader"]);
    // Tables of DPR and pandas: a list of Python as a text.
    check(
        &json!({"answers": "['14 December 1972 UTC', \"O'Neill\"]"}),
        &["14 December 1972 UTC", "O'Neill"],
    );
    // ASearcher.
    check(&json!({"answer": ["a1"], "aug_answer": ["a2"], "qid": 1}), &["a1", "a2"]);
    // ComplexWebQuestions, WebQSP, DROP.
    check(
        &json!({"answers": [{"answer_id": "m.1", "answer": "Ohio", "aliases": ["OH"]}]}),
        &["OH", "Ohio"],
    );
    check(&json!({"Answers": [{"AnswerType": "Entity", "EntityName": "Lima"}]}), &["Lima"]);
    check(
        &json!({"answer": {"number": "3", "date": {"day": "", "year": ""}, "spans": []}}),
        &["3"],
    );
    let date = json!({"day": "3", "month": "May", "year": "1999"});
    check(&json!({"answer": {"number": "", "date": date, "spans": []}}), &["3 May 1999"]);
    // WebQSP and FreebaseQA in their own files; GAIA; GSM8K.
    let parses = json!([
        {"Answers": [{"EntityName": "Lima", "AnswerArgument": "m.0"}]},
        {"Answers": [{"AnswersMid": "m.0", "AnswersName": ["lima, peru"]}]},
    ]);
    check(&json!({"Parses": parses}), &["Lima", "lima, peru"]);
    check(&json!({"Final answer": "17", "Level": 1}), &["17"]);
    check(&json!({"answer": "She sold 48/2 = <<48/2=24>>24.\n#### 72"}), &["72"]);
    // Natural Questions of the hub, AmbigQA, KILT.
    let nq = json!({"annotations": {
        "id": ["1"], "long_answer": [{"start_token": 1}], "yes_no_answer": [-1, 1],
        "short_answers": [{"text": ["Lima"], "start_token": [1]}, {"text": [], "start_token": []}],
    }});
    check(&nq, &["Lima", "yes", "true"]);
    let ambig = json!({"annotations": [
        {"type": "singleAnswer", "answer": ["one"]},
        {"type": "multipleQAs", "qaPairs": [{"question": "q", "answer": ["two", "2"]}]},
    ]});
    check(&ambig, &["one", "two", "2"]);
    let kilt =
        json!({"input": "q", "output": [{"answer": "x", "provenance": []}, {"provenance": []}]});
    check(&kilt, &["x"]);
    // SciQ and TruthfulQA.
    check(&json!({"correct_answer": "x", "distractor1": "y"}), &["x"]);
    let truthful =
        json!({"best_answer": "x", "correct_answers": ["x", "z"], "incorrect_answers": ["y"]});
    check(&truthful, &["x", "z"]);
}

#[test]
fn the_forms_of_training_data_are_read() {
    let target = json!({"target": ["Shakespeare", "William Shakespeare"]});
    let both = &["Shakespeare", "William Shakespeare"];
    check(&json!({"target": target}), both);
    check(&json!({"ground_truth": target}), both);
    check(&json!({"reward_model": {"style": "rule", "ground_truth": target}}), both);
    check(&json!({"reward_spec": {"method": "rule", "ground_truth": target}}), both);
    check(&json!({"reward_spec": {"ground_truth": ["Shakespeare", "William Shakespeare"]}}), both);
    check(&json!({"reward_model": {"ground_truth": "Shakespeare"}}), &["Shakespeare"]);
    check(&json!({"reward_model": "{\"ground_truth\": {\"target\": [\"x\"]}}"}), &["x"]);
    check(&json!({"reward_model": {"ground_truth": "[\"x\", \"y\"]"}}), &["x", "y"]);
    let tools = json!({"search": {"create_kwargs": {"ground_truth": target, "question": "q"}}});
    check(&json!({"extra_info": {"index": 1, "tools_kwargs": tools}}), both);
    // What the extra information repeats or explains does not count beside the answers.
    check(&json!({"answer": "x", "extra_info": {"answer": "a long explanation of x"}}), &["x"]);
    check(
        &json!({"golden_answers": ["x"], "reward_model": {"ground_truth": target}}),
        &["x", both[0], both[1]],
    );
}

#[test]
fn fields_that_were_read_are_removed_and_others_stay() {
    let record = json!({"question": "q", "Answer": "x", "answer_aliases": ["y"], "hops": 2, "reward_model": {}});
    let Value::Object(mut fields) = record else { unreachable!() };
    assert_eq!(take(&mut fields).unwrap().answers, ["x", "y"]);
    assert_eq!(Value::Object(fields), json!({"question": "q", "hops": 2, "reward_model": {}}));
}

#[test]
fn the_answer_comes_before_its_other_spellings() {
    let trivia = json!({"aliases": ["y"], "answer": {"aliases": ["z"], "value": "x"}});
    assert_eq!(taken(&trivia).answers[0], "x");
}

#[test]
fn numbers_are_written_as_people_write_them() {
    check(&json!({"answers": [1898, 1898.0, 2.5, -3.0]}), &["1898", "2.5", "-3"]);
}

#[test]
fn answers_of_which_nothing_is_left_are_set_apart() {
    let gold = taken(&json!({"golden_answers": ["A", "Lima", "The The", "?!", " "]}));
    assert_eq!(gold.answers, ["Lima"]);
    assert_eq!(gold.unmatchable, ["A", "The The", "?!", ""]);
    let gold = taken(&json!({"golden_answers": ["A", ""]}));
    assert_eq!((gold.answers, gold.unmatchable.len()), (vec!["A".to_owned()], 2));
    for nothing in
        [json!({}), json!({"golden_answers": []}), json!({"answer": null}), json!({"answer": " "})]
    {
        assert!(taken(&nothing).answers.is_empty());
    }
}

#[test]
fn what_looks_like_answers_and_is_not_read_is_named() {
    for (record, unread) in [
        (json!({"answer": "x", "other_answers": ["y"], "gold_ids": ["1"]}), &["other_answers"][..]),
        (json!({"solution": "x"}), &["solution"]),
        (json!({"label": 1}), &["label"]),
        (json!({"answerKey": "A"}), &["answerKey"]),
        (json!({"answer": {"value": "x", "alias_list": ["y"]}}), &["answer.alias_list"]),
        (
            json!({"reward_model": {"ground_truth": "x", "gold_short": "y"}}),
            &["reward_model.gold_short"],
        ),
        (json!({"answer": "x", "final_answer": null, "answer_start": [1]}), &[]),
    ] {
        let named: Vec<String> = taken(&record).unread.into_iter().collect();
        assert_eq!(named, unread, "{record}");
    }
}

#[test]
fn forms_that_are_not_known_are_refused() {
    refused(&json!({"answer": {"en": "x"}}), "\"answer\" is {\"en\":\"x\"}; accepted is a text");
    refused(&json!({"answers": ["x", {"start": 1}]}), "\"answers\" is {\"start\":1}");
    refused(&json!({"answers": "['a' 'b']"}), "a list that cannot be read");
    refused(&json!({"choices": 5, "answer": 0}), "\"choices\" is 5; accepted are a list of texts");
}

#[test]
fn choices_are_named_by_position_label_or_text() {
    let list = json!(["iron", "lead", "tin", "zinc"]);
    let labelled = json!({"text": ["iron", "lead", "tin", "zinc"], "label": ["A", "B", "C", "D"]});
    let numbered = json!({"text": ["iron", "lead", "tin", "zinc"], "label": ["1", "2", "3", "4"]});
    let objects = json!([{"label": "A", "text": "iron"}, {"label": "B", "text": "lead"}, {"label": "C", "text": "tin"}]);
    let by_label = json!({"A": "iron", "B": "lead", "C": "tin", "D": null});
    for (record, expected) in [
        // MMLU; FlashRAG; RACE; MMLU-Pro.
        (json!({"choices": list, "answer": 2}), "tin"),
        (json!({"choices": list, "golden_answers": [0]}), "iron"),
        (json!({"options": list, "answer": "B"}), "lead"),
        (json!({"options": list, "answer": "D", "answer_index": 3}), "zinc"),
        (json!({"choices": list, "answer": 2.0}), "tin"),
        (json!({"choices": list, "answer": "(c)"}), "tin"),
        (json!({"choices": list, "answer": "0"}), "iron"),
        (json!({"choices": list, "answer": "4"}), "zinc"),
        (json!({"choices": list, "answer": " Tin"}), "tin"),
        (json!({"choices": "['iron', 'lead']", "answer": 1}), "lead"),
        // ARC, OpenBookQA, CommonsenseQA, of the hub and in the original files.
        (json!({"choices": labelled, "answerKey": "C"}), "tin"),
        (json!({"choices": numbered, "answerKey": "3"}), "tin"),
        (json!({"choices": labelled, "answer": 1}), "lead"),
        (json!({"choices": objects, "answerKey": "C"}), "tin"),
        // A key is a label, whatever the choices say.
        (
            json!({"choices": {"label": ["A", "B", "C"], "text": ["AB", "O", "B"]}, "answerKey": "B"}),
            "O",
        ),
        // MedQA, MedMCQA, tables.
        (json!({"options": by_label, "answer": "lead", "answer_idx": "B"}), "lead"),
        (json!({"opa": "iron", "opb": "lead", "opc": "tin", "opd": "zinc", "cop": 3}), "zinc"),
        (json!({"A": "iron", "B": "lead", "C": "tin", "answer": "C"}), "tin"),
        (json!({"option_a": "iron", "option_b": "lead", "label": 1}), "lead"),
        // No choices at all.
        (json!({"choices": [], "answer": "tin"}), "tin"),
        (json!({"choices": null, "answer": "tin"}), "tin"),
    ] {
        check(&record, &[expected]);
    }
    check(&json!({"choices": list, "answer": 2, "answer_aliases": ["Sn"]}), &["tin", "Sn"]);
    check(&json!({"choices": ["yes", "no"], "answer": true}), &["yes"]);
    // Numbers as choices.
    check(&json!({"choices": ["2", "4", "6"], "answer": "4"}), &["4"]);
    check(&json!({"choices": [2, 4, 6], "answer": 6}), &["6"]);
}

#[test]
fn choices_that_are_not_certain_are_refused() {
    let list = json!(["iron", "lead", "tin", "zinc"]);
    refused(
        &json!({"choices": list, "answer": 4}),
        "\"answer\" is 4, which is no position of the 4 choices",
    );
    refused(
        &json!({"choices": list, "answer": "gold"}),
        "\"answer\" is \"gold\", which names none of",
    );
    refused(&json!({"choices": list, "answer": "2"}), "may count from 0 or from 1");
    refused(&json!({"choices": list, "answer": "E"}), "names none of");
    refused(&json!({"choices": ["B", "A"], "answer": "A"}), "may be a label or a text of");
    // Position 1 is the text 0, and the text 1 is at position 2.
    refused(&json!({"choices": [3, 0, 1], "answer": 1}), "may be a position or a text of");
    refused(
        &json!({"options": {"A": "iron", "B": "lead"}, "answer": "iron", "answer_idx": "B"}),
        "\"answer\" names the choice \"iron\", but \"answer_idx\" names \"lead\"",
    );
}
