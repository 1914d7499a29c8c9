//! Writes small ONNX files. The vector of a token is its row in a table, so every vector is known.

use crate::encode::message::{bytes_field, number_field};

/// The table's rows: token n has the vector [n, n² / 8]. Halves hold these numbers exactly.
pub(super) fn token(id: u32) -> [f32; 2] {
    [id as f32, (id * id) as f32 / 8.0]
}

/// The number of rows of the table.
pub(super) const TOKENS: u32 = 16;

/// The element types of onnx.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32 = 1,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    Bf16 = 16,
}

/// A size of an input or output.
#[derive(Clone, Copy)]
pub(super) enum Size {
    Free(&'static str),
    Fixed(u64),
}

pub(super) const TEXTS: Size = Size::Free("texts");
pub(super) const ROW: Size = Size::Free("tokens");
const DIMENSION: Size = Size::Fixed(2);

/// A graph to write.
#[derive(Default)]
pub(super) struct GraphFile {
    nodes: Vec<u8>,
    tensors: Vec<u8>,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
}

impl GraphFile {
    /// Starts a graph with the input `input_ids`, and `tokens`: the vectors of the tokens in f32.
    pub(super) fn new(ids: Kind, sizes: [Size; 2]) -> Self {
        let table: Vec<f32> = (0..TOKENS).flat_map(token).collect();
        Self::default()
            .input("input_ids", ids, &sizes)
            .tensor("table", &[u64::from(TOKENS), 2], &table)
            .node("Gather", &["table", "input_ids"], "tokens", &[])
    }

    pub(super) fn input(mut self, name: &str, kind: Kind, sizes: &[Size]) -> Self {
        self.inputs.extend(bytes_field(11, &declared(name, kind, sizes)));
        self
    }

    fn output(mut self, name: &str, kind: Kind, sizes: &[Size]) -> Self {
        self.outputs.extend(bytes_field(12, &declared(name, kind, sizes)));
        self
    }

    /// Adds an output with a vector per token, converted from `from`.
    pub(super) fn tokens(self, name: &str, kind: Kind, from: &str) -> Self {
        self.node("Cast", &[from], name, &[("to", kind as u64)]).output(
            name,
            kind,
            &[TEXTS, ROW, DIMENSION],
        )
    }

    /// Adds an output with a vector per text: the token at the end of the row.
    pub(super) fn last(self, name: &str) -> Self {
        self.integer("end", -1).node("Gather", &["tokens", "end"], name, &[("axis", 1)]).output(
            name,
            Kind::F32,
            &[TEXTS, DIMENSION],
        )
    }

    pub(super) fn tensor(mut self, name: &str, sizes: &[u64], numbers: &[f32]) -> Self {
        let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.push_tensor(name, sizes, Kind::F32, &raw);
        self
    }

    fn integer(mut self, name: &str, number: i64) -> Self {
        self.push_tensor(name, &[], Kind::I64, &number.to_le_bytes());
        self
    }

    fn push_tensor(&mut self, name: &str, sizes: &[u64], kind: Kind, raw: &[u8]) {
        let mut tensor: Vec<u8> = sizes.iter().flat_map(|&size| number_field(1, size)).collect();
        tensor.extend(number_field(2, kind as u64));
        tensor.extend(bytes_field(8, name.as_bytes()));
        tensor.extend(bytes_field(9, raw));
        self.tensors.extend(bytes_field(5, &tensor));
    }

    pub(super) fn node(
        mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, u64)],
    ) -> Self {
        let mut node: Vec<u8> =
            inputs.iter().flat_map(|input| bytes_field(1, input.as_bytes())).collect();
        node.extend(bytes_field(2, output.as_bytes()));
        node.extend(bytes_field(4, operator.as_bytes()));
        for (name, number) in attributes {
            let attribute =
                [bytes_field(1, name.as_bytes()), number_field(3, *number), number_field(20, 2)];
            node.extend(bytes_field(5, &attribute.concat()));
        }
        self.nodes.extend(bytes_field(1, &node));
        self
    }

    /// Returns the bytes of the file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { nodes, tensors, inputs, outputs } = self;
        let name = bytes_field(2, b"graph");
        let graph = [nodes.as_slice(), &name, tensors, inputs, outputs].concat();
        let opset = bytes_field(8, &number_field(2, 17));
        [number_field(1, 8), opset, bytes_field(7, &graph)].concat()
    }
}

/// Encodes the declaration of an input or output.
fn declared(name: &str, kind: Kind, sizes: &[Size]) -> Vec<u8> {
    let size = |size: &Size| {
        let size = match size {
            Size::Free(name) => bytes_field(2, name.as_bytes()),
            Size::Fixed(size) => number_field(1, *size),
        };
        bytes_field(1, &size)
    };
    let sizes: Vec<u8> = sizes.iter().flat_map(size).collect();
    let tensor = [number_field(1, kind as u64), bytes_field(2, &sizes)].concat();
    [bytes_field(1, name.as_bytes()), bytes_field(2, &bytes_field(1, &tensor))].concat()
}
