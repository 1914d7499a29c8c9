//! `trainer compare`: the paired difference of two evaluations, or of every evaluation that two folders have in common.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use shared::machine::atomic_file;

use crate::eval::{
    EvalResult, Flip, Interval, PairedDifference, Pairing, aligned, bootstrap, pair,
};

/// The options of `trainer compare`.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// An evaluation, or a folder with evaluations.
    pub before: PathBuf,
    /// The same, compared with the first.
    pub after: PathBuf,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Flipped questions to print of each kind.
    pub flips: usize,
    /// File for the whole comparison in JSON.
    pub json: Option<PathBuf>,
}

/// The comparison of one set with one turn limit.
#[derive(Debug, Serialize)]
struct Compared {
    name: String,
    before: PathBuf,
    after: PathBuf,
    #[serde(flatten)]
    pairing: Pairing,
}

/// The whole comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    seed: u64,
    compared: Vec<Compared>,
    /// Difference of the macro averages of exact match, if there are several sets.
    macro_em: Option<MacroDifference>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct MacroDifference {
    before: f64,
    after: f64,
    difference: f64,
    /// 95 % interval by the bootstrap over the questions of each set.
    interval: Interval,
}

/// Compares evaluations question by question and prints differences, intervals and flipped questions.
///
/// # Errors
/// A path without evaluations, evaluations without a question in common, and files that cannot be read or written.
pub fn compare(options: &CompareOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    let (before, after) = (evaluations(&options.before)?, evaluations(&options.after)?);
    let is_file = |found: &BTreeMap<String, _>| found.len() == 1;
    let mut compared = Vec::new();
    // Two single evaluations are compared whatever their names are.
    let pairs: Vec<_> = if is_file(&before) && is_file(&after) {
        before
            .iter()
            .zip(&after)
            .map(|((name, first), (_, second))| (name, first, second))
            .collect()
    } else {
        before.iter().filter_map(|(name, first)| Some((name, first, after.get(name)?))).collect()
    };
    let mut macro_parts = Vec::new();
    for (name, first, second) in pairs {
        let (old, new) = (EvalResult::load(first)?, EvalResult::load(second)?);
        let Some(pairing) = pair(&old.rows, &new.rows, options.seed) else { continue };
        macro_parts.push(differences(&old, &new));
        compared.push(Compared {
            name: name.clone(),
            before: first.clone(),
            after: second.clone(),
            pairing,
        });
    }
    anyhow::ensure!(
        !compared.is_empty(),
        "{} and {} have no evaluation of the same questions; accepted are files that `trainer eval` wrote, or folders with \
         them",
        options.before.display(),
        options.after.display()
    );
    let macro_em = macro_difference(&compared, &macro_parts, options.seed);
    let comparison = Comparison { seed: options.seed, compared, macro_em };
    write!(out, "{}", text(&comparison, options.flips))?;
    if let Some(path) = &options.json {
        atomic_file::write(path, &serde_json::to_vec_pretty(&comparison)?)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Returns the evaluations of a file, of a folder, or of the folder `eval` in a run's folder, by the names of the files.
/// In the files of several sets, the name of the model is left out, so that those of two models meet.
fn evaluations(path: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    if path.is_file() {
        return Ok(BTreeMap::from([(stem(path), path.to_owned())]));
    }
    let inner = path.join("eval");
    let folder = if inner.is_dir() { inner } else { path.to_owned() };
    let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let name = stem(&path);
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        if is_json && name != "summary" {
            let name = name.strip_prefix(&format!("{own}.")).map_or(name.clone(), str::to_owned);
            found.insert(name, path);
        }
    }
    anyhow::ensure!(!found.is_empty(), "{} has no evaluation (*.json)", folder.display());
    Ok(found)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the differences of exact match of the questions in both.
fn differences(before: &EvalResult, after: &EvalResult) -> Vec<f64> {
    let key = |row: &crate::eval::EvalRow| (row.example_id.clone(), row.question.clone());
    let right: BTreeMap<_, bool> = after.rows.iter().map(|row| (key(row), row.em)).collect();
    let as_number = |outcome: bool| f64::from(u8::from(outcome));
    let pairs = before.rows.iter().filter_map(|row| Some((row.em, *right.get(&key(row))?)));
    pairs.map(|(before, after)| as_number(after) - as_number(before)).collect()
}

fn macro_difference(
    compared: &[Compared],
    parts: &[Vec<f64>],
    seed: u64,
) -> Option<MacroDifference> {
    if compared.len() < 2 {
        return None;
    }
    let average = |value: fn(&PairedDifference) -> f64| {
        compared.iter().map(|each| value(&each.pairing.em)).sum::<f64>() / compared.len() as f64
    };
    let groups: Vec<&[f64]> = parts.iter().map(Vec::as_slice).collect();
    Some(MacroDifference {
        before: average(|em| em.before),
        after: average(|em| em.after),
        difference: average(|em| em.difference),
        interval: bootstrap(&groups, seed),
    })
}

fn text(comparison: &Comparison, flips: usize) -> String {
    let header = [
        "evaluation",
        "questions",
        "EM before",
        "EM after",
        "difference",
        "95 % interval",
        "F1 difference",
        "95 % interval",
        "gained",
        "lost",
        "McNemar p",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for Compared { name, pairing, .. } in &comparison.compared {
        rows.push(vec![
            name.clone(),
            pairing.questions.to_string(),
            format!("{:.3}", pairing.em.before),
            format!("{:.3}", pairing.em.after),
            format!("{:+.3}", pairing.em.difference),
            between(pairing.em.interval),
            format!("{:+.3}", pairing.f1.difference),
            between(pairing.f1.interval),
            pairing.gained.len().to_string(),
            pairing.lost.len().to_string(),
            format!("{:.4}", pairing.mcnemar_p),
        ]);
    }
    let mut lines = Vec::new();
    if let Some(average) = comparison.macro_em {
        lines.push(format!(
            "macro EM {:.3} before, {:.3} after: {:+.3} ({})",
            average.before,
            average.after,
            average.difference,
            between(average.interval)
        ));
    }
    for Compared { name, pairing, .. } in &comparison.compared {
        if pairing.unpaired > 0 {
            lines.push(format!("{name}: {} questions are in one only", pairing.unpaired));
        }
        for (title, list) in [("became right", &pairing.gained), ("became wrong", &pairing.lost)] {
            for flip in list.iter().take(flips) {
                lines.push(format!("{name}, {title}: {}", flip_line(flip)));
            }
            if flips > 0 && list.len() > flips {
                lines.push(format!("{name}, {title}: {} more", list.len() - flips));
            }
        }
    }
    let lines: String = lines.into_iter().map(|line| line + "\n").collect();
    aligned(&rows, 1) + &lines
}

fn between(interval: Interval) -> String {
    format!("{:+.3} to {:+.3}", interval.low, interval.high)
}

fn flip_line(flip: &Flip) -> String {
    let shown = |answer: &Option<String>| answer.clone().unwrap_or_else(|| "no answer".to_owned());
    format!(
        "{} {:?}: {} → {} (golden: {})",
        flip.id,
        flip.question,
        shown(&flip.before),
        shown(&flip.after),
        flip.golden_answers.join("; ")
    )
}
