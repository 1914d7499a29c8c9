use std::fs;

use super::*;

fn parse(text: &str) -> Result<EncoderSettings, Vec<String>> {
    let table = table(text)?;
    EncoderSettings::parse(&table, Path::new("models/one"), None, &ModelFiles::default())
}

/// Reads the settings of a folder with these files.
fn load(files: &[(&str, &str)]) -> Result<EncoderSettings, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    EncoderSettings::load(folder.path())
        .map_err(|error| error.to_string().replace(folder.path().to_str().unwrap(), "FOLDER"))
}

const MODULES: (&str, &str) = (
    "modules.json",
    r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
);
const POOLING: (&str, &str) = ("1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#);

/// Reads a saved folder with one more file.
fn saved(name: &str, text: &str) -> Result<EncoderSettings, String> {
    load(&[MODULES, POOLING, (name, text)])
}

#[track_caller]
fn check_refused(name: &str, text: &str, expected: &str) {
    let refused = saved(name, text).unwrap_err();
    assert!(refused.contains(expected), "{refused}\nexpected {expected}");
}

#[test]
fn a_preset_is_enough_for_a_model() {
    let limit = |tokens| TokenLimit { tokens, is_stated: false };
    let e5 = EncoderSettings {
        pooling: vec![Pooling::Mean],
        leaves_out_prompt: false,
        modules: Vec::new(),
        dimension: None,
        normalize: true,
        query_prefix: "query: ".to_owned(),
        passage_prefix: "passage: ".to_owned(),
        max_query_tokens: limit(256),
        max_passage_tokens: limit(180),
        positions: None,
        model: PathBuf::from("models/one/model.onnx"),
        output: None,
        pads_left: Padding::OfTokenizer(None),
        tokenizer: TokenizerSettings {
            path: PathBuf::from("models/one/tokenizer.json"),
            ..TokenizerSettings::default()
        },
        notes: Vec::new(),
    };
    assert_eq!(parse("preset = 'e5'").unwrap(), e5);
    // Vectors of older versions keep their digest.
    assert_eq!(e5.passage_parts(), ["Mean", "true", "180", "passage: "]);
    let bge = parse("preset = 'bge'").unwrap();
    assert_eq!(bge.pooling, [Pooling::Cls]);
    assert!(bge.query_prefix.starts_with("Represent this sentence"), "{bge:?}");
    assert_eq!(bge.passage_prefix, "");
    for name in ["contriever", "minilm", "gte"] {
        let plain = EncoderSettings {
            query_prefix: String::new(),
            passage_prefix: String::new(),
            ..e5.clone()
        };
        assert_eq!(parse(&format!("preset = '{name}'")).unwrap(), plain);
    }
}

#[test]
fn a_key_wins_over_the_preset() {
    let text = "preset = 'e5'\npooling = 'pooler'\nnormalize = false\nquery_prefix = ''\n\
        max_query_tokens = 64\nmax_passage_tokens = 512\nmodel = 'int8.onnx'\ndimension = 32\n\
        append_token = '</s>'\npadding = 'left'\noutput = 'embedding'";
    let settings = parse(text).unwrap();
    assert_eq!(settings.pooling, [Pooling::Pooler]);
    assert!(!settings.normalize);
    assert_eq!([&settings.query_prefix, &settings.passage_prefix], ["", "passage: "]);
    let limits = [settings.max_query_tokens, settings.max_passage_tokens];
    assert_eq!(limits.map(|limit| (limit.tokens, limit.is_stated)), [(64, true), (512, true)]);
    assert_eq!(settings.model, Path::new("models/one/int8.onnx"));
    assert_eq!(settings.dimension, Some(32));
    assert_eq!(settings.tokenizer.append.as_deref(), Some("</s>"));
    assert_eq!(settings.pads_left, Padding::Stated(true));
    assert_eq!(settings.output.as_deref(), Some("embedding"));
    assert_eq!(parse("pooling = 'cls'").unwrap().pooling, [Pooling::Cls]);
    let joined = parse("pooling = ['lasttoken', 'max']").unwrap().pooling;
    assert_eq!(joined, [Pooling::LastToken, Pooling::Max]);
}

#[test]
fn every_fault_names_key_value_and_what_is_accepted() {
    let text = "preset = 'e6'\npooling = 3\nnormalise = true\nnormalize = 'yes'\n\
        query_prefix = 1\nmax_query_tokens = 7\nmax_passage_tokens = -1\nmodel = []\ndimension = 0\n\
        padding = 'both'";
    let mut faults = parse(text).unwrap_err();
    let mut expected = [
        "normalise = true: unknown key, did you mean normalize? accepted keys are preset, \
         pooling, normalize, query_prefix, passage_prefix, max_query_tokens, \
         max_passage_tokens, model, tokenizer, query_prompt, passage_prompt, dimension, append_token, \
         padding, output",
        r#"preset = "e6": expected "e5", "bge", "contriever", "minilm" or "gte""#,
        r#"pooling = 3: expected "mean", "cls", "pooler", "max", "mean_sqrt_len_tokens", "weightedmean" or "lasttoken", or an array of them"#,
        r#"normalize = "yes": expected true or false"#,
        "query_prefix = 1: expected a quoted string",
        "max_query_tokens = 7: expected an integer from 8 to 131072",
        "max_passage_tokens = -1: expected an integer from 8 to 131072",
        "model = []: expected a quoted string",
        "dimension = 0: expected an integer from 1 to 65536",
        r#"padding = "both": expected "left" or "right""#,
    ];
    faults.sort_unstable();
    expected.sort_unstable();
    assert_eq!(faults, expected);
}

#[test]
fn a_file_without_preset_and_pooling_is_refused() {
    let faults = parse("normalize = true").unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("neither preset nor pooling is set"), "{faults:?}");
    let faults = parse("preset = ").unwrap_err();
    assert!(faults[0].starts_with("is not TOML"), "{faults:?}");
    let faults = parse("pooling = 'mean'\nquery_prompt = 'query'").unwrap_err();
    assert!(faults[0].starts_with("query_prompt = \"query\": expected no such key"), "{faults:?}");
    let refused = load(&[]).unwrap_err();
    assert!(refused.contains("modules.json, needs none"), "{refused}");
}

/// The prompts are those of `encode_query` and `encode_document` in sentence-transformers 6.2.0, where an
/// empty prompt "document" is always there, so "passage" is never found.
#[test]
fn prompts_are_those_of_the_library() {
    let file = "config_sentence_transformers.json";
    let prompts = |text: &str| saved(file, &format!("{{{text}}}")).unwrap();
    let prefixes = |settings: &EncoderSettings| {
        [settings.query_prefix.clone(), settings.passage_prefix.clone()]
    };
    let settings = prompts(r#""prompts": {"query": "q: ", "document": "d: "}"#);
    assert_eq!(prefixes(&settings), ["q: ", "d: "]);
    assert_eq!(settings.notes, [""; 0]);
    let settings = prompts(r#""prompts": {"query": "q: ", "passage": "p: ", "document": null}"#);
    assert_eq!(prefixes(&settings), ["q: ", ""]);
    assert!(settings.notes[0].starts_with("passages get no prompt"), "{:?}", settings.notes);
    let settings = prompts(r#""prompts": {"web": "w: "}, "default_prompt_name": "web""#);
    assert_eq!(prefixes(&settings), ["", ""]);
    assert!(settings.notes[0].contains("only web"), "{:?}", settings.notes);
    assert!(settings.notes[1].starts_with("the default prompt \"web\""), "{:?}", settings.notes);
    let config = (file, r#"{"prompts": {"web": "w: ", "passage": "p: "}}"#);
    let toml = (SETTINGS_FILE, "query_prompt = 'web'\npassage_prefix = 'x: '");
    let settings = load(&[MODULES, POOLING, config, toml]).unwrap();
    assert_eq!(prefixes(&settings), ["w: ", "x: "]);
    assert_eq!(settings.notes, [""; 0]);
    let toml = (SETTINGS_FILE, "query_prompt = 'net'");
    let refused = load(&[MODULES, POOLING, config, toml]).unwrap_err();
    assert!(refused.contains(r#"query_prompt = "net": expected "passage" or "web""#), "{refused}");
}

#[test]
fn lengths_are_those_of_the_library_and_never_over_the_positions() {
    let tokens = |files: &[(&str, &str)]| {
        let settings = load(&[&[MODULES, POOLING], files].concat())?;
        Ok::<_, String>([settings.max_query_tokens.tokens, settings.max_passage_tokens.tokens])
    };
    let bert = ("config.json", r#"{"model_type": "bert", "max_position_embeddings": 512}"#);
    let roberta = (
        "config.json",
        r#"{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}"#,
    );
    let long =
        ("tokenizer_config.json", r#"{"model_max_length": 1000000000000000019884624838656}"#);
    let short = ("tokenizer_config.json", r#"{"model_max_length": 128}"#);
    let old = |text| ("sentence_bert_config.json", text);
    assert_eq!(tokens(&[bert, long]), Ok([512; 2]));
    assert_eq!(tokens(&[roberta, long]), Ok([512; 2]));
    assert_eq!(tokens(&[bert, short]), Ok([128; 2]));
    assert_eq!(tokens(&[bert, short, old(r#"{"max_seq_length": 256}"#)]), Ok([256; 2]));
    assert_eq!(tokens(&[bert, short, old(r#"{"max_seq_length": null}"#)]), Ok([128; 2]));
    let by_role = old(r#"{"max_seq_length": 256, "query_length": 32, "document_length": 300}"#);
    assert_eq!(tokens(&[bert, by_role]), Ok([32, 300]));
    assert_eq!(tokens(&[long]), Ok([8192; 2]));
    let toml = (SETTINGS_FILE, "max_passage_tokens = 100");
    assert_eq!(tokens(&[bert, toml]), Ok([512, 100]));
    let refused = tokens(&[roberta, old(r#"{"max_seq_length": 514}"#)]).unwrap_err();
    let expected = "sentence_bert_config.json: max_seq_length = 514: expected at most 512, the positions \
                    of the model (of 514 in config.json, the first 2 are not for tokens); a lower number \
                    in the file of settings wins";
    assert!(refused.contains(expected), "{refused}");
    let toml = (SETTINGS_FILE, "preset = 'e5'\nmax_query_tokens = 600");
    let refused = load(&[bert, toml]).unwrap_err();
    let expected = "max_query_tokens = 600: expected at most 512, the positions of the model";
    assert!(refused.ends_with(expected), "{refused}");
    let small = ("config.json", r#"{"model_type": "bert", "max_position_embeddings": 128}"#);
    let settings = load(&[small, (SETTINGS_FILE, "preset = 'e5'")]).unwrap();
    assert_eq!(settings.max_query_tokens.tokens, 128);
    let relative = r#"{"model_type": "deberta-v2", "max_position_embeddings": 512,
                       "position_biased_input": false}"#;
    let settings = load(&[("config.json", relative), toml_of(600)]).unwrap();
    assert_eq!(settings.max_query_tokens.tokens, 600);
}

fn toml_of(tokens: usize) -> (&'static str, &'static str) {
    let text = format!("pooling = 'mean'\nmax_query_tokens = {tokens}");
    (SETTINGS_FILE, Box::leak(text.into_boxed_str()))
}

#[test]
fn poolings_are_those_of_both_layouts() {
    let pooling = |text| {
        let settings = load(&[MODULES, ("1_Pooling/config.json", text)]);
        settings.map(|settings| (settings.pooling, settings.leaves_out_prompt))
    };
    let text = r#"{"word_embedding_dimension": 8, "pooling_mode_cls_token": true,
                   "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false}"#;
    assert_eq!(pooling(text), Ok((vec![Pooling::Cls, Pooling::Mean], false)));
    let text =
        r#"{"embedding_dimension": 8, "pooling_mode": ["max", "cls"], "include_prompt": false}"#;
    assert_eq!(pooling(text), Ok((vec![Pooling::Max, Pooling::Cls], true)));
    assert_eq!(pooling("{}"), Ok((vec![Pooling::Mean], false)));
    let refused = pooling(r#"{"pooling_mode": "attention"}"#).unwrap_err();
    let expected =
        r#"FOLDER: 1_Pooling/config.json: pooling_mode = "attention": expected "mean", "cls""#;
    assert!(refused.starts_with(expected), "{refused}");
    let refused = pooling(r#"{"pooling_mode_new": true}"#).unwrap_err();
    assert!(refused.contains("pooling_mode_new = true: unknown key"), "{refused}");
}

#[test]
fn what_a_folder_needs_and_the_program_lacks_is_named() {
    let module = |kind: &str| {
        format!(
            r#"[{{"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}},
                {{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}},
                {{"path": "2_More", "type": "{kind}"}}]"#
        )
    };
    for kind in [
        "sentence_transformers.models.CNN",
        "sentence_transformers.base.modules.router.Router",
        "pylate.models.Dense.Dense",
        "custom_st.Pooling",
    ] {
        check_refused("modules.json", &module(kind), &format!("module 2 has type = {kind:?}"));
    }
    let static_model = r#"[{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]"#;
    check_refused("modules.json", static_model, "module 0 has type = ");
    let dense = module("sentence_transformers.models.Dense");
    check_refused("modules.json", &dense, "2_More/model.safetensors: does not exist");
    let file = "sentence_bert_config.json";
    check_refused(file, r#"{"transformer_task": "fill-mask"}"#, "transformer_task = \"fill-mask\"");
    check_refused(file, r#"{"new_key": 1}"#, "new_key = 1: unknown key");
    check_refused(file, r#"{"processing_kwargs": {"text": {}}}"#, "processing_kwargs = ");
    let file = "config_sentence_transformers.json";
    check_refused(file, r#"{"model_type": "SparseEncoder"}"#, "expected \"SentenceTransformer\"");
    check_refused(
        file,
        r#"{"similarity_fn_name": "manhattan"}"#,
        "similarity_fn_name = \"manhattan\"",
    );
    check_refused(file, r#"{"default_prompt_name": "none"}"#, "default_prompt_name = \"none\"");
    check_refused(file, "[]", "config_sentence_transformers.json: is [], expected an object");
    check_refused("tokenizer_config.json", r#"{"padding_side": "top"}"#, "padding_side = \"top\"");
    check_refused("config.json", "{", "config.json: is not JSON");
    check_refused("modules.json", "{}", "modules.json: is {}, expected an array of modules");
}

/// Vectors that are compared by product keep their length.
#[test]
fn the_similarity_decides_on_the_length_of_vectors() {
    let file = "config_sentence_transformers.json";
    let scaled = |text: &str| saved(file, text).unwrap().normalize;
    assert!(scaled("{}"));
    assert!(scaled(r#"{"similarity_fn_name": "cosine", "truncate_dim": 4}"#));
    assert!(!scaled(r#"{"similarity_fn_name": "dot"}"#));
    let config = (file, r#"{"similarity_fn_name": "dot"}"#);
    let settings = load(&[MODULES, POOLING, config, (SETTINGS_FILE, "dimension = 4")]).unwrap();
    assert!(settings.normalize);
}

/// `add_eos_token` in tokenizer_config.json does nothing in transformers 5.24.0 beside a tokenizer.json.
#[test]
fn an_end_token_without_effect_is_noted() {
    let settings = saved("tokenizer_config.json", r#"{"add_eos_token": true}"#).unwrap();
    assert!(settings.notes[0].starts_with("add_eos_token in tokenizer_config.json has no effect"));
}
