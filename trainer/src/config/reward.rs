//! The sections of rewards: the built-in measures, users' own code, and a judge.

use std::path::PathBuf;

use super::section::section;
use super::value::Range;
use crate::reward::RewardKind;

section! {
    /// The reward of a finished trajectory: the score of `reward.kind` and of further measures, each times its weight,
    /// less the cost of searches. Scores from outside are added to it.
    pub struct RewardConfig in "reward" {
        /// The kind of reward.
        kind: RewardKind = RewardKind::ExactMatch;
        /// For `structured`: score of a well-formed trajectory with a wrong answer.
        structure_format_score: f64 = 0.2, Range::between(0.0, 1.0);
        /// For `structured`: score of an ill-formed trajectory that gives an answer.
        final_format_score: f64 = 0.1, Range::between(0.0, 1.0);
        /// For `structured`: added if the passages contain a golden answer.
        retrieval_score: f64 = 0.1, Range::between(0.0, 1.0);
        /// Score of a wrong answer by `em`, `sub_em` and `f1`; a missing answer scores 0.
        wrong_answer_score: f64 = 0.0, Range::between(-1.0, 1.0);
        /// Weight of the score of `reward.kind`.
        kind_weight: f64 = 1.0, Range::at_least(0.0);
        /// Weight of exact match, added to the score.
        em_weight: f64 = 0.0, Range::at_least(0.0);
        /// Weight of containment, added to the score.
        sub_em_weight: f64 = 0.0, Range::at_least(0.0);
        /// Weight of F1, added to the score.
        f1_weight: f64 = 0.0, Range::at_least(0.0);
        /// Subtracted for each search that was sent.
        search_cost: f64 = 0.0, Range::at_least(0.0);
        /// Answers that decline to answer, separated by semicolons, such as `I don't know; unknown`. Empty: none do.
        abstentions: String = String::new();
        /// Score of such an answer, instead of that of `reward.kind`.
        abstention_score: f64 = 0.0, Range::between(-1.0, 1.0);
    }
}

section! {
    /// Users' own reward over HTTP: a batch of trajectories in, a score for each out (docs/rewards.md).
    pub struct RewardHttpConfig in "reward_http" {
        /// Address to post to. Empty: there is none.
        url: String = String::new();
        /// Weight of its score, added to that of `[reward]`.
        weight: f64 = 1.0, Range::at_least(0.0);
        /// Maximum number of trajectories in a request.
        batch: usize ["trajectories"] = 64, Range::between(1.0, 65_536.0);
        /// Maximum number of concurrent requests; further ones wait.
        max_in_flight: usize ["requests"] = 4, Range::between(1.0, 4096.0);
        /// Time limit for one attempt.
        attempt_timeout_ms: u64 ["ms"] = 30_000, Range::at_least(1.0);
        /// Time limit for a request, all attempts included, after which its trajectories are dropped.
        deadline_ms: u64 ["ms"] = 120_000, Range::at_least(1.0);
        /// Name of the environment variable with the key that the service needs. Empty: none is sent.
        api_key_variable: String = String::new();
    }
}

section! {
    /// A language model as judge, over a server of OpenAI's chat protocol; verdicts are kept on disk.
    pub struct JudgeConfig in "judge" {
        /// Base address of the server, such as `http://localhost:8001/v1`. Empty: there is no judge.
        url: String = String::new();
        /// Name of the model at that server.
        model: String = String::new();
        /// Weight of the verdict, which is between 0 and 1, added to the score of `[reward]`.
        weight: f64 = 1.0, Range::at_least(0.0);
        /// File with criteria by which the whole trajectory is judged; without it, the answer is judged against the
        /// golden answers.
        rubric: Option<PathBuf> = None;
        /// File with the message to the judge, in place of the built-in one (docs/rewards.md lists its placeholders).
        template: Option<PathBuf> = None;
        /// Maximum length of a reply.
        max_tokens: usize ["tokens"] = 512, Range::at_least(1.0);
        /// Maximum number of concurrent requests; further ones wait.
        max_in_flight: usize ["requests"] = 16, Range::between(1.0, 4096.0);
        /// Time limit for one attempt.
        attempt_timeout_ms: u64 ["ms"] = 60_000, Range::at_least(1.0);
        /// Time limit for a verdict, all attempts included, after which its trajectory is dropped.
        deadline_ms: u64 ["ms"] = 300_000, Range::at_least(1.0);
        /// Name of the environment variable with the key of the server; no key is sent if it is unset.
        api_key_variable: String = "OPENAI_API_KEY".to_owned();
        /// File of the verdicts; without it, `verdicts.jsonl` in the run folder.
        verdicts: Option<PathBuf> = None;
    }
}
