//! Questions as people have them, in whole runs: prompts that rows carry, several files, a curriculum.

use std::fs;

use serde_json::{Value, json};
use trainer::rollout::trajectory::Trajectory;

use crate::harness::run_dir::{checkpoint, state, trajectories};
use crate::harness::trained::Trained;

/// Returns the rows of the training questions with a prompt of their own.
fn prompted(trained: &Trained) -> Vec<Value> {
    let text = fs::read_to_string(trained.world.train_questions()).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|mut row| {
        let asked =
            format!("Let me search for this. Question: {}\n", row["question"].as_str().unwrap());
        row["prompt"] = json!([{"role": "user", "content": asked}]);
        row
    })
    .collect()
}

fn lines(rows: &[Value]) -> String {
    rows.iter().flat_map(|row| [row.to_string(), "\n".to_owned()]).collect()
}

/// Returns the text of a trajectory's prompt.
fn prompt(trajectory: &Trajectory) -> &str {
    &trajectory.segments[0].text
}

#[test]
fn a_run_asks_with_the_prompts_of_its_rows() {
    let trained = Trained::start();
    let rows = prompted(&trained);
    fs::write(trained.world.train_questions(), lines(&rows)).unwrap();
    trained.train("carried", "training.steps=1", &["data.prompt=file"]);
    let played = trajectories(&trained.world.run_dir("carried"), 1);
    assert!(!played.is_empty());
    for trajectory in &played {
        let row = rows.iter().find(|row| row["id"] == trajectory.example_id.as_str()).unwrap();
        assert_eq!(prompt(trajectory), row["prompt"][0]["content"]);
    }
    trained.train("template", "training.steps=1", &[]);
    let played = trajectories(&trained.world.run_dir("template"), 1);
    assert!(played.iter().all(|trajectory| prompt(trajectory).starts_with("Question: ")));
    // A system message that no chat template joins.
    let mut several = rows;
    several[7]["prompt"] =
        json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "q"}]);
    fs::write(trained.world.train_questions(), lines(&several)).unwrap();
    let error =
        trained.try_train("several", "training.steps=1", &["data.prompt=file"]).unwrap_err();
    assert!(error.contains("\"q7\" carries a prompt of 2 messages"), "{error}");
}

#[test]
fn a_mixture_and_a_curriculum_resume_as_if_nothing_had_stopped() {
    let trained = Trained::start();
    let text = fs::read_to_string(trained.world.train_questions()).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let folder = trained.world.path();
    fs::write(folder.join("one.jsonl"), all[..3].join("\n")).unwrap();
    fs::write(folder.join("two.jsonl"), all[3..5].join("\n")).unwrap();
    let train = format!("data.train={0}/one.jsonl, {0}/two.jsonl", folder.display());
    let settings = [
        train.as_str(),
        "data.mix=1, 2",
        "data.curriculum=true",
        "data.curriculum_hard=0.3",
        "data.curriculum_easy=0.6",
        "data.curriculum_kept=0.1",
    ];
    let whole = trained.check_resumed("curriculum", &settings);
    let rates = fs::read(state(&checkpoint(&whole, 2), "pass_rates.json")).unwrap();
    let rates: Value = serde_json::from_slice(&rates).unwrap();
    let rates = rates.as_object().unwrap();
    assert!(!rates.is_empty() && rates.len() <= 5, "{rates:?}");
    // The rates are those of the trajectories: four of each group were played.
    assert!(
        rates.values().all(|rate| rate["played"].as_u64().unwrap().is_multiple_of(4)),
        "{rates:?}"
    );
}
