//! `trainer data`: question files of other projects converted into the project's JSON Lines, described, and sampled.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use shared::contract::dataset::{Ids, QaOptions, QaReader};
use shared::contract::jsonl::write_record;
use shared::machine::atomic_file;
use tracing::warn;

use super::question_order::shuffled;
use crate::data::conversion::{Converted, Template, convert, rows};
use crate::data::description::describe;
use crate::hub::{DataSetPath, HubError, HubSettings, data_set_files, fetch_data_set};

/// The stream of random draws of samples.
const SAMPLE_STREAM: u64 = 0;

/// Converts `input`, a file or a folder of parts, and writes `output`.
///
/// # Errors
/// A file that cannot be read or written, an output that is the input, and rows without a certain question or answer, by
/// their numbers.
pub fn convert_questions(input: &Path, output: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    if let (Ok(from), Ok(to)) = (input.canonicalize(), output.canonicalize()) {
        anyhow::ensure!(
            !to.starts_with(&from),
            "{} is the input: choose another output, because the conversion leaves fields out",
            output.display()
        );
    }
    let Converted { lines, count, template, warnings } = convert(input)?;
    for warning in warnings {
        warn!("{warning}");
    }
    atomic_file::write(output, &lines)?;
    let questions = if count == 1 { "question" } else { "questions" };
    writeln!(out, "{}: {count} {questions} of {}", output.display(), input.display())?;
    match template {
        Template::Absent => {}
        Template::Same(text) => writeln!(out, "template = {}", serde_json::to_string(&text)?)?,
        Template::Different => writeln!(out, "the prompts differ, so there is no template")?,
    }
    Ok(())
}

/// The options of `trainer data describe`.
#[derive(Clone, Copy, Debug)]
pub struct DescribeOptions<'o> {
    /// Questions to compare the file with.
    pub held_out: Option<&'o Path>,
    pub as_json: bool,
}

/// Describes `input`, a file or a folder of parts.
///
/// # Errors
/// A file that cannot be read, and rows that cannot be used, after the description.
pub fn describe_questions(
    input: &Path,
    options: DescribeOptions<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let description = describe(input, options.held_out)?;
    if options.as_json {
        let overlap = description.overlap.as_ref().map(|overlap| {
            json!({"shared": overlap.shared, "held_out": overlap.held_out, "first": overlap.first})
        });
        let mut value = serde_json::to_value(&description)?;
        value["overlap"] = overlap.into();
        writeln!(out, "{value:#}")?;
    } else {
        write!(out, "{}", description.in_words(input))?;
    }
    anyhow::ensure!(
        description.faulty == 0,
        "{}: {} cannot be used",
        input.display(),
        rows(description.faulty)
    );
    Ok(())
}

/// The options of `trainer data sample`.
#[derive(Clone, Copy, Debug)]
pub struct SampleOptions {
    /// Number of questions; all if the file has fewer.
    pub count: usize,
    pub seed: u64,
    /// Writes the prompt that each row carries too.
    pub prompts: bool,
}

/// Writes some questions of `input` to `out` as JSON Lines, in a random order that the seed decides.
///
/// # Errors
/// A file that cannot be read, and a row that cannot be used.
pub fn sample_questions(
    input: &Path,
    options: SampleOptions,
    mut out: &mut dyn Write,
) -> anyhow::Result<()> {
    let SampleOptions { count, seed, prompts } = options;
    let mut reader = QaReader::open_with(input, QaOptions { prompts, ..QaOptions::default() })?;
    let (mut ids, mut records) = (Ids::default(), Vec::new());
    while let Some(mut row) = reader.next_row()? {
        row.record.id = ids.assign(row.record.id, &row.place_id);
        records.push(row.record);
    }
    for index in shuffled(seed, SAMPLE_STREAM, records.len()).into_iter().take(count) {
        let record = &records[index];
        let mut line = json!({
            "id": record.id, "question": record.question, "golden_answers": record.golden_answers,
        });
        if let Some(source) = record.extra.get("data_source") {
            line["data_source"] = source.clone();
        }
        if let Some(prompt) = &record.prompt {
            line["prompt"] = prompt.to_json();
        }
        write_record(&mut out, &line)?;
    }
    Ok(())
}

/// Prints a line for each file of some data sets: its bytes, the bytes that the cache lacks of it, its name.
///
/// # Errors
/// A name that is not one of the hub, or that the hub does not know.
pub fn print_sizes(names: &[String], hub: &HubSettings, out: &mut dyn Write) -> anyhow::Result<()> {
    for name in names {
        for file in data_set_files(&named(name)?, hub)? {
            let lacking = if file.is_cached { 0 } else { file.size };
            writeln!(out, "{} {lacking} {}", file.size, file.file)?;
        }
    }
    Ok(())
}

/// Downloads files of data sets into the cache, and links each into the folder `to`.
///
/// # Errors
/// A name that is not one of the hub, a download that fails, and a file in `to` that is not a link.
pub fn fetch_data(
    names: &[String],
    to: Option<&Path>,
    hub: &HubSettings,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for name in names {
        let copy = fetch_data_set(&named(name)?, hub)?;
        let Some(folder) = to else {
            writeln!(out, "{}", copy.display())?;
            continue;
        };
        let link = folder.join(copy.file_name().context("a copy has a name")?);
        link_to(&copy.canonicalize()?, folder, &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
        writeln!(out, "{}", link.display())?;
    }
    Ok(())
}

fn named(name: &str) -> Result<DataSetPath, HubError> {
    let reason = "does not begin with hf://";
    DataSetPath::parse(name)
        .unwrap_or_else(|| Err(HubError::DataSetName { text: name.to_owned(), reason }))
}

/// Makes a link, in place of an older link.
fn link_to(copy: &Path, folder: &Path, link: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    if let Ok(metadata) = link.symlink_metadata() {
        anyhow::ensure!(metadata.is_symlink(), "there is a file or folder of this name");
        fs::remove_file(link)?;
    }
    Ok(symlink(copy, link)?)
}
