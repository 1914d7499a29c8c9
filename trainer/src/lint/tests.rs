use super::*;
use crate::config::{Config, Environment};
use crate::golden;
use crate::policy::stored_bytes;
use crate::policy::tests::{CHECKPOINTS, F32, tiny};

const SETTINGS: [&str; 10] = [
    "rollout.max_turns=2",
    "rollout.max_prompt_tokens=32",
    "rollout.max_response_tokens=16",
    "rollout.max_observation_tokens=24",
    "rollout.max_passage_tokens=8",
    "training.steps=10",
    "training.prompts_per_step=4",
    "training.group_size=6",
    "training.trajectories_per_update=8",
    "update.tokens_per_micro_batch=256",
];

fn config(more: &[&str]) -> Config {
    let settings: Vec<String> =
        SETTINGS.iter().chain(more).map(|setting| (*setting).to_owned()).collect();
    Config::load(None, &Environment::new(), &settings).unwrap()
}

fn model(name: &str, compute_bytes: u64) -> ModelFacts {
    let folder = golden::path(name);
    let config = ModelConfig::read(&folder).unwrap();
    let stored_bytes = stored_bytes(&folder, &config).unwrap();
    ModelFacts { config, stored_bytes, compute_bytes, packed: None, on_host: true }
}

fn facts(model: ModelFacts) -> Facts {
    let model = ModelSource::Known(Box::new(model));
    let retrievers = Vec::new();
    Facts { model, questions: Some(100), retrievers, measured: None, warnings: Vec::new() }
}

fn bytes(parts: &[Part]) -> Vec<(&'static str, u64)> {
    parts.iter().map(|part| (part.name, part.bytes)).collect()
}

#[test]
fn parameters_and_stored_bytes_are_those_of_every_checkpoint() {
    for name in CHECKPOINTS {
        let (policy, _) = tiny(name, F32);
        let facts = model(name, 4);
        assert_eq!(facts.config.parameter_count(), policy.parameter_count() as u64, "{name}");
        let file = std::fs::read(golden::path(name).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap());
        assert_eq!(facts.stored_bytes, file.len() as u64 - 8 - header, "{name}");
    }
}

#[test]
fn updates_rates_and_checkpoints_are_counted() {
    let more =
        ["training.learning_rate=1e-6", "training.warmup_updates=4", "training.epochs_per_step=2"];
    let counts = plan(&config(&more));
    assert_eq!((counts.step_trajectories, counts.update_trajectories), (24, 8));
    assert_eq!((counts.step_updates, counts.updates, counts.critic_updates), (6, 60, 0));
    assert_eq!((counts.searches_most, counts.generations_most), (2, 3));
    for (rate, expected) in counts.rates.into_iter().zip([0.25e-6, 1e-6, 1e-6]) {
        assert!((rate - expected).abs() < 1e-18, "{rate}");
    }
    for (every, expected) in [("0", 1), ("4", 3), ("5", 2)] {
        let save = format!("training.save_every_steps={every}");
        assert_eq!(plan(&config(&[&save])).checkpoints, expected, "{every}");
    }
    let gae = ["algorithm.advantage=gae", "critic.warmup_steps=3"];
    let counts = plan(&config(&gae));
    assert_eq!((counts.updates, counts.critic_updates), (21, 30));
}

#[test]
fn memory_is_the_sum_of_its_parts() {
    // 128 words of 32 numbers, and two layers of 9216 numbers in matrices and 64 in norms.
    let needs = memory(&config(&[]), &model("llama-tiny-tied", 4));
    let held = [
        ("weights", 4 * 22_688),
        ("gradients", 4 * 22_688),
        ("moments", 8 * 22_688),
        ("sampler", 4 * 12_288),
        ("reference", 4 * (4096 + 160) + 4 * (18_432 + 4096)),
        // Keys and values of 2 layers, 2 heads of 8 numbers, 64 episodes of 128 tokens.
        ("cache", 2 * 2 * 16 * 64 * 128 * 4),
    ];
    assert_eq!(bytes(&needs.held), held);
    let update = [
        ("compute copy", 4 * 12_288),
        ("activations", 256 * 2 * (16 * 32 + 4 * (3 * 32 + 4 * 16 + 4 * 64))),
        ("logits", 256 * 128 * 12),
        ("head gradient", 128 * 32 * 12),
    ];
    assert_eq!(bytes(&needs.update), update);
    // Several updates a step: the policy's own log-probs and the reference's.
    let scoring = [("compute copy", 4 * 12_288), ("logits", 256 * 128 * 16)];
    assert_eq!(bytes(&needs.scoring), scoring);
    assert_eq!(bytes(&needs.checkpoint), [("model", 90_752), ("optimizer", 181_504)]);

    // The inputs of two layers and of the final norm, and what one layer keeps; logits of 256 tokens.
    let more = ["update.checkpoint_activations=layers", "update.tokens_per_micro_batch=1000"];
    let update = memory(&config(&more), &model("llama-tiny-tied", 4)).update;
    let one_layer = 16 * 32 + 4 * (3 * 32 + 4 * 16 + 4 * 64);
    assert_eq!(update[1].bytes, 1000 * (3 * 4 * 32 + one_layer));
    assert_eq!(update[2].bytes, 256 * 128 * 12);

    let more = ["algorithm.advantage=gae", "training.kl_coefficient=0"];
    let needs = memory(&config(&more), &model("llama-tiny-tied", 2));
    let sampler = 2 * (18_432 + 4096);
    let critic = [("critic", 4), ("its gradients", 4), ("its moments", 8)];
    let critic = critic.map(|(name, width)| (name, width * 22_721));
    assert_eq!(bytes(&needs.held)[3..7], [&[("sampler", sampler)], &critic[..]].concat());
    assert_eq!(needs.held.last().unwrap().bytes, 2 * 2 * 16 * 64 * 128 * 2);
    assert_eq!(needs.checkpoint.last().unwrap().bytes, 12 * 22_721);
}

#[test]
fn packed_weights_take_the_place_of_the_samplers_copy() {
    let packed = |format: WeightFormat, more: &[&str]| {
        let model = ModelFacts { packed: Some(format), ..model("llama-tiny-tied", 4) };
        let held = memory(&config(more), &model).held;
        let bytes = |name: &str| held.iter().find(|part| part.name == name).map(|part| part.bytes);
        (bytes("sampler"), bytes("cache"))
    };
    let (matrices, cache) = (18_432 + 4096, 2 * 2 * 16 * 64 * 128);
    let sampler = |width: u64| Some(4 * 4096 + width * matrices);
    assert_eq!(packed(WeightFormat::F32, &[]), (sampler(4), Some(4 * cache)));
    // The format does not depend on the type that the policy computes in.
    assert_eq!(packed(WeightFormat::Bf16, &[]), (sampler(2), Some(2 * cache)));
    assert_eq!(packed(WeightFormat::Int8, &["lora.rank=2"]), (sampler(1), Some(2 * cache)));
    let servers = ["engine.kind=vllm", "engine.urls=http://127.0.0.1:1"];
    let model = model("llama-tiny-tied", 4);
    let held = memory(&config(&servers), &model).held;
    assert!(held.iter().all(|part| !["sampler", "cache"].contains(&part.name)), "{held:?}");
}

#[test]
fn offloaded_moments_are_listed_separately() {
    let offload = ["optimizer.offload=true", "algorithm.advantage=gae"];
    let here = model("llama-tiny-tied", 2);
    let needs = memory(&config(&offload), &here);
    assert!(needs.host.is_empty() && needs.held.iter().any(|part| part.name == "moments"));
    let warned = warnings(&config(&offload), &facts(here.clone())).join("\n");
    assert!(warned.contains("`optimizer.offload` = true"), "{warned}");

    let elsewhere = ModelFacts { on_host: false, ..here };
    let needs = memory(&config(&offload), &elsewhere);
    assert_eq!(bytes(&needs.host), [("moments", 8 * 22_688), ("its moments", 8 * 22_721)]);
    assert!(needs.held.iter().all(|part| !part.name.ends_with("moments")), "{:?}", needs.held);
    assert!(memory(&config(&[]), &elsewhere).host.is_empty());
    let facts = facts(elsewhere);
    let text = report(&config(&offload), &facts);
    assert!(text.contains("host 363.3 kB: held in host memory"), "{text}");
    let json = report_json(&config(&offload), &facts);
    assert_eq!(json["memory_bytes"]["host"]["moments"], 8 * 22_688);
    assert!(!warnings(&config(&offload), &facts).join("").contains("offload"));
}

#[test]
fn adapters_take_gradients_moments_and_no_reference() {
    let model = model("llama-tiny-tied", 4);
    // Of a layer: 32 in and out for queries and the output, 16 out for keys and values.
    let more = ["lora.rank=2", "lora.targets=q_proj,v_proj,o_proj", "algorithm.advantage=gae"];
    let adapters = 2 * 2 * (64 + 48 + 64);
    let needs = memory(&config(&more), &model);
    let critic = adapters + 33;
    let held = [
        ("weights", 4 * 22_688),
        ("adapters", 4 * adapters),
        ("gradients", 4 * adapters),
        ("moments", 8 * adapters),
        ("sampler", 4 * (12_288 + 2 * 32 * 32)),
        ("critic", 4 * critic),
        ("its gradients", 4 * critic),
        ("its moments", 8 * critic),
    ];
    assert_eq!(bytes(&needs.held)[..8], held);
    let checkpoint = [
        ("model", 90_752),
        ("adapters", 4 * adapters),
        ("optimizer", 8 * adapters),
        ("critic", 12 * critic),
    ];
    assert_eq!(bytes(&needs.checkpoint), checkpoint);
    let alone = [&more[..2], &["lora.merge_on_save=false"]].concat();
    let needs = memory(&config(&alone), &model);
    assert_eq!(bytes(&needs.checkpoint), [("adapters", 4 * adapters), ("optimizer", 8 * adapters)]);
    let needs = memory(&config(&["checkpoint.dtype=bf16"]), &model);
    let rounded = [("model", 45_376), ("masters", 90_752), ("optimizer", 181_504)];
    assert_eq!(bytes(&needs.checkpoint), rounded);
}

#[test]
fn the_report_for_programs_has_the_same_numbers() {
    let config = config(&["retriever.top_k=4"]);
    let facts = facts(model("llama-tiny-tied", 4));
    let json = report_json(&config, &facts);
    assert_eq!(json["step"]["updates"], 3);
    assert_eq!(json["run"]["questions"], 100);
    assert_eq!(json["memory_bytes"]["held"]["weights"], 4 * 22_688);
    assert_eq!(json["memory_bytes"]["log_probs"]["compute_copy"], 4 * 12_288);
    assert_eq!(json["warnings"].as_array().unwrap().len(), warnings(&config, &facts).len());
    assert!(json["measured"].is_null() && json["model_unknown"].is_null(), "{json}");
    let unknown = Facts { model: ModelSource::Unknown("why".to_owned()), ..facts };
    let json = report_json(&config, &unknown);
    assert_eq!(
        (&json["memory_bytes"], &json["model_unknown"]),
        (&serde_json::Value::Null, &serde_json::json!("why"))
    );
}

#[test]
fn work_counts_every_pass() {
    // 24 trajectories of 100 tokens, 10 parameters: one pass forward is 48000 operations.
    let one_update = config(&["training.trajectories_per_update=0", "training.kl_coefficient=0"]);
    let work = tokens(&one_update, 10, 100);
    let operations = |work: Tokens| {
        [work.rollout_operations, work.scoring_operations, work.update_operations]
            .map(|count| count as u64)
    };
    assert_eq!((work.rollout, operations(work)), (2400, [48_000, 0, 144_000]));
    // Reference, old log-probs and values; a critic in addition to the policy.
    let work = tokens(&config(&["algorithm.advantage=gae"]), 10, 100);
    assert_eq!(operations(work), [48_000, 144_000, 288_000]);
}

#[test]
fn what_the_model_cannot_hold_is_refused_with_key_and_value() {
    let facts = facts(model("llama-tiny-tied", 4));
    assert_eq!(problems(&config(&[]), &facts), []);
    for (setting, message) in [
        (
            "rollout.max_prompt_tokens=128",
            "`rollout.max_prompt_tokens` = 128 leaves no space for a turn within the positions of the \
             model (max_position_embeddings = 128); did you mean 64?",
        ),
        (
            "rollout.max_context_tokens=129",
            "`rollout.max_context_tokens` = 129 exceeds the positions of the model \
             (max_position_embeddings = 128); did you mean 128?",
        ),
    ] {
        let problems = problems(&config(&[setting]), &facts);
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(lines, [message]);
    }
}

#[test]
fn warnings_name_key_value_and_remedy() {
    let facts = facts(model("llama-tiny-tied", 4));
    // 24 trajectories in updates of 8, an episode of 128 tokens, which the model just holds.
    assert_eq!(warnings(&config(&["retriever.top_k=3"]), &facts), Vec::<String>::new());
    for (setting, parts) in [
        ("training.warmup_updates=31", ["`training.warmup_updates` = 31", "use at most 30"]),
        (
            "training.trajectories_per_update=7",
            ["`training.trajectories_per_update` = 7", "divisor"],
        ),
        ("training.prompts_per_step=101", ["`training.prompts_per_step` = 101", "at most 100"]),
        ("rollout.max_context_tokens=100", ["`rollout.max_context_tokens` = 100", "128 tokens"]),
        ("rollout.max_turns=3", ["max_position_embeddings = 128", "lower `rollout.max_turns`"]),
        ("retriever.top_k=4", ["`rollout.max_observation_tokens` = 24", "32"]),
    ] {
        let warned = warnings(&config(&[setting]), &facts).join("\n");
        let count = warned.lines().filter(|line| line.contains(parts[0])).count();
        assert_eq!(count, 1, "{setting}: {warned}");
        assert!(warned.contains(parts[1]), "{setting}: {warned}");
    }
    let gae = ["algorithm.advantage=gae", "critic.warmup_updates=99"];
    let warned = warnings(&config(&gae), &facts).join("\n");
    assert!(warned.contains("`critic.warmup_updates` = 99"), "{warned}");
}

#[test]
fn the_report_says_what_is_not_known() {
    let model = ModelSource::Unknown("model.path is not set".to_owned());
    let retrievers = Vec::new();
    let facts = Facts { model, questions: None, retrievers, measured: None, warnings: Vec::new() };
    let text = report(&config(&[]), &facts);
    for part in [
        "memory      not known: model.path is not set\n",
        "time        not known until a step has run\n",
        "data.train does not exist, so its size is unknown",
        "retriever   not asked\n",
        "3 updates of 8 trajectories",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let measured = Some(Measured { steps: 4, step_seconds: 600.0, peak_mib: 512 });
    let text = report(&config(&[]), &Facts { measured, ..facts });
    assert!(
        text.contains(
            "600.0 s per step (mean of the latest, after 4 steps), 1.0 h for the remaining 6;"
        ),
        "{text}"
    );
}

#[test]
fn the_report_says_what_the_retriever_answered() {
    let reply_of = |host: &str, count: usize| RetrieverReply::Passages {
        url: format!("http://{host}/retrieve"),
        question: "capital of\nPeru?".to_owned(),
        passages: vec![Passage::new("7", format!("\"Lima\"\n{}", "Peru ".repeat(30))); count],
        milliseconds: 12,
    };
    let said = |retrievers: Vec<RetrieverReply>| {
        let model = ModelSource::Unknown("no".to_owned());
        let facts =
            Facts { model, questions: None, retrievers, measured: None, warnings: Vec::new() };
        let config = config(&[]);
        assert_eq!(problems(&config, &facts).len(), 0);
        let json = report_json(&config, &facts)["retrievers"].clone();
        (report(&config, &facts), warnings(&config, &facts).join("\n"), json)
    };
    let (text, warned, json) = said(vec![reply_of("host", 3)]);
    let lines = "retriever   http://host/retrieve: 3 passages in 12 ms\n            \
                 for the question capital of Peru?\n              1 \"Lima\" Peru Peru";
    assert!(text.contains(lines), "{text}");
    assert!(!warned.contains("retriever"), "{warned}");
    assert_eq!(json[0]["passages"][2]["id"], "7");
    let (text, warned, _) = said(vec![reply_of("host", 0)]);
    assert!(text.contains(": 0 passages in"), "{text}");
    assert!(warned.contains("finds nothing for the question \"capital of\\nPeru?\""), "{warned}");
    let (_, warned, _) = said(vec![reply_of("host", 5)]);
    assert!(
        warned.contains("`retriever.top_k` = 3 has no effect") && warned.contains("5 passages")
    );
    let (text, warned, json) = said(vec![RetrieverReply::Silent("nobody there".to_owned())]);
    assert!(text.contains("retriever   nobody there\n"), "{text}");
    assert!(warned.contains("was not checked: nobody there; start the retriever"), "{warned}");
    assert_eq!(json[0]["error"], "nobody there");
    let silent = RetrieverReply::Silent("nobody there".to_owned());
    let (text, warned, json) = said(vec![reply_of("a", 2), silent, reply_of("b", 2)]);
    let lines = "retriever   http://a/retrieve: 2 passages in 12 ms\n            nobody there\n            \
                 http://b/retrieve: 2 passages in 12 ms\n            for the question capital of";
    assert!(text.contains(lines) && text.matches("for the question").count() == 1, "{text}");
    assert_eq!(warned.matches("retriever.url").count(), 1, "{warned}");
    assert_eq!(json.as_array().unwrap().len(), 3);
}

#[test]
fn a_retriever_whose_answer_is_of_no_use_is_refused_with_its_address() {
    for (reply, expected) in [
        (
            RetrieverReply::Unusable("status 404: Not Found".to_owned()),
            "`retriever.url` = \"http://host/wrong\" does not answer searches: status 404: Not Found",
        ),
        (
            RetrieverReply::Mixed("b differs from a".to_owned()),
            "`retriever.url` = \"http://host/wrong\" is a mix: b differs from a",
        ),
    ] {
        let (model, retrievers) = (ModelSource::Unknown("no".to_owned()), vec![reply]);
        let facts =
            Facts { model, questions: None, retrievers, measured: None, warnings: Vec::new() };
        let problems = problems(&config(&["retriever.url=http://host/wrong"]), &facts);
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.to_string().contains(expected), "{problem}");
    }
}
