//! The files in the folder of a training run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::json;
use trainer::rollout::trajectory::Trajectory;
use trainer::track::{StepMetrics, read_metrics};

use crate::harness::http::post;

/// Returns the rows of `metrics.jsonl` without the numbers that differ between equal runs. The rows are text,
/// in which NaN equals NaN.
pub(crate) fn comparable_metrics(run_dir: &Path) -> Vec<String> {
    let row = |row: &StepMetrics| serde_json::to_string(&row.without_times()).unwrap();
    metrics(run_dir).iter().map(row).collect()
}

pub(crate) fn metrics(run_dir: &Path) -> Vec<StepMetrics> {
    read_metrics(&run_dir.join("metrics.jsonl")).unwrap()
}

/// Reads all trajectories of a step. Steps count from 1.
pub(crate) fn trajectories(run_dir: &Path, step: u64) -> Vec<Trajectory> {
    let path = run_dir.join("trajectories").join(format!("step-{step}.jsonl.zst"));
    let text = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

pub(crate) fn checkpoint(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join("checkpoints").join(format!("step-{step}"))
}

/// Reads every file under a folder, by its path in the folder.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            let inner = files(&path).into_iter();
            contents.extend(inner.map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            contents.insert(name, fs::read(&path).unwrap());
        }
    }
    contents
}

/// Checks that a server reads the tensors of `model` from the checkpoint `folder` and no others. Servers read every
/// safetensors file directly in a folder: `filter_duplicate_safetensors_files` of vLLM 0.32.0 leaves out only files that
/// an index does not name (`vllm/model_executor/model_loader/weight_utils.py`), and SGLang 0.5.23 has the same rule.
/// A folder of adapters has one file of them and no other.
#[track_caller]
pub(crate) fn assert_servable(folder: &Path, model: &Path) {
    let tensors = |path: &Path| -> Vec<String> {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    };
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    if folder.join("adapter_config.json").is_file() {
        assert_eq!(read, [folder.join("adapter_model.safetensors")]);
        return;
    }
    let index = folder.join("model.safetensors.index.json");
    assert!(read.len() == 1 || index.is_file(), "several files without an index: {read:?}");
    let names: BTreeSet<String> = read.iter().flat_map(|path| tensors(path)).collect();
    assert_eq!(names, tensors(&model.join("model.safetensors")).into_iter().collect());
}

/// Returns the path of a file of a run's state in the checkpoint `folder`.
pub(crate) fn state(folder: &Path, file: &str) -> PathBuf {
    folder.join("state").join(file)
}

/// Reads the weights file of a model folder.
pub(crate) fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

/// Sends every query of the trajectories to the retriever again and checks that the passages are the same.
/// Returns the number of searches.
pub(crate) fn check_searches(trajectories: &[Trajectory], url: &str, top_k: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut searches = 0;
    for trajectory in trajectories {
        for search in &trajectory.searches {
            let body = json!({"queries": [search.query], "topk": top_k});
            let reply = runtime.block_on(post(url, &body));
            let passage_ids: Vec<&str> = reply.body["result"][0]
                .as_array()
                .unwrap()
                .iter()
                .map(|passage| passage["id"].as_str().unwrap())
                .collect();
            assert_eq!(search.passage_ids, passage_ids, "{:?}", search.query);
            searches += 1;
        }
    }
    searches
}
