//! Short runs of a warm-started tiny model.

use std::path::PathBuf;

use trainer::run::train;

use crate::harness::retriever::RetrieverHandle;
use crate::harness::run_dir::{
    assert_servable, checkpoint, comparable_metrics, files, metrics, weights,
};
use crate::harness::tiny_world::TinyWorld;

/// A warm-started world with its retriever.
pub(crate) struct Trained {
    pub(crate) world: TinyWorld,
    pub(crate) retriever: RetrieverHandle,
}

impl Trained {
    pub(crate) fn start() -> Self {
        let world = TinyWorld::build();
        let retriever = RetrieverHandle::start(&world.index());
        world.warm_start(&retriever);
        Self { world, retriever }
    }

    pub(crate) fn train(&self, run: &str, steps: &str, settings: &[&str]) {
        self.try_train(run, steps, settings).unwrap();
    }

    pub(crate) fn try_train(
        &self,
        run: &str,
        steps: &str,
        settings: &[&str],
    ) -> Result<(), String> {
        let settings: Vec<&str> =
            ["training.prompts_per_step=3", steps].iter().chain(settings).copied().collect();
        let config = self.world.config(&self.retriever.url(), run, &settings);
        train(&config, &mut Vec::new()).map_err(|error| format!("{error:#}"))
    }

    /// Checks that one run of two steps equals two runs of one step, and that training changes the weights.
    pub(crate) fn check(&self, name: &str, settings: &[&str]) {
        let whole = self.check_resumed(name, settings);
        let learned = weights(&checkpoint(&whole, 2)) != weights(&self.world.model());
        assert!(learned, "{name}: the weights did not change");
    }

    /// Checks that one run of two steps equals a run of one step that is resumed for a second. Returns the
    /// folder of the uninterrupted run.
    pub(crate) fn check_resumed(&self, name: &str, settings: &[&str]) -> PathBuf {
        let (whole, halved) = (format!("{name}-whole"), format!("{name}-halved"));
        self.train(&whole, "training.steps=2", settings);
        self.train(&halved, "training.steps=1", settings);
        self.train(&halved, "training.steps=2", settings);
        let [whole, halved] = [whole, halved].map(|run| self.world.run_dir(&run));
        assert_eq!(comparable_metrics(&whole), comparable_metrics(&halved), "{name}");
        assert_eq!(metrics(&whole).len(), 2, "{name}");
        let [first, second] = [&whole, &halved].map(|run| checkpoint(run, 2));
        assert_servable(&first, &self.world.model());
        let (first, second) = (files(&first), files(&second));
        assert!(first.keys().eq(second.keys()), "{name}: {:?}", first.keys());
        for (file, bytes) in &first {
            assert!(&second[file] == bytes, "{name}: {} differs", file.display());
        }
        for row in metrics(&whole) {
            let numbers = [row.policy_loss, row.grad_norm, row.kl, row.entropy];
            assert!(numbers.iter().all(|number| number.is_finite()), "{name}: {row:?}");
        }
        whole
    }
}
