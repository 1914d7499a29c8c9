//! The forms of graphs that exporters write: types of inputs and outputs, fixed sizes, caches, outputs that
//! are already pooled. The vectors of tokens are known, and no vector depends on its batch.

use std::fs;

use tempfile::TempDir;

use super::graph_file::{GraphFile, Kind, ROW, Size, TEXTS, TOKENS, token};
use super::*;

/// A tokenizer for which each letter from a to n is the token 1 to 14. Texts have no special tokens.
fn tokenizer() -> String {
    let vocabulary: Vec<String> = (0..TOKENS)
        .map(|id| match id {
            0 => r#""[PAD]": 0"#.to_owned(),
            15 => r#""</s>": 15"#.to_owned(),
            id => format!("\"{}\": {id}", char::from(b'a' + id as u8 - 1)),
        })
        .collect();
    format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "post_processor": null, "decoder": null,
            "pre_tokenizer": {{"type": "Whitespace"}},
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "[PAD]"}}}}"#,
        vocabulary.join(", ")
    )
}

/// Creates the folder of a graph, with these settings beside `normalize = false`.
fn folder(graph: &GraphFile, settings: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), graph.bytes()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer()).unwrap();
    let settings = format!("normalize = false\n{settings}");
    fs::write(folder.path().join("retriever.toml"), settings).unwrap();
    folder
}

/// Texts of different lengths, with their tokens.
const TEXTS_AND_TOKENS: [(&str, &[u32]); 4] =
    [("a b c", &[1, 2, 3]), ("n", &[14]), ("e e e e e g", &[5, 5, 5, 5, 5, 7]), ("b d", &[2, 4])];

/// Checks that vectors are the `expected` functions of the tokens, together and one by one, to the bit.
#[track_caller]
fn check(graph: &GraphFile, settings: &str, expected: impl Fn(&[u32]) -> [f32; 2]) {
    let folder = folder(graph, settings);
    let encoder = open(folder.path());
    let texts = TEXTS_AND_TOKENS.map(|(text, _)| text);
    let together = encode(&encoder, &texts, Role::Passage);
    for ((text, tokens), together) in TEXTS_AND_TOKENS.into_iter().zip(&together) {
        assert_eq!(together.as_slice(), expected(tokens), "{text:?} among others");
        let alone = encode(&encoder, &[text], Role::Passage);
        assert_eq!(alone[0].as_slice(), expected(tokens), "{text:?} alone");
    }
}

fn mean(tokens: &[u32]) -> [f32; 2] {
    let sum = |component: usize| tokens.iter().map(|&id| token(id)[component]).sum::<f32>();
    [sum(0), sum(1)].map(|sum| sum / tokens.len() as f32)
}

fn last(tokens: &[u32]) -> [f32; 2] {
    token(*tokens.last().unwrap())
}

fn masked(kind: Kind) -> GraphFile {
    GraphFile::new(kind, [TEXTS, ROW]).input("attention_mask", kind, &[TEXTS, ROW])
}

#[test]
fn outputs_may_be_halves_and_inputs_narrow() {
    for output in [Kind::F32, Kind::F16, Kind::Bf16] {
        let graph = masked(Kind::I32).tokens("last_hidden_state", output, "tokens");
        check(&graph, "pooling = 'lasttoken'", last);
    }
    for mask in [Kind::F32, Kind::F16, Kind::Bool] {
        let graph =
            GraphFile::new(Kind::I64, [TEXTS, ROW]).input("attention_mask", mask, &[TEXTS, ROW]);
        let graph = graph.tokens("token_embeddings", Kind::F32, "tokens");
        check(&graph, "pooling = 'mean'", mean);
    }
    let graph = masked(Kind::I64).tokens("last_hidden_state", Kind::I32, "tokens");
    let refused = refusal(folder(&graph, "pooling = 'mean'").path());
    assert!(refused.contains("output last_hidden_state is "), "{refused}");
    assert!(refused.contains("expected float32, float16, bfloat16 or float64"), "{refused}");
    let graph =
        GraphFile::new(Kind::I64, [TEXTS, ROW]).input("position_ids", Kind::F32, &[TEXTS, ROW]);
    let graph = graph.tokens("last_hidden_state", Kind::F32, "tokens");
    let refused = refusal(folder(&graph, "pooling = 'mean'").path());
    assert!(refused.contains("input position_ids is "), "{refused}");
    assert!(refused.contains("expected int64 or int32"), "{refused}");
}

/// Positions count from the first token of a text, whatever the side of padding.
#[test]
fn positions_come_from_the_mask() {
    let positions: Vec<f32> = (0..8192).flat_map(|position| [position as f32, 0.0]).collect();
    let graph = masked(Kind::I64)
        .input("position_ids", Kind::I64, &[TEXTS, ROW])
        .tensor("positions", &[8192, 2], &positions)
        .node("Gather", &["positions", "position_ids"], "by_position", &[])
        .node("Add", &["tokens", "by_position"], "sum", &[])
        .tokens("last_hidden_state", Kind::F32, "sum");
    let expected = |tokens: &[u32]| {
        let [first, second] = last(tokens);
        [first + (tokens.len() - 1) as f32, second]
    };
    for side in ["left", "right"] {
        check(&graph, &format!("pooling = 'lasttoken'\npadding = '{side}'"), expected);
        let first = |tokens: &[u32]| token(tokens[0]);
        check(&graph, &format!("pooling = 'cls'\npadding = '{side}'"), first);
    }
    // Positions of a RoBERTa begin behind that of its padding.
    let roberta = folder(&graph, "pooling = 'lasttoken'");
    let config = r#"{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}"#;
    fs::write(roberta.path().join("config.json"), config).unwrap();
    let vectors = encode(&open(roberta.path()), &["a b c"], Role::Query);
    assert_eq!(vectors, [[3.0 + 2.0 + 2.0, 9.0 / 8.0]]);
}

/// A graph that takes the end of the row as the end of the text needs padding before it.
#[test]
fn a_pooled_output_is_not_pooled_again() {
    let graph = masked(Kind::I64).last("sentence_embedding");
    check(&graph, "pooling = 'mean'\npadding = 'left'", last);
    // Vectors of tokens win, because the settings then define the pooling.
    let both = masked(Kind::I64).last("sentence_embedding").tokens(
        "token_embeddings",
        Kind::F32,
        "tokens",
    );
    check(&both, "pooling = 'mean'", mean);
    let chosen = "pooling = 'mean'\npadding = 'left'\noutput = 'sentence_embedding'";
    check(&both, chosen, last);
    let other = masked(Kind::I64).tokens("layer_norm_4", Kind::F32, "tokens");
    check(&other, "pooling = 'mean'\noutput = 'layer_norm_4'", mean);
    let refused = refusal(folder(&other, "pooling = 'mean'").path());
    let expected = "outputs are layer_norm_4, expected last_hidden_state or token_embeddings or \
                    sentence_embedding, or output in retriever.toml";
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn fixed_sizes_are_filled() {
    for texts in [1, 3] {
        let sizes = [Size::Fixed(texts), ROW];
        let graph = GraphFile::new(Kind::I64, sizes).input("attention_mask", Kind::I64, &sizes);
        let graph = graph.tokens("last_hidden_state", Kind::F32, "tokens");
        check(&graph, "pooling = 'mean'", mean);
    }
    let sizes = [TEXTS, Size::Fixed(9)];
    let graph = GraphFile::new(Kind::I64, sizes).input("attention_mask", Kind::I64, &sizes);
    let graph = graph.tokens("last_hidden_state", Kind::F32, "tokens");
    check(&graph, "pooling = 'mean'", mean);
    // A default length is lowered, and a stated one is refused.
    let long = open(folder(&graph, "pooling = 'lasttoken'").path());
    let vectors = encode(&long, &["a b c d e f g h i j k"], Role::Query);
    assert_eq!(vectors, [token(9)]);
    let refused = refusal(folder(&graph, "pooling = 'mean'\nmax_query_tokens = 10").path());
    let expected = "max_query_tokens = 10: expected at most 9, the fixed number of tokens of ";
    assert!(refused.starts_with(expected), "{refused}");
}

#[test]
fn a_decoder_gets_an_empty_cache() {
    let cache = [TEXTS, Size::Fixed(2), Size::Free("earlier"), Size::Fixed(4)];
    for kind in [Kind::F32, Kind::F16] {
        let graph = masked(Kind::I64)
            .input("past_key_values.0.key", kind, &cache)
            .input("past_key_values.0.value", kind, &cache)
            .input("use_cache_branch", Kind::Bool, &[Size::Fixed(1)])
            .tokens("last_hidden_state", Kind::F32, "tokens");
        check(&graph, "pooling = 'lasttoken'", last);
    }
    let free = [TEXTS, Size::Free("heads"), Size::Free("earlier"), Size::Fixed(4)];
    let graph = masked(Kind::I64).input("past_key_values.0.key", Kind::F32, &free).tokens(
        "last_hidden_state",
        Kind::F32,
        "tokens",
    );
    let refused = refusal(folder(&graph, "pooling = 'mean'").path());
    assert!(refused.contains("input past_key_values.0.key has sizes "), "{refused}");
    let graph = masked(Kind::I64).input("pixel_values", Kind::F32, &[TEXTS]).tokens(
        "last_hidden_state",
        Kind::F32,
        "tokens",
    );
    let refused = refusal(folder(&graph, "pooling = 'mean'").path());
    assert!(refused.contains("input pixel_values is unknown"), "{refused}");
}

/// Padding would count as text, so each text gets a run of its own.
#[test]
fn a_graph_without_a_mask_gets_no_padding() {
    let graph = GraphFile::new(Kind::I64, [TEXTS, ROW]).last("sentence_embedding");
    check(&graph, "pooling = 'mean'", last);
}

/// e5-mistral ends each text with `</s>`, which its tokenizer does not add.
#[test]
fn a_token_is_appended_within_the_limit() {
    let graph = masked(Kind::I64).tokens("last_hidden_state", Kind::F32, "tokens");
    let settings = "append_token = '</s>'\nmax_query_tokens = 8\nmax_passage_tokens = 8";
    check(&graph, &format!("{settings}\npooling = 'lasttoken'"), |_| token(15));
    let long = open(folder(&graph, &format!("{settings}\npooling = 'mean'")).path());
    let vectors = encode(&long, &["a b c d e f g h i"], Role::Query);
    assert_eq!(vectors, [mean(&[1, 2, 3, 4, 5, 6, 7, 15])]);
    let refused = refusal(folder(&graph, "pooling = 'mean'\nappend_token = '<end>'").path());
    assert!(refused.contains("append_token = \"<end>\" is not one of its tokens"), "{refused}");
}

#[test]
fn a_prefix_must_leave_room_for_the_text() {
    let graph = masked(Kind::I64).tokens("last_hidden_state", Kind::F32, "tokens");
    let settings = "pooling = 'mean'\nmax_query_tokens = 8\nquery_prefix = 'a b c d e f g '";
    let fits = folder(&graph, settings);
    let vectors = encode(&open(fits.path()), &["h i j"], Role::Query);
    assert_eq!(vectors, [mean(&[1, 2, 3, 4, 5, 6, 7, 8])]);
    let settings = settings.replace("g '", "g h '");
    let refused = refusal(folder(&graph, &settings).path());
    let expected =
        "the prefix \"a b c d e f g h \" has 8 tokens, expected fewer than 8, the limit of a query";
    assert_eq!(refused, expected);
}

#[test]
fn vectors_are_shortened_before_they_are_scaled() {
    let graph = masked(Kind::I64).tokens("last_hidden_state", Kind::F32, "tokens");
    let folder = folder(&graph, "pooling = ['lasttoken', 'cls']\ndimension = 3");
    let path = folder.path().join("retriever.toml");
    let settings = fs::read_to_string(&path).unwrap();
    let plain = encode(&open(folder.path()), &["c d"], Role::Query);
    assert_eq!(plain, [[4.0, 2.0, 3.0]]);
    fs::write(&path, settings.replace("normalize = false", "")).unwrap();
    let scaled = encode(&open(folder.path()), &["c d"], Role::Query);
    assert!(
        difference(&scaled[0], &[4.0 / 29f32.sqrt(), 2.0 / 29f32.sqrt(), 3.0 / 29f32.sqrt()])
            < 1e-6
    );
    fs::write(&path, settings.replace("dimension = 3", "dimension = 300")).unwrap();
    assert_eq!(open(folder.path()).dimension(), 4);
}

/// The end of a text counts if there are few tokens in many bytes before it.
#[test]
fn long_white_space_does_not_hide_the_rest() {
    let graph = masked(Kind::I64).tokens("last_hidden_state", Kind::F32, "tokens");
    let folder = folder(&graph, "pooling = 'lasttoken'\nmax_query_tokens = 8");
    let text = format!("a{}b", " ".repeat(10_000));
    let vectors = encode(&open(folder.path()), &[&text], Role::Query);
    assert_eq!(vectors, [token(2)]);
}
