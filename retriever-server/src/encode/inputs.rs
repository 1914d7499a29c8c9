//! The inputs of a model: those that this program knows, their types, and the sizes that a graph fixes.

use std::sync::Arc;

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, TensorRef};

use super::library::whole_text;
use super::session::TokenRows;

/// The contents of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The token ids.
    Ids,
    /// 1 for each token and 0 for padding.
    Mask,
    /// The type of each token.
    Types,
    /// The position of each token.
    Positions,
    /// Keys or values of earlier tokens, of which there are none.
    Earlier,
    /// `false`: there are no earlier tokens.
    UsesEarlier,
}

impl Content {
    /// The inputs with one number per token.
    const OF_TOKENS: [(&'static str, Self); 4] = [
        ("input_ids", Self::Ids),
        ("attention_mask", Self::Mask),
        ("token_type_ids", Self::Types),
        ("position_ids", Self::Positions),
    ];

    /// Returns the content of the input called `name`. Decoders have inputs for a cache.
    fn of(name: &str) -> Option<Self> {
        let is_earlier = name.starts_with("past_key_values.") || name.starts_with("past.");
        match name {
            "use_cache_branch" => Some(Self::UsesEarlier),
            _ if is_earlier => Some(Self::Earlier),
            _ => Self::OF_TOKENS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|&(_, content)| content),
        }
    }
}

/// An input of a graph.
#[derive(Debug)]
struct Input {
    name: String,
    content: Content,
    kind: TensorElementType,
    /// The sizes; one that is free is negative.
    sizes: Vec<i64>,
}

/// The inputs of a graph, with the sizes that it fixes.
#[derive(Debug)]
pub(super) struct Inputs {
    all: Vec<Input>,
    /// The number of texts of every run, if the graph fixes it.
    pub(super) texts: Option<usize>,
    /// The number of tokens of every row, if the graph fixes it.
    pub(super) tokens: Option<usize>,
    /// `true` if the graph can tell tokens from padding.
    pub(super) has_mask: bool,
}

impl Inputs {
    /// Returns the session's inputs apart from the tables. An unknown one is an error.
    pub(super) fn of(
        session: &Session,
        tables: &[(String, Arc<DynValue>)],
    ) -> Result<Self, String> {
        let names = Content::OF_TOKENS.map(|(name, _)| name);
        let is_table = |input: &&Outlet| tables.iter().any(|(name, _)| name == input.name());
        let mut inputs = Vec::new();
        for input in session.inputs().iter().filter(|input| !is_table(input)) {
            let name = input.name();
            let content = Content::of(name).ok_or_else(|| {
                format!(
                    "input {name} is unknown, expected {} or the past_key_values of a decoder",
                    names.join(", ")
                )
            })?;
            inputs.push(Input::read(input, content)?);
        }
        let of = |content: Content| inputs.iter().find(|input| input.content == content);
        let ids = of(Content::Ids).ok_or_else(|| format!("there is no input {}", names[0]))?;
        let fixed = |axis: usize| ids.sizes.get(axis).and_then(|&size| usize::try_from(size).ok());
        let (texts, tokens) = (fixed(0), fixed(1));
        let has_mask = of(Content::Mask).is_some();
        if texts == Some(0) || tokens == Some(0) {
            return Err(format!(
                "input {} has sizes {:?}, expected none that is 0",
                ids.name, ids.sizes
            ));
        }
        Ok(Self { all: inputs, texts, tokens, has_mask })
    }

    /// Returns the values of the inputs for `rows`, whose first position is `first_position`.
    pub(super) fn values<'a>(
        &'a self,
        rows: &'a TokenRows,
        first_position: i64,
    ) -> Result<Vec<(&'a str, SessionInputValue<'a>)>, String> {
        let mut values = Vec::with_capacity(self.all.len());
        for input in &self.all {
            let value = input.value(rows, first_position).map_err(|error| whole_text(&error))?;
            values.push((input.name.as_str(), value));
        }
        Ok(values)
    }
}

impl Input {
    fn read(input: &Outlet, content: Content) -> Result<Self, String> {
        use TensorElementType::{Bool, Float16, Float32, Int32, Int64};
        let name = input.name().to_owned();
        let sizes = input.dtype().tensor_shape().map(|sizes| sizes.to_vec()).unwrap_or_default();
        let kind = input.dtype().tensor_type();
        let accepted: &[TensorElementType] = match content {
            Content::Ids | Content::Types | Content::Positions => &[Int64, Int32],
            Content::Mask => &[Int64, Int32, Float32, Float16, Bool],
            Content::Earlier => &[Float32, Float16],
            Content::UsesEarlier => &[Bool],
        };
        let Some(kind) = kind.filter(|kind| accepted.contains(kind)) else {
            let accepted: Vec<String> =
                accepted.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
            let accepted = accepted.join(" or ");
            return Err(format!("input {name} is {}, expected {accepted}", input.dtype()));
        };
        if content == Content::Earlier {
            // Text, head, token, number: heads and numbers are needed to make an empty tensor.
            let is_whole = matches!(*sizes, [_, heads, _, numbers] if heads > 0 && numbers > 0);
            if !is_whole {
                return Err(format!(
                    "input {name} has sizes {sizes:?}, expected four with fixed numbers of heads and \
                     of components; export the model without a cache"
                ));
            }
        }
        Ok(Self { name, content, kind, sizes })
    }

    fn value<'a>(
        &self,
        rows: &'a TokenRows,
        first_position: i64,
    ) -> ort::Result<SessionInputValue<'a>> {
        match self.content {
            Content::Earlier => self.nothing(rows.lengths.len()),
            Content::UsesEarlier => {
                let sizes: Vec<i64> = self.sizes.iter().map(|_| 1).collect();
                Ok(Tensor::from_array((sizes, vec![false]))?.into())
            }
            Content::Ids if self.kind == TensorElementType::Int64 => {
                let shape = [rows.lengths.len(), rows.row_tokens];
                Ok(TensorRef::from_array_view((shape, rows.ids.as_slice()))?.into())
            }
            Content::Ids => self.numbers(rows, rows.ids.clone()),
            Content::Mask => self.numbers(rows, rows.by_token(|_| 1)),
            Content::Positions => {
                self.numbers(rows, rows.by_token(|position| first_position + position as i64))
            }
            Content::Types => {
                let types = rows.types.clone();
                self.numbers(rows, types.unwrap_or_else(|| vec![0; rows.ids.len()]))
            }
        }
    }

    /// Returns numbers as a tensor of the input's type.
    fn numbers<'a>(
        &self,
        rows: &TokenRows,
        numbers: Vec<i64>,
    ) -> ort::Result<SessionInputValue<'a>> {
        let shape = [rows.lengths.len(), rows.row_tokens];
        Ok(match self.kind {
            TensorElementType::Int32 => {
                let numbers: Vec<i32> = numbers.into_iter().map(|number| number as i32).collect();
                Tensor::from_array((shape, numbers))?.into()
            }
            TensorElementType::Float32 => {
                let numbers: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
                Tensor::from_array((shape, numbers))?.into()
            }
            TensorElementType::Float16 => {
                let numbers: Vec<f16> =
                    numbers.into_iter().map(|number| f16::from_f32(number as f32)).collect();
                Tensor::from_array((shape, numbers))?.into()
            }
            TensorElementType::Bool => {
                let numbers: Vec<bool> = numbers.into_iter().map(|number| number != 0).collect();
                Tensor::from_array((shape, numbers))?.into()
            }
            _ => Tensor::from_array((shape, numbers))?.into(),
        })
    }

    /// Returns a tensor for no earlier tokens.
    fn nothing<'a>(&self, texts: usize) -> ort::Result<SessionInputValue<'a>> {
        let shape = [texts as i64, self.sizes[1], 0, self.sizes[3]];
        Ok(match self.kind {
            TensorElementType::Float16 => Tensor::from_array((shape, Vec::<f16>::new()))?.into(),
            _ => Tensor::from_array((shape, Vec::<f32>::new()))?.into(),
        })
    }
}
