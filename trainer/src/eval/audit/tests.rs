use std::path::Path;

use super::*;
use crate::stop::StopFlag;

fn accepted(answers: &[&[&str]]) -> Vec<Vec<String>> {
    answers.iter().map(|own| own.iter().map(|answer| (*answer).to_owned()).collect()).collect()
}

fn set_of(answers: &[&[&str]]) -> AnswerSet {
    AnswerSet::new(accepted(answers).iter().map(Vec::as_slice)).unwrap()
}

/// Returns the questions with an answer in the text.
fn found(set: &AnswerSet, questions: usize, text: &str) -> Vec<usize> {
    let mut scratch = MatchScratch::default();
    (0..questions)
        .filter(|&question| set.first_rank(question, [text], &mut scratch).is_some())
        .collect()
}

#[test]
fn answers_match_as_exact_match_normalises_and_as_whole_words() {
    let answers: [&[&str]; 6] =
        [&["The Beatles"], &["U.S."], &["new york", "York"], &["42"], &["The"], &["Saint-Émilion"]];
    let set = set_of(&answers);
    for (text, questions) in [
        ("It was by Beatles, the band.", vec![0]),
        ("beatlesque", vec![]),
        ("In the US, it is.", vec![1]),
        ("usual status", vec![]),
        ("A New  \n York minute", vec![2]),
        ("New Yorkers", vec![]),
        ("Yorkshire or York—England", vec![2]),
        ("(42)", vec![3]),
        ("421 142 4.2", vec![3]),
        ("the the", vec![]),
        ("SAINTÉMILION wine", vec![5]),
    ] {
        assert_eq!(found(&set, answers.len(), text), questions, "{text:?}");
    }
    assert!(set.of_question(4).is_empty(), "normalisation leaves nothing of an article");
}

#[test]
fn overlapping_answers_are_all_found_and_the_first_passage_counts() {
    let set = set_of(&[&["new york city"], &["york"], &["city hall"]]);
    assert_eq!(found(&set, 3, "New York City Hall"), [0, 1, 2]);
    let mut scratch = MatchScratch::default();
    let passages = ["nothing", "in York", "New York City"];
    assert_eq!(set.first_rank(0, passages, &mut scratch), Some(3));
    assert_eq!(set.first_rank(1, passages, &mut scratch), Some(2));
    assert_eq!(set.first_rank(2, passages, &mut scratch), None);
}

fn count(path: &Path, set: &AnswerSet, threads: usize) -> Result<CorpusCount, AuditError> {
    count_answers(path, set, threads, &StopFlag::never(), &mut |_| {})
}

/// Passages of several batches: every third names an even number, every fifth is of another form.
fn corpus_lines(passages: usize) -> Vec<String> {
    let filler = "x ".repeat(900);
    (0..passages)
        .map(|n| match n % 15 {
            0 | 3 | 6 | 9 | 12 => {
                format!(r#"{{"id":"{n}","contents":"\"T\"\nthe answer {}. {filler}"}}"#, n % 2)
            }
            5 | 10 => format!(r#"{{"_id":{n},"title":"Lima","text":"a caf\u00e9 caf\u00e9"}}"#),
            _ => format!(r#"{{"id":"{n}","contents":"{filler}","score":NaN}}"#),
        })
        .collect()
}

#[test]
fn every_form_and_any_number_of_threads_counts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let lines = corpus_lines(3000);
    let plain = folder.path().join("corpus.jsonl");
    std::fs::write(&plain, lines.join("\n")).unwrap();
    let packed = folder.path().join("corpus.jsonl.zst");
    std::fs::write(&packed, zstd::encode_all(lines.join("\n").as_bytes(), 1).unwrap()).unwrap();
    let list = folder.path().join("corpus.json");
    std::fs::write(&list, format!("[{}]", lines.join(",\n"))).unwrap();
    let parts = folder.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    for (index, part) in lines.chunks(1700).enumerate() {
        std::fs::write(parts.join(format!("part-{index}.jsonl")), part.join("\n")).unwrap();
    }
    let set = set_of(&[&["Answer 0"], &["answer 1"], &["CAFÉ"], &["lima"], &["absent"]]);
    let expected = CorpusCount { passages: 3000, with_answer: vec![500, 500, 400, 400, 0] };
    for path in [&plain, &packed, &list, &parts] {
        for threads in [1, 3] {
            let counted = count(path, &set, threads).unwrap();
            assert_eq!(counted, expected, "{} with {threads} threads", path.display());
        }
    }
}

#[test]
fn a_bad_line_is_named_and_a_stop_ends_the_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.jsonl");
    for (line, fault) in [
        ("{\"id\":\"b\"}", "contents is missing"),
        ("{\"id\":\"b\",\"contents\":7}", "contents is a number, expected a string"),
        ("[1]", "is a list, expected an object"),
    ] {
        std::fs::write(&path, format!("{{\"id\":\"a\",\"contents\":\"x\"}}\n{line}\n")).unwrap();
        let message = count(&path, &set_of(&[&["x"]]), 2).unwrap_err().to_string();
        assert!(message.contains("corpus.jsonl:2: ") && message.contains(fault), "{message}");
    }
    let switch = crate::stop::StopSwitch::default();
    switch.raise(shared::machine::shutdown::Shutdown::Terminate);
    let stopped = count_answers(&path, &set_of(&[&["x"]]), 2, &switch.flag(), &mut |_| {});
    assert!(matches!(stopped, Err(AuditError::Stopped(_))), "{stopped:?}");
}

fn row(id: &str, passages: u32, ranks: &[Option<usize>]) -> AuditRow {
    AuditRow {
        id: id.to_owned(),
        question: format!("{id}?"),
        class: AnswerClass::of(passages, ranks),
        passages,
        ranks: ranks.to_vec(),
    }
}

fn audit() -> Audit {
    let rows = vec![
        row("a", 0, &[None, None]),
        row("b", 3, &[None, None]),
        row("c", 9, &[Some(1), Some(40)]),
        row("d", 1, &[None, Some(3)]),
        row("e", 0, &[Some(2), None]),
    ];
    let retriever =
        |name: &str| AuditedRetriever { name: name.to_owned(), url: "http://x".to_owned() };
    Audit {
        corpus: AuditedCorpus { path: "corpus.jsonl".into(), passages: 50, seconds: 0.5 },
        depth: 100,
        retrievers: vec![retriever("bm25"), retriever("dense")],
        sets: vec![AuditedSet { name: "set".to_owned(), path: "set.jsonl".into(), rows }],
    }
}

#[test]
fn classes_and_ceilings_follow_from_counts_and_ranks() {
    use AnswerClass::{Absent, Beyond, InCorpus, Within};

    let audit = audit();
    let classes: Vec<AnswerClass> = audit.sets[0].rows.iter().map(|row| row.class).collect();
    assert_eq!(classes, [Absent, Beyond, Within, Within, Within]);
    assert_eq!(AnswerClass::of(2, &[]), InCorpus);
    assert_eq!(AnswerClass::of(0, &[]), Absent);
    let ceiling = Ceiling::of_set(&audit, &audit.sets[0]);
    assert_eq!((ceiling.questions, ceiling.in_corpus, ceiling.beyond), (5, 3, 1));
    let dense = &ceiling.retrievers[1];
    assert_eq!(dense.within, [(1, 0), (3, 1), (5, 1), (10, 1), (20, 1), (50, 2), (100, 2)]);
    assert_eq!(dense.not_in_corpus, 0);
    assert_eq!(ceiling.retrievers[0].not_in_corpus, 1);
    let table = audit_table(&audit).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("set 5 2 (0.400) 1 (0.200) 2 (0.400) 0.600 0.231 to 0.882"), "{table}");
    assert!(table.contains("bm25: 1 questions have an answer"), "{table}");

    let part = Ceiling::of_questions(&audit, [("b", "b?"), ("c", "c?")]).unwrap();
    assert_eq!((part.questions, part.in_corpus), (2, 2));
    let message = Ceiling::of_questions(&audit, [("b", "b?"), ("c", "other?")]).unwrap_err();
    assert!(message.to_string().contains("no row for 1 of 2 questions, first \"c\""), "{message}");
}

#[test]
fn files_come_back_and_weights_follow_the_classes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("audit.json");
    let audit = audit();
    audit.save(&path).unwrap();
    assert_eq!(Audit::load(&path).unwrap(), audit);
    let weights = folder.path().join("set.weights.jsonl");
    audit.sets[0].save_weights(&weights, ClassWeights { absent: 0.0, beyond: 0.5 }).unwrap();
    let lines = std::fs::read_to_string(&weights).unwrap();
    let expected = "{\"id\":\"a\",\"weight\":0.0}\n{\"id\":\"b\",\"weight\":0.5}\n{\"id\":\"c\",\"weight\":1.0}\n";
    assert!(lines.starts_with(expected) && lines.lines().count() == 5, "{lines}");
    std::fs::write(&path, "{}").unwrap();
    let message = Audit::load(&path).unwrap_err().to_string();
    assert!(message.contains("not an audit"), "{message}");
}
