//! Names and shapes of a model's tensors in Hugging Face files.

use super::config::ModelConfig;

/// Lists every tensor that the decoder needs, in a fixed order.
pub(super) fn expected_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, vocab) = (size(config.hidden_size), size(config.vocab_size));
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
    for layer in 0..config.layers.len() {
        let named = |(part, shape)| (format!("model.layers.{layer}.{part}"), shape);
        shapes.extend(layer_shapes(config).into_iter().map(named));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tied_embeddings {
        shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
    }
    shapes
}

/// Lists every linear module of every layer with its outputs and inputs, in a fixed order.
pub(super) fn adaptable_shapes(config: &ModelConfig) -> Vec<(String, [usize; 2])> {
    let of_layer = |layer: usize| {
        layer_maps(config)
            .into_iter()
            .map(move |(part, shape, _)| (format!("model.layers.{layer}.{part}"), shape))
    };
    (0..config.layers.len()).flat_map(of_layer).collect()
}

/// Lists the linear modules of a layer: name, outputs and inputs, and `true` if there is a bias.
fn layer_maps(config: &ModelConfig) -> [(&'static str, [usize; 2], bool); 7] {
    let (hidden, inner) = (size(config.hidden_size), size(config.intermediate_size));
    let head = size(config.head_dim);
    let query = size(config.heads) * head;
    let key = size(config.key_value_heads) * head;
    let biases = config.biases;
    [
        ("self_attn.q_proj", [query, hidden], biases.query_key_value),
        ("self_attn.k_proj", [key, hidden], biases.query_key_value),
        ("self_attn.v_proj", [key, hidden], biases.query_key_value),
        ("self_attn.o_proj", [hidden, query], biases.attention_output),
        ("mlp.gate_proj", [inner, hidden], biases.feed_forward),
        ("mlp.up_proj", [inner, hidden], biases.feed_forward),
        ("mlp.down_proj", [hidden, inner], biases.feed_forward),
    ]
}

fn layer_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, head) = (size(config.hidden_size), size(config.head_dim));
    let mut shapes = vec![("input_layernorm.weight".to_owned(), vec![hidden])];
    for (module, [outputs, inputs], biased) in layer_maps(config) {
        shapes.push((format!("{module}.weight"), vec![outputs, inputs]));
        if biased {
            shapes.push((format!("{module}.bias"), vec![outputs]));
        }
    }
    if config.query_key_norm {
        shapes.push(("self_attn.q_norm.weight".to_owned(), vec![head]));
        shapes.push(("self_attn.k_norm.weight".to_owned(), vec![head]));
    }
    shapes.push(("post_attention_layernorm.weight".to_owned(), vec![hidden]));
    shapes
}

fn size(value: i64) -> usize {
    usize::try_from(value).expect("the sizes of a configuration are at least 1")
}
