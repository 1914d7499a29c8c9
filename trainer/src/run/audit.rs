//! `trainer audit`: searches the corpus for the accepted answers of any number of sets, asks retrievers every question,
//! and writes the classes of the questions and their weights.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use shared::contract::client::RetrieveClient;
use shared::contract::dataset::QaRecord;
use shared::contract::rows::parts;
use tokio::runtime::Builder;

use super::memory;
use super::settings;
use super::stopping::{end_stopped, is_done, signals};
use crate::config::{Config, PromptSource};
use crate::eval::audit::{
    AnswerClass, AnswerSet, Audit, AuditRow, AuditedCorpus, AuditedRetriever, AuditedSet,
    ClassWeights, MatchScratch, PassProgress, audit_table, count_answers,
};
use crate::stop::{StopFlag, Stopped};
use crate::track::Progress;

/// Questions in one request to a retriever.
const REQUEST_QUESTIONS: usize = 32;
const MIB: u64 = 1 << 20;

/// A file or an address with the name that it has in tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T> {
    pub name: String,
    pub value: T,
}

/// The options of `trainer audit` beyond the configuration.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The sets of questions; without any, the files of `data.test` and `data.train`.
    pub sets: Vec<Named<PathBuf>>,
    /// Addresses of retrievers.
    pub retrievers: Vec<Named<String>>,
    /// Number of passages that each retriever is asked for.
    pub depth: usize,
    pub weights: ClassWeights,
    /// The folder of the results; by default `audit` in the run's folder.
    pub out: Option<PathBuf>,
}

/// Audits `data.corpus` and writes `audit.json` and `NAME.weights.jsonl` for each set, unless a signal stops it.
///
/// # Errors
/// Anything wrong with the sets or the corpus, named; a question that a retriever could not answer; and SIGINT.
pub fn audit(config: &Config, options: &AuditOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    let stop = signals()?;
    if is_done(audit_until(config, options, &stop, out))? {
        return Ok(());
    }
    writeln!(out, "audit: stopped, run the same command to start it again")?;
    end_stopped(&stop)
}

/// The records of a set.
struct ReadSet {
    name: String,
    path: PathBuf,
    records: Vec<QaRecord>,
}

fn audit_until(
    config: &Config,
    options: &AuditOptions,
    stop: &StopFlag,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let corpus = config.data.corpus.as_deref().expect("the command requires data.corpus");
    let sets = read_sets(config, &options.sets)?;
    let records = || sets.iter().flat_map(|set| &set.records);
    let answers = AnswerSet::new(records().map(|record| record.golden_answers.as_slice()))?;
    let questions: Vec<String> = records().map(|record| record.question.clone()).collect();
    // First what may fail at once: a retriever that does not answer must not cost a pass over the corpus.
    let mut retrievers = Vec::new();
    let mut ranks: Vec<Vec<Option<usize>>> = vec![Vec::new(); questions.len()];
    for named in &options.retrievers {
        let mut asked = config.clone();
        asked.retriever.url.0.clone_from(&named.value);
        let client = settings::rollout::searcher(&asked).client()?;
        let found = ask(&client, named, &questions, options.depth, &answers, stop)?;
        ranks.iter_mut().zip(found).for_each(|(row, rank)| row.push(rank));
        let url = client.shown_addresses().to_owned();
        retrievers.push(AuditedRetriever { name: named.name.clone(), url });
    }
    let (corpus, with_answer) = search_corpus(corpus, &answers, stop)?;
    let mut rows = records().zip(ranks).enumerate().map(|(question, (record, ranks))| {
        let counts =
            answers.of_question(question).iter().map(|&answer| with_answer[answer as usize]);
        let passages = counts.max().unwrap_or(0);
        AuditRow {
            id: record.id.clone(),
            question: record.question.clone(),
            class: AnswerClass::of(passages, &ranks),
            passages,
            ranks,
        }
    });
    let sets = sets.iter().map(|set| AuditedSet {
        name: set.name.clone(),
        path: set.path.clone(),
        rows: rows.by_ref().take(set.records.len()).collect(),
    });
    let audit = Audit { corpus, depth: options.depth, retrievers, sets: sets.collect() };
    let folder = options.out.clone().unwrap_or_else(|| config.run_dir.join("audit"));
    save(&audit, options.weights, &folder, answers.len(), out)
}

fn save(
    audit: &Audit,
    weights: ClassWeights,
    folder: &Path,
    answers: usize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let path = folder.join("audit.json");
    audit.save(&path)?;
    write!(out, "{}", audit_table(audit))?;
    let AuditedCorpus { passages, seconds, .. } = audit.corpus;
    writeln!(
        out,
        "{passages} passages searched for {answers} answers in {seconds:.1} s, peak memory {} MiB",
        memory::peak_mib()
    )?;
    writeln!(out, "{}", path.display())?;
    for set in &audit.sets {
        let path = folder.join(format!("{}.weights.jsonl", file_name(&set.name)));
        set.save_weights(&path, weights)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Returns a name in which everything but letters and digits is a dash.
pub(super) fn file_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect()
}

fn read_sets(config: &Config, named: &[Named<PathBuf>]) -> anyhow::Result<Vec<ReadSet>> {
    let mut sets = Vec::new();
    for Named { name, value: path } in named {
        sets.push(ReadSet {
            name: name.clone(),
            path: path.clone(),
            records: held_out(config, path)?,
        });
    }
    if named.is_empty() {
        let data = &config.data;
        if !data.test.as_os_str().is_empty() {
            let (name, path) = ("test".to_owned(), data.test.clone());
            sets.push(ReadSet { name, records: held_out(config, &path)?, path });
        }
        if !data.train.as_os_str().is_empty() {
            let (name, path) = ("train".to_owned(), data.train.clone());
            sets.push(ReadSet { name, path, records: training(config)? });
        }
    }
    anyhow::ensure!(
        !sets.is_empty(),
        "there is no set of questions: give --questions NAME=FILE, or set data.test or data.train"
    );
    let mut files = BTreeSet::new();
    for ReadSet { name, path, .. } in &sets {
        anyhow::ensure!(
            files.insert(file_name(name)),
            "--questions {name}={}: the name is already used; accepted are names that differ in letters or digits",
            path.display()
        );
    }
    Ok(sets)
}

/// Reads all questions of a file, with the ids that an evaluation gives them.
fn held_out(config: &Config, path: &Path) -> anyhow::Result<Vec<QaRecord>> {
    let mut whole = config.clone();
    path.clone_into(&mut whole.data.test);
    whole.data.prompt = PromptSource::Template;
    whole.data.max_hops = 0;
    whole.eval.questions = 0;
    settings::questions::held_out_questions(&whole).records()
}

/// Reads all questions of the files of training, with the ids that training gives them.
fn training(config: &Config) -> anyhow::Result<Vec<QaRecord>> {
    let mut whole = config.clone();
    whole.data.prompt = PromptSource::Template;
    whole.data.max_hops = 0;
    whole.data.max_train_questions = 0;
    whole.data.leave_out_test = false;
    whole.data.sources = String::new();
    whole.data.weights = None;
    settings::questions::training_questions(&whole).records()
}

/// Returns for each question the position of the first passage with an accepted answer.
fn ask(
    client: &RetrieveClient,
    named: &Named<String>,
    questions: &[String],
    depth: usize,
    answers: &AnswerSet,
    stop: &StopFlag,
) -> anyhow::Result<Vec<Option<usize>>> {
    let label = format!("ask {}", named.name);
    let mut progress = Progress::start(&label, questions.len() as u64, "questions");
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let parallel = std::thread::available_parallelism().map_or(1, usize::from);
    let mut scratch = MatchScratch::default();
    let mut ranks = Vec::with_capacity(questions.len());
    runtime.block_on(async {
        let requests = questions.chunks(REQUEST_QUESTIONS);
        let mut replies = stream::iter(requests)
            .map(|queries| client.retrieve(queries, depth))
            .buffered(parallel);
        loop {
            let reply = tokio::select! {
                reply = replies.next() => reply,
                () = stop.raised() => return Err(anyhow::Error::from(Stopped)),
            };
            let Some(results) = reply else { return anyhow::Ok(()) };
            for result in results {
                let question = ranks.len();
                let passages = result.map_err(|error| {
                    anyhow::anyhow!(
                        "{}: no answer to {:?}, so no question can be classified: {error}",
                        named.name,
                        questions[question]
                    )
                })?;
                let contents = passages.iter().map(|passage| passage.contents.as_str());
                ranks.push(answers.first_rank(question, contents, &mut scratch));
                progress.advance(1);
            }
        }
    })?;
    progress.finish();
    Ok(ranks)
}

/// Counts for each answer the passages of the corpus in which it stands.
fn search_corpus(
    path: &Path,
    answers: &AnswerSet,
    stop: &StopFlag,
) -> anyhow::Result<(AuditedCorpus, Vec<u32>)> {
    let started = Instant::now();
    let sizes = parts(path)?.into_iter().map(|part| part.metadata().map_or(0, |file| file.len()));
    let total = sizes.sum::<u64>().div_ceil(MIB);
    let mut progress = Progress::start("search the corpus", total, "MiB");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = count_answers(path, answers, threads, stop, &mut |at: PassProgress| {
        progress.note(&format!("{} passages", at.passages));
        progress.set(at.bytes.div_ceil(MIB));
    })?;
    progress.finish();
    anyhow::ensure!(count.passages > 0, "{}: the corpus has no passage", path.display());
    let seconds = started.elapsed().as_secs_f64();
    let corpus = AuditedCorpus { path: path.to_owned(), passages: count.passages, seconds };
    Ok((corpus, count.with_answer))
}
