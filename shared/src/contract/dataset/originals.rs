//! The seven sets of Search-R1's table, each in the form of the file that its authors publish; rows are our own.

use super::*;

#[track_caller]
fn check(name: &str, contents: &str, expected: &[(&str, &str, &[&str])]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let plain = contents.as_bytes();
    // Compressed files are read as they are, under any name.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, plain).unwrap();
    for bytes in [plain.to_vec(), gzip.finish().unwrap(), zstd::encode_all(plain, 0).unwrap()] {
        std::fs::write(&path, bytes).unwrap();
        let records = read_qa_records(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read: Vec<(&str, &str, Vec<&str>)> = records
            .iter()
            .map(|record| {
                let answers = record.golden_answers.iter().map(String::as_str).collect();
                (record.id.as_str(), record.question.as_str(), answers)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(id, question, answers)| (*id, *question, answers.to_vec()))
            .collect();
        assert_eq!(read, expected, "{name}");
    }
}

#[test]
fn the_original_files_of_the_seven_sets_are_read() {
    check(
        "NQ-open.dev.jsonl",
        "{\"question\": \"who got the prize\", \"answer\": [\"Marie Curie\", \"Curie\"]}\n",
        &[("line-1", "who got the prize", &["Marie Curie", "Curie"])],
    );
    check(
        "nq-dev.qa.csv",
        "who got the prize\t['Marie Curie', \"Curie's\"]\n",
        &[("line-1", "who got the prize", &["Marie Curie", "Curie's"])],
    );
    check(
        "unfiltered-web-dev.json",
        "{\n    \"Data\": [\n        {\n            \"Answer\": {\"Aliases\": [\"York\"], \"Value\": \"Eboracum\"},\n\
         \"Question\": \"Where?\", \"QuestionId\": \"tc_33\"\n        }\n    ], \"Domain\": \"Web\"\n}\n",
        &[("row-1", "Where?", &["Eboracum", "York"])],
    );
    check(
        "test.tsv",
        "id\tsubj\tprop\tobj\tpossible_answers\tquestion\n\
         4222362\tX\toccupation\tpolitician\t\"[\"\"politician\"\", \"\"political leader\"\"]\"\tWhat is X's occupation?\n",
        &[("4222362", "What is X's occupation?", &["politician", "political leader"])],
    );
    check(
        "hotpot_dev_distractor_v1.json",
        "[{\"_id\": \"5a8b\", \"answer\": \"yes\", \"question\": \"Were both?\", \"supporting_facts\": [[\"A\", 0]], \
         \"context\": [[\"A\", [\"s\"]]], \"type\": \"comparison\", \"level\": \"hard\"}]",
        &[("5a8b", "Were both?", &["yes"])],
    );
    check(
        "dev.json",
        "[{\"_id\": \"8813\", \"type\": \"compositional\", \"question\": \"Who is the father?\", \"context\": [], \
         \"supporting_facts\": [], \"evidences\": [[\"A\", \"father\", \"B\"]], \"answer\": \"B\"}]",
        &[("8813", "Who is the father?", &["B"])],
    );
    check(
        "musique_ans_v1.0_dev.jsonl",
        "{\"id\": \"2hop__1_2\", \"paragraphs\": [{\"idx\": 0, \"title\": \"T\", \"paragraph_text\": \"p\", \
         \"is_supporting\": true}], \"question\": \"When?\", \"question_decomposition\": [{\"id\": 1, \"question\": \"q\", \
         \"answer\": \"a\", \"paragraph_support_idx\": 0}], \"answer\": \"1945\", \"answer_aliases\": [\"May 1945\"], \
         \"answerable\": true}\n",
        &[("2hop__1_2", "When?", &["1945", "May 1945"])],
    );
    check(
        "Bamboogle.csv",
        "Question,Answer\n\"Who was president, then?\",James K. Polk\n",
        &[("line-2", "Who was president, then?", &["James K. Polk"])],
    );
}
