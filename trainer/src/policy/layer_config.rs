//! Settings that families choose for a layer, in terms of the common parts.

/// The linear maps that have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    pub query_key_value: bool,
    pub attention_output: bool,
    pub feed_forward: bool,
}

impl Biases {
    /// Gives all maps of attention the same setting.
    pub(super) fn new(attention: bool, feed_forward: bool) -> Self {
        Self { query_key_value: attention, attention_output: attention, feed_forward }
    }
}

/// The settings of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerConfig {
    /// `true` if queries and keys are turned by their position.
    pub rotary: bool,
    /// Number of tokens that a token attends to, itself included. `None` means all tokens before it.
    pub window: Option<i64>,
}
