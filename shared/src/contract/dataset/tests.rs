use serde_json::json;

use super::*;

fn reader(name: &str, contents: &[u8]) -> (Vec<QaRecord>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, contents).unwrap();
    let mut reader = QaReader::open(&path).unwrap();
    let mut records = Vec::new();
    while let Some(row) = reader.next_row().unwrap() {
        records.push(row.record);
    }
    (records, reader.warnings())
}

fn read(contents: &[u8]) -> Result<Vec<QaRecord>, DatasetError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qa.jsonl");
    std::fs::write(&path, contents).unwrap();
    read_qa_records(&path)
}

#[track_caller]
fn check_error(contents: &[u8], expected: &[&str]) {
    let message = read(contents).unwrap_err().to_string();
    for part in expected.iter().chain(&["qa.jsonl"]) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn ids_and_answers(records: &[QaRecord]) -> Vec<(&str, Vec<&str>)> {
    fn answers(record: &QaRecord) -> Vec<&str> {
        record.golden_answers.iter().map(String::as_str).collect()
    }
    records.iter().map(|record| (record.id.as_str(), answers(record))).collect()
}

#[test]
fn the_forms_of_answers_are_read() {
    let records = read(
        concat!(
            "\u{feff}{\"id\":\"a\",\"question\":\"q?\",\"golden_answers\":[\"x\",\"y\"],\"hops\":2}\n",
            "\r\n",
            "{\"question\":\"q?\",\"answer\":\"x\"}\r\n",
            "{\"id\":7,\"question\":\"q?\",\"target\":[1898]}\n",
            "{\"question\":\"q?\",\"target\":{\"target\":[\"x\"]}}\n",
            "{\"question\":\"q?\",\"reward_model\":{\"ground_truth\":{\"target\":[\"é\"]}}}",
        )
        .as_bytes(),
    )
    .unwrap();
    let expected = [
        ("a", vec!["x", "y"]),
        ("line-3", vec!["x"]),
        ("7", vec!["1898"]),
        ("line-5", vec!["x"]),
        ("line-6", vec!["é"]),
    ];
    assert_eq!(ids_and_answers(&records), expected);
    assert_eq!(records[0].extra["hops"], 2);
}

#[test]
fn lists_tables_and_prompts_are_read() {
    let (records, _) = reader(
        "qa.json",
        br#"[{"_id": "h1", "question": "q?", "answer": "x"},
             {"prompt": [{"role": "user", "content": "For example, <answer> Beijing </answer>. Question: who?\n"}],
              "reward_model": {"ground_truth": {"target": ["y"]}}}]"#,
    );
    assert_eq!(ids_and_answers(&records), [("h1", vec!["x"]), ("row-2", vec!["y"])]);
    assert_eq!(records[1].question, "who?");
    assert!(!records[1].extra.contains_key("prompt"));
    let (records, _) = reader("nq-test.qa.csv", b"who won\t['Lima', \"d'Or\"]\nwhat\t['x']\n");
    assert_eq!(
        ids_and_answers(&records),
        [("line-1", vec!["Lima", "d'Or"]), ("line-2", vec!["x"])]
    );
}

/// The files that SQuAD, MRQA, TriviaQA and OpenBookQA publish themselves: questions within articles or passages, one
/// object around all of them, choices within the question.
#[test]
fn questions_within_other_objects_are_read() {
    let squad = json!({"version": "v2.0", "data": [
        {"title": "Peru", "paragraphs": [
            {"context": "c", "qas": [
                {"id": "s1", "question": "capital?", "is_impossible": false,
                 "answers": [{"text": "Lima", "answer_start": 3}]},
                {"id": "s2", "question": "none?", "answers": [], "is_impossible": true,
                 "plausible_answers": [{"text": "x", "answer_start": 1}]}]},
            {"context": "c", "qas": [{"question": "sea?", "answers": [{"text": "Pacific"}]}]}]},
        {"title": "Norway", "paragraphs": [{"context": "c", "qas": [
            {"id": "s3", "question": "capital?", "answers": [{"text": "Oslo"}, {"text": "oslo"}]}]}]},
    ], "more": {"x": [1]}});
    // The keys of SQuAD's own file are in this order.
    let compact = squad.to_string().replacen("{\"data\":", "{\"version\":\"v2.0\",\"data\":", 1);
    for text in [compact, serde_json::to_string_pretty(&squad).unwrap()] {
        let (records, warnings) = reader("train-v2.0.json", text.as_bytes());
        let expected =
            [("s1", vec!["Lima"]), ("row-1-2", vec!["Pacific"]), ("s3", vec!["Oslo", "oslo"])];
        assert_eq!(ids_and_answers(&records), expected);
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.contains("1 question is left out, which the file calls unanswerable"));
    }
    let mrqa = concat!(
        "{\"header\": {\"dataset\": \"SQuAD\"}}\n",
        "{\"id\": \"\", \"context\": \"c\", \"qas\": [",
        "{\"qid\": \"m1\", \"question\": \"capital?\", \"answers\": [\"Lima\"]}]}\n",
    );
    assert_eq!(ids_and_answers(&reader("mrqa.jsonl", mrqa.as_bytes()).0), [("m1", vec!["Lima"])]);
    let trivia = concat!(
        "{\n    \"Data\": [\n        {\"Question\": \"Where?\", \"QuestionId\": \"tc_3\", \"Answer\": ",
        "{\"Value\": \"York\", \"Aliases\": [\"Eboracum\"]}}\n    ],\n    \"Domain\": \"Web\"\n}\n",
    );
    let (records, _) = reader("wikipedia-dev.json", trivia.as_bytes());
    assert_eq!(ids_and_answers(&records), [("row-1", vec!["York", "Eboracum"])]);
    let stem = json!({"id": "7", "answerKey": "A", "question": {"stem": "The sun is", "choices": [
        {"text": "hot", "label": "A"}, {"text": "cold", "label": "B"}]}});
    let (records, _) = reader("train.jsonl", stem.to_string().as_bytes());
    assert_eq!(records[0].question, "The sun is");
    assert_eq!(ids_and_answers(&records), [("7", vec!["hot"])]);
    let damaged = "{\"paragraphs\": [\"c\", {\"qas\": [7]}]}\n";
    check_error(damaged.as_bytes(), &["qa.jsonl:1: ", "\"question\" is missing"]);
    // Only a question without an answer is left out.
    let answered = "{\"question\": \"q\", \"answers\": [\"x\"], \"is_impossible\": true}\n";
    let (records, _) = reader("qa.jsonl", answered.as_bytes());
    assert_eq!(ids_and_answers(&records), [("line-1", vec!["x"])]);
}

#[test]
fn files_of_a_folder_have_their_own_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["part-1.jsonl", "part-2.jsonl"] {
        let line = "{\"question\": \"q\", \"answer\": \"x\"}\n";
        std::fs::write(folder.path().join(part), line).unwrap();
    }
    let records = read_qa_records(folder.path()).unwrap();
    assert_eq!(
        (records[0].id.as_str(), records[1].id.as_str()),
        ("part-1.jsonl-line-1", "part-2.jsonl-line-1")
    );
}

#[test]
fn a_question_without_answers_is_refused() {
    let good = "{\"question\":\"q?\",\"answer\":\"x\"}\n";
    for (bad, fault) in [
        ("{\"question\":\"q?\"}", "there is no answer; accepted are \"golden_answers\""),
        ("{\"question\":\"q?\",\"golden_answers\":[]}", "there is no answer; accepted are"),
        ("{\"question\":\"q?\",\"golden_answers\":[\" \"]}", "there is no answer; accepted are"),
        ("{\"question\":\"q?\",\"golden_answers\":null}", "there is no answer; accepted are"),
        (
            "{\"question\":\"q?\",\"label\":1}",
            "in a field that is read (\"label\" is not); accepted",
        ),
        ("{\"question\":\"q?\",\"answer\":{\"x\":1}}", "\"answer\" is {\"x\":1}; accepted is"),
    ] {
        check_error(format!("{good}{bad}\n").as_bytes(), &["qa.jsonl:2: ", fault]);
    }
}

/// The file of the report: gold answers that are articles.
#[test]
fn answers_that_match_nothing_are_reported_with_their_rows() {
    let articles = concat!(
        "{\"id\": \"1\", \"question\": \"direct?\", \"golden_answers\": [\"A\"]}\n",
        "{\"id\": \"2\", \"question\": \"none?\", \"golden_answers\": [\"A\"]}\n",
        "{\"id\": \"3\", \"question\": \"glued?\", \"golden_answers\": [\"The The\"]}\n",
    );
    let (records, warnings) = reader("gold_article.jsonl", articles.as_bytes());
    assert_eq!(ids_and_answers(&records)[2], ("3", vec!["The The"]));
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    for part in ["3 rows", "\"A\" in line 1, \"A\" in line 2, \"The The\" in line 3; 3 of these"] {
        assert!(warning.contains(part), "{part:?} is not in {warning:?}");
    }
    let mixed = "{\"question\": \"q\", \"golden_answers\": [\"A\", \"type A\"]}\n".repeat(9);
    let (records, warnings) = reader("mixed.jsonl", mixed.as_bytes());
    assert_eq!(records[0].golden_answers, ["type A"]);
    assert!(warnings[0].contains("9 rows") && warnings[0].contains("line 5, …; 0 of these"));
}

#[test]
fn fields_that_look_like_answers_are_named_once() {
    let line = "{\"question\": \"q\", \"answer\": \"x\", \"other_answers\": [\"y\"]}\n";
    let (_, warnings) = reader("qa.jsonl", line.repeat(3).as_bytes());
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(
        warning.contains("qa.jsonl: the field \"other_answers\" looks like answers"),
        "{warning}"
    );
    assert!(warning.contains("first in line 1"), "{warning}");
}

#[test]
fn other_bad_lines_are_refused_with_a_reason() {
    check_error(b"{}\n{\"question\":", &["\"question\" is missing"]);
    check_error(b"{\"question\":", &["qa.jsonl:1: is not JSON: EOF"]);
    check_error(
        b"{\"question\":\"q\",\"answer\":1}\n[1]\n",
        &[":2: ", "a list, expected an object"],
    );
    check_error(b"{\"question\":\" \",\"answer\":\"x\"}", &["\"question\" is \" \"", "accepted"]);
    check_error(b"{\"answer\":\"x\"}", &["\"question\" is missing"]);
    check_error(
        b"{\"id\":\"\",\"question\":\"q\",\"answer\":\"x\"}",
        &["\"id\" is \"\"", "accepted"],
    );
    check_error(b"{\"question\":\"\xff\",\"answer\":\"x\"}", &[":1: invalid UTF-8 at byte 13"]);
    check_error(b"\n \n", &["no records"]);
}

/// 2WikiMultihopQA keeps the other names of its answers in a file beside the questions.
#[test]
fn aliases_beside_the_questions_count_as_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.json");
    let rows = json!([
        {"_id": "w1", "type": "comparison", "question": "Which country?", "answer": "United States",
         "answer_id": "Q30", "evidences_id": [["Q1", "country", "Q30"]]},
        {"_id": "w2", "question": "Are both?", "answer": "yes", "answer_id": null},
    ]);
    std::fs::write(&path, rows.to_string()).unwrap();
    let aliases = folder.path().join("id_aliases.json");
    let line =
        json!({"Q_id": "Q30", "aliases": ["USA", "United States"], "demonyms": ["American"]});
    std::fs::write(&aliases, format!("{line}\n{{\"Q_id\": \"Q31\", \"aliases\": [\"x\"]}}\n"))
        .unwrap();
    let records = read_qa_records(&path).unwrap();
    let expected = [("w1", vec!["United States", "USA", "American"]), ("w2", vec!["yes"])];
    assert_eq!(ids_and_answers(&records), expected);
    std::fs::write(&aliases, "{\"Q_id\": \"Q30\", \"aliases\": \"USA\"}\n").unwrap();
    let error = read_qa_records(&path).unwrap_err().to_string();
    assert!(
        error.contains("id_aliases.json:1: \"aliases\" is \"USA\"; accepted is a list"),
        "{error}"
    );
}

#[test]
fn repeated_ids_become_different() {
    let rows = b"{\"id\":1,\"question\":\"q\",\"answer\":\"x\"}\n{\"id\":\"1\",\"question\":\"q\",\"answer\":\"y\"}";
    let records = read(rows).unwrap();
    assert_eq!(ids_and_answers(&records), [("1", vec!["x"]), ("1-line-2", vec!["y"])]);
}

/// The rows that veRL's preparation writes: a system message first, the question without its mark within the extra
/// information.
#[test]
fn prompts_are_carried_if_they_are_asked_for() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/questions/verl.parquet");
    let options = QaOptions { prompts: true, names_files: true };
    let records = read_qa_file(&path, options, &mut Ids::default()).unwrap();
    let Some(CarriedPrompt::Messages(messages)) = &records[0].prompt else { panic!("no messages") };
    let roles: Vec<&str> = messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user"]);
    assert_eq!(messages[0].content, "You are a helpful and harmless assistant.");
    assert!(messages[1].content.ends_with("</answer>. Question: who wrote Hamlet"));
    assert_eq!(
        (records[0].question.as_str(), records[0].id.as_str()),
        ("who wrote Hamlet", "verl.parquet-row-1")
    );
    assert!(read_qa_records(&path).unwrap().iter().all(|record| record.prompt.is_none()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qa.jsonl");
    std::fs::write(&path, "{\"question\":\"q\",\"answer\":\"x\"}\n").unwrap();
    let error = read_qa_file(&path, options, &mut Ids::default()).unwrap_err().to_string();
    assert!(error.contains("qa.jsonl:1: the row carries no prompt; accepted is a text"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let message = read_qa_records(Path::new("nowhere/qa.jsonl")).unwrap_err().to_string();
    assert!(message.starts_with("nowhere/qa.jsonl: "), "{message}");
}
