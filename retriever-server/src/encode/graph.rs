//! Facts that an ONNX file states before a session opens it: if it quantises activations while it runs,
//! and which other files hold its weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::message::{Value, fields};
use crate::processor::mapped::map;

/// The operators that choose a scale for a whole tensor of activations, so for all texts of a batch, or
/// that multiply with such activations. ONNX Runtime fuses the first ones into the others.
const DYNAMIC_OPERATORS: [&str; 11] = [
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "DynamicMatMul",
    "MatMulInteger",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "ConvInteger",
    "QAttention",
    "QEmbedLayerNormalization",
    "QOrderedMatMul",
];

/// The deepest nesting of graphs that is searched.
const DEPTH_MAX: usize = 16;

/// The facts of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GraphFacts {
    /// An operator that quantises activations at run time, if there is one.
    pub(super) dynamic_operator: Option<&'static str>,
    /// The files with weights that are not in the ONNX file.
    pub(super) external_files: Vec<PathBuf>,
}

impl GraphFacts {
    /// Reads a file. One that is not ONNX has no facts; opening it fails later.
    pub(super) fn read(path: &Path) -> Self {
        let Ok(bytes) = map(path) else { return Self::default() };
        let mut found = Found::default();
        let _ = found.read_model(&bytes);
        let folder = path.parent().unwrap_or(Path::new(""));
        Self {
            dynamic_operator: found.dynamic_operator,
            external_files: found.locations.iter().map(|location| folder.join(location)).collect(),
        }
    }
}

/// Returns the files with weights that are not in the ONNX file.
pub(super) fn external_files(model: &Path) -> Vec<PathBuf> {
    GraphFacts::read(model).external_files
}

#[derive(Default)]
struct Found {
    dynamic_operator: Option<&'static str>,
    locations: BTreeSet<String>,
}

// The numbers are those of the fields in onnx.proto3. A message that cannot be parsed ends the search.
impl Found {
    fn read_model(&mut self, model: &[u8]) -> Option<()> {
        const GRAPH: u64 = 7;
        const FUNCTIONS: u64 = 25;
        for field in fields(model)? {
            match field.number {
                GRAPH => self.read_graph(field.bytes()?, 0)?,
                FUNCTIONS => self.read_function(field.bytes()?)?,
                _ => {}
            }
        }
        Some(())
    }

    fn read_function(&mut self, function: &[u8]) -> Option<()> {
        const NODE: u64 = 7;
        for field in fields(function)?.iter().filter(|field| field.number == NODE) {
            self.read_node(field.bytes()?, 1)?;
        }
        Some(())
    }

    fn read_graph(&mut self, graph: &[u8], depth: usize) -> Option<()> {
        const NODE: u64 = 1;
        const INITIALIZER: u64 = 5;
        for field in fields(graph)? {
            match field.number {
                NODE => self.read_node(field.bytes()?, depth)?,
                INITIALIZER => self.read_tensor(field.bytes()?)?,
                _ => {}
            }
        }
        Some(())
    }

    fn read_node(&mut self, node: &[u8], depth: usize) -> Option<()> {
        const OPERATOR: u64 = 4;
        const ATTRIBUTE: u64 = 5;
        for field in fields(node)? {
            match field.number {
                OPERATOR => {
                    let operator = field.bytes()?;
                    let dynamic =
                        DYNAMIC_OPERATORS.into_iter().find(|name| name.as_bytes() == operator);
                    self.dynamic_operator = self.dynamic_operator.or(dynamic);
                }
                ATTRIBUTE => self.read_attribute(field.bytes()?, depth)?,
                _ => {}
            }
        }
        Some(())
    }

    fn read_attribute(&mut self, attribute: &[u8], depth: usize) -> Option<()> {
        const TENSOR: u64 = 5;
        const GRAPH: u64 = 6;
        const GRAPHS: u64 = 11;
        for field in fields(attribute)? {
            match field.number {
                TENSOR => self.read_tensor(field.bytes()?)?,
                GRAPH | GRAPHS if depth < DEPTH_MAX => {
                    self.read_graph(field.bytes()?, depth + 1)?;
                }
                _ => {}
            }
        }
        Some(())
    }

    fn read_tensor(&mut self, tensor: &[u8]) -> Option<()> {
        const EXTERNAL: u64 = 13;
        const KEY: u64 = 1;
        const VALUE: u64 = 2;
        for field in fields(tensor)?.iter().filter(|field| field.number == EXTERNAL) {
            let entry = fields(field.bytes()?)?;
            let text = |number: u64| {
                let field = entry.iter().find(|field| field.number == number)?;
                match field.value {
                    Value::Bytes(text) => std::str::from_utf8(text).ok(),
                    Value::Number(_) | Value::Fixed => None,
                }
            };
            if text(KEY) == Some("location") {
                self.locations.extend(text(VALUE).map(str::to_owned));
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::message::bytes_field;

    fn facts(model: &[u8]) -> GraphFacts {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, model).unwrap();
        let mut facts = GraphFacts::read(&path);
        for file in &mut facts.external_files {
            *file = file.strip_prefix(folder.path()).unwrap().to_owned();
        }
        facts
    }

    fn node(operator: &str) -> Vec<u8> {
        bytes_field(1, &bytes_field(4, operator.as_bytes()))
    }

    #[test]
    fn dynamic_operators_are_found_at_any_depth() {
        assert_eq!(facts(b"not a model"), GraphFacts::default());
        let plain = bytes_field(7, &node("MatMul"));
        assert_eq!(facts(&plain), GraphFacts::default());
        let inner = [node("Add"), node("DynamicQuantizeLinear")].concat();
        let attribute = bytes_field(5, &bytes_field(6, &inner));
        let outer = bytes_field(1, &[bytes_field(4, b"If"), attribute].concat());
        assert_eq!(facts(&bytes_field(7, &outer)).dynamic_operator, Some("DynamicQuantizeLinear"));
        let function = bytes_field(25, &bytes_field(7, &bytes_field(4, b"MatMulInteger")));
        assert_eq!(facts(&[plain, function].concat()).dynamic_operator, Some("MatMulInteger"));
    }

    #[test]
    fn files_of_weights_are_found() {
        let entry = |key: &str, value: &str| {
            bytes_field(
                13,
                &[bytes_field(1, key.as_bytes()), bytes_field(2, value.as_bytes())].concat(),
            )
        };
        let tensor = [entry("location", "model.onnx.data"), entry("offset", "8")].concat();
        let graph = [bytes_field(5, &tensor), bytes_field(5, &tensor)].concat();
        let found = facts(&bytes_field(7, &graph));
        assert_eq!(found.external_files, [PathBuf::from("model.onnx.data")]);
    }
}
