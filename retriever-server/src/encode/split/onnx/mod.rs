//! Separation of the weights of products from an ONNX file.
//!
//! An ONNX file is a message whose fields are defined in onnx.proto3 of the ONNX project. Fields that
//! this module does not need are copied byte for byte, so unknown parts of a file are kept.

use std::collections::HashMap;

use crate::encode::message::{Field, Value, bytes_field, fields, number_field, only, take_number};

/// The domain of the nodes that replace products.
pub(super) const DOMAIN: &str = "retriever";
/// The operator of those nodes.
pub(super) const OPERATOR: &str = "SplitMatMul";
/// The attribute with the index of the node's weights in [`Separated::products`].
pub(super) const WEIGHTS: &str = "weights";
/// The attribute with the index of the node among all replacements.
pub(super) const NODE: &str = "node";
/// The attribute with the number of columns of a product.
pub(super) const COLUMNS: &str = "columns";

/// The fewest rows and columns of weights to separate. Smaller ones stay in the file.
const MIN_SIDE: usize = 32;
/// The smallest table to separate. Smaller ones stay in the file.
const MIN_TABLE_BYTES: usize = 1 << 20;

/// A model and the weights that were removed from it.
#[derive(Debug)]
pub(super) struct Separated<'a> {
    /// The rest of the file, with nodes of [`DOMAIN`] in place of products.
    pub(super) model: Vec<u8>,
    /// The weights, at least one.
    pub(super) products: Vec<Matrix<'a>>,
    /// The tables in which nodes look up rows. They are now inputs of the model.
    pub(super) tables: Vec<Tensor<'a>>,
}

/// A matrix of weights, the right factor of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix<'a> {
    /// The numbers as little-endian `f32`, row after row.
    pub(super) numbers: &'a [u8],
    /// The number of rows, which is the length of an activation.
    pub(super) inner: usize,
    /// The number of columns, which is the length of a product.
    pub(super) columns: usize,
}

/// Separates a file. Returns `None` if it cannot be parsed or has no weights to remove.
pub(super) fn separate(file: &[u8]) -> Option<Separated<'_>> {
    let model = fields(file)?;
    let graph = only(&model, model::GRAPH)?.bytes()?;
    let (graph, products, tables) = separate_graph(graph)?;
    let mut separated = Vec::with_capacity(graph.len() + 1024);
    for field in &model {
        if field.number == model::GRAPH {
            separated.extend(bytes_field(model::GRAPH, &graph));
        } else {
            separated.extend_from_slice(field.whole);
        }
    }
    let import =
        [bytes_field(opset::DOMAIN, DOMAIN.as_bytes()), number_field(opset::VERSION, 1)].concat();
    separated.extend(bytes_field(model::OPSET_IMPORT, &import));
    Some(Separated { model: separated, products, tables })
}

/// Separates a graph. Returns the rest of it, the weights and the tables.
fn separate_graph(graph: &[u8]) -> Option<(Vec<u8>, Vec<Matrix<'_>>, Vec<Tensor<'_>>)> {
    let graph = fields(graph)?;
    let all = |number: u64| graph.iter().filter(move |field| field.number == number);
    let tensors = all(graph::INITIALIZER)
        .map(|field| Tensor::parse(field.bytes()?))
        .collect::<Option<Vec<_>>>()?;
    let nodes =
        all(graph::NODE).map(|field| Node::parse(field.bytes()?)).collect::<Option<Vec<_>>>()?;
    // A nested graph may use any name of this one, and its uses are not counted.
    if tensors.iter().any(|tensor| tensor.is_elsewhere) || nodes.iter().any(|node| node.has_graph) {
        return None;
    }
    let mut uses = Uses::count(&nodes);
    // The caller may replace a tensor that is also an input, and read one that is an output.
    for field in all(graph::INPUT).chain(all(graph::OUTPUT)) {
        uses.add(only(&fields(field.bytes()?)?, value::NAME)?.bytes()?);
    }

    let mut products = Vec::new();
    let mut positions: HashMap<&[u8], usize> = HashMap::new();
    for tensor in tensors.iter().filter(|tensor| uses.is_only(Purpose::RightFactor, tensor.name)) {
        if let Some(matrix) = tensor.matrix() {
            positions.insert(tensor.name, products.len());
            products.push(matrix);
        }
    }
    if products.is_empty() {
        return None;
    }

    let (mut separated, mut tables) = (Vec::new(), Vec::new());
    let (mut nodes, mut tensors) = (nodes.iter(), tensors.into_iter());
    let mut count = 0;
    for field in &graph {
        match field.number {
            graph::NODE => {
                let node = nodes.next()?;
                let right = node.operand.filter(|(purpose, _)| *purpose == Purpose::RightFactor);
                if let Some(&position) = right.and_then(|(_, name)| positions.get(name)) {
                    let columns = products.get(position)?.columns;
                    let node =
                        node.replacement([(WEIGHTS, position), (NODE, count), (COLUMNS, columns)]);
                    separated.extend(bytes_field(graph::NODE, &node));
                    count += 1;
                } else {
                    separated.extend_from_slice(field.whole);
                }
            }
            graph::INITIALIZER => {
                let tensor = tensors.next()?;
                if positions.contains_key(tensor.name) {
                    // The nodes of its products have it, so it leaves the file.
                } else if uses.is_only(Purpose::Table, tensor.name) && tensor.is_large_matrix() {
                    separated.extend(bytes_field(graph::INPUT, &tensor.as_input()));
                    tables.push(tensor);
                } else {
                    separated.extend_from_slice(field.whole);
                }
            }
            _ => separated.extend_from_slice(field.whole),
        }
    }
    Some((separated, products, tables))
}

/// A use of a tensor by a node that this module can replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// The right factor of a product.
    RightFactor,
    /// The table in which a node looks up rows.
    Table,
}

/// The number of uses of each tensor, by name.
struct Uses<'a> {
    all: HashMap<&'a [u8], usize>,
    by_purpose: HashMap<(Purpose, &'a [u8]), usize>,
}

impl<'a> Uses<'a> {
    /// Counts the uses by `nodes`.
    fn count(nodes: &[Node<'a>]) -> Self {
        let mut uses = Self { all: HashMap::new(), by_purpose: HashMap::new() };
        for node in nodes {
            node.inputs.iter().for_each(|input| uses.add(input));
            if let Some(operand) = node.operand {
                *uses.by_purpose.entry(operand).or_default() += 1;
            }
        }
        uses
    }

    fn add(&mut self, name: &'a [u8]) {
        *self.all.entry(name).or_default() += 1;
    }

    /// Returns `true` if a tensor is used, and only for this purpose.
    fn is_only(&self, purpose: Purpose, name: &'a [u8]) -> bool {
        let for_purpose = self.by_purpose.get(&(purpose, name));
        for_purpose.is_some() && for_purpose == self.all.get(name)
    }
}

/// A node of the graph.
struct Node<'a> {
    fields: Vec<Field<'a>>,
    inputs: Vec<&'a [u8]>,
    /// The input that may be separated, with its purpose.
    operand: Option<(Purpose, &'a [u8])>,
    has_graph: bool,
}

impl<'a> Node<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fields = fields(bytes)?;
        let (mut inputs, mut has_graph) = (Vec::new(), false);
        let (mut operator, mut domain): (&[u8], &[u8]) = (b"", b"");
        for field in &fields {
            match field.number {
                node::INPUT => inputs.push(field.bytes()?),
                node::OPERATOR => operator = field.bytes()?,
                node::DOMAIN => domain = field.bytes()?,
                node::ATTRIBUTE => {
                    has_graph |= self::fields(field.bytes()?)?
                        .iter()
                        .any(|field| [attribute::GRAPH, attribute::GRAPHS].contains(&field.number));
                }
                _ => {}
            }
        }
        let operand = match (domain, operator, inputs.as_slice()) {
            (b"" | b"ai.onnx", b"MatMul", &[_, right]) => Some((Purpose::RightFactor, right)),
            (b"" | b"ai.onnx", b"Gather", &[table, _]) => Some((Purpose::Table, table)),
            _ => None,
        };
        Some(Self { fields, inputs, operand, has_graph })
    }

    /// Encodes the node that replaces this product, with these attributes.
    fn replacement(&self, attributes: [(&str, usize); 3]) -> Vec<u8> {
        let mut replacement = Vec::new();
        let mut is_left = true;
        for field in &self.fields {
            let is_kept = match field.number {
                node::INPUT => std::mem::take(&mut is_left),
                node::OPERATOR | node::DOMAIN => false,
                _ => true,
            };
            if is_kept {
                replacement.extend_from_slice(field.whole);
            }
        }
        replacement.extend(bytes_field(node::OPERATOR, OPERATOR.as_bytes()));
        replacement.extend(bytes_field(node::DOMAIN, DOMAIN.as_bytes()));
        for (name, number) in attributes {
            let attribute = [
                bytes_field(attribute::NAME, name.as_bytes()),
                number_field(attribute::INTEGER, number as u64),
                number_field(attribute::KIND, attribute::KIND_INTEGER),
            ];
            replacement.extend(bytes_field(node::ATTRIBUTE, &attribute.concat()));
        }
        replacement
    }
}

/// A tensor in the file.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    name: &'a [u8],
    sizes: Vec<u64>,
    kind: u64,
    /// The numbers, little-endian if they are `f32`.
    numbers: &'a [u8],
    /// `true` if its numbers are in another file.
    is_elsewhere: bool,
}

impl<'a> Tensor<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut tensor =
            Self { name: b"", sizes: Vec::new(), kind: 0, numbers: b"", is_elsewhere: false };
        for field in fields(bytes)? {
            match (field.number, field.value) {
                (tensor::SIZES, Value::Number(size)) => tensor.sizes.push(size),
                (tensor::SIZES, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        tensor.sizes.push(take_number(&mut packed)?);
                    }
                }
                (tensor::KIND, Value::Number(kind)) => tensor.kind = kind,
                (tensor::LOCATION, Value::Number(location)) => tensor.is_elsewhere = location != 0,
                (tensor::NAME, Value::Bytes(name)) => tensor.name = name,
                // Packed `f32` have the same bytes as raw ones.
                (tensor::RAW | tensor::FLOATS, Value::Bytes(numbers)) => tensor.numbers = numbers,
                _ => {}
            }
        }
        Some(tensor)
    }

    /// Returns its name if that is text.
    pub(super) fn name(&self) -> Option<&'a str> {
        std::str::from_utf8(self.name).ok()
    }

    /// Returns its sizes if it holds as many `f32`.
    pub(super) fn sizes(&self) -> Option<Vec<usize>> {
        let sizes: Option<Vec<usize>> =
            self.sizes.iter().map(|&size| usize::try_from(size).ok()).collect();
        let sizes = sizes?;
        let numbers = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let is_whole = numbers.checked_mul(size_of::<f32>()) == Some(self.numbers.len());
        (is_whole && self.kind == tensor::KIND_F32).then_some(sizes)
    }

    /// Returns its numbers, if they are `f32`.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f32> {
        let (numbers, _) = self.numbers.as_chunks::<4>();
        numbers.iter().map(|&bytes| f32::from_le_bytes(bytes))
    }

    fn is_large_matrix(&self) -> bool {
        self.numbers.len() >= MIN_TABLE_BYTES && self.matrix().is_some() && self.name().is_some()
    }

    /// Returns the tensor as a matrix if it is one of `f32` and large enough.
    fn matrix(&self) -> Option<Matrix<'a>> {
        let [inner, columns] = *self.sizes()? else { return None };
        (inner.min(columns) >= MIN_SIDE).then_some(Matrix { numbers: self.numbers, inner, columns })
    }

    /// Encodes an input with the name and the sizes of the tensor.
    fn as_input(&self) -> Vec<u8> {
        let size = |&size| bytes_field(shape::SIZE, &number_field(shape::SIZE_NUMBER, size));
        let sizes: Vec<u8> = self.sizes.iter().flat_map(size).collect();
        let kind = [number_field(kind::ELEMENT, self.kind), bytes_field(kind::SHAPE, &sizes)];
        let kind = bytes_field(kind::TENSOR, &kind.concat());
        [bytes_field(value::NAME, self.name), bytes_field(value::KIND, &kind)].concat()
    }
}

// The field numbers of the messages in onnx.proto3.
mod model {
    pub(super) const GRAPH: u64 = 7;
    pub(super) const OPSET_IMPORT: u64 = 8;
}
mod opset {
    pub(super) const DOMAIN: u64 = 1;
    pub(super) const VERSION: u64 = 2;
}
mod graph {
    pub(super) const NODE: u64 = 1;
    pub(super) const INITIALIZER: u64 = 5;
    pub(super) const INPUT: u64 = 11;
    pub(super) const OUTPUT: u64 = 12;
}
mod value {
    pub(super) const NAME: u64 = 1;
    pub(super) const KIND: u64 = 2;
}
mod kind {
    pub(super) const TENSOR: u64 = 1;
    pub(super) const ELEMENT: u64 = 1;
    pub(super) const SHAPE: u64 = 2;
}
mod shape {
    pub(super) const SIZE: u64 = 1;
    pub(super) const SIZE_NUMBER: u64 = 1;
}
mod node {
    pub(super) const INPUT: u64 = 1;
    pub(super) const OPERATOR: u64 = 4;
    pub(super) const ATTRIBUTE: u64 = 5;
    pub(super) const DOMAIN: u64 = 7;
}
mod attribute {
    pub(super) const NAME: u64 = 1;
    pub(super) const INTEGER: u64 = 3;
    pub(super) const GRAPH: u64 = 6;
    pub(super) const GRAPHS: u64 = 11;
    pub(super) const KIND: u64 = 20;
    pub(super) const KIND_INTEGER: u64 = 2;
}
mod tensor {
    pub(super) const SIZES: u64 = 1;
    pub(super) const KIND: u64 = 2;
    pub(super) const FLOATS: u64 = 4;
    pub(super) const NAME: u64 = 8;
    pub(super) const RAW: u64 = 9;
    pub(super) const LOCATION: u64 = 14;
    pub(super) const KIND_F32: u64 = 1;
}

#[cfg(test)]
mod tests;
