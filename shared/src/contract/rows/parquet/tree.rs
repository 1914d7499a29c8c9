//! The shape of the values of a parquet file, by its schema.

use std::ops::Range;

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::errors::ParquetError;
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::column::Column;

/// A part of the shape, with the columns below it.
#[derive(Debug)]
pub(super) struct Node {
    columns: Range<usize>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// A value of one column.
    Leaf,
    /// A value that is null below this definition level.
    Optional(i16, Box<Node>),
    /// A list that is empty below this definition level, with the repetition level of its elements.
    List(i16, i16, Box<Node>),
    /// The key and the value of a map's entry.
    Pair(Vec<Node>),
    /// An object.
    Object(Vec<(String, Node)>),
}

/// Returns the fields of a row.
pub(super) fn fields(schema: &SchemaDescriptor) -> Result<Vec<(String, Node)>, ParquetError> {
    let mut builder = Builder { columns: 0 };
    let root = builder.object(schema.root_schema(), 0, 0)?;
    if builder.columns != schema.num_columns() {
        return Err(ParquetError::General("the schema and the columns differ".to_owned()));
    }
    Ok(root)
}

/// Numbers the columns in the order of the schema.
struct Builder {
    columns: usize,
}

impl Builder {
    fn object(
        &mut self,
        group: &Type,
        definition: i16,
        repetition: i16,
    ) -> Result<Vec<(String, Node)>, ParquetError> {
        let fields = group.get_fields().iter();
        fields
            .map(|field| Ok((field.name().to_owned(), self.node(field, definition, repetition)?)))
            .collect()
    }

    /// Makes the node of a field below a parent of these levels.
    fn node(&mut self, field: &Type, mut def: i16, mut rep: i16) -> Result<Node, ParquetError> {
        let start = self.columns;
        let kind = repetition(field);
        if kind != Repetition::REQUIRED {
            def += 1;
        }
        if kind == Repetition::REPEATED {
            rep += 1;
        }
        let content = self.content(field, def, rep)?;
        let shape = match kind {
            Repetition::REQUIRED => return Ok(content),
            Repetition::OPTIONAL => Shape::Optional(def, Box::new(content)),
            Repetition::REPEATED => Shape::List(def, rep, Box::new(content)),
        };
        Ok(Node { columns: start..self.columns, shape })
    }

    /// Makes the node of a field that is present.
    fn content(&mut self, field: &Type, def: i16, rep: i16) -> Result<Node, ParquetError> {
        let start = self.columns;
        if field.is_primitive() {
            self.columns += 1;
            return Ok(Node { columns: start..self.columns, shape: Shape::Leaf });
        }
        let repeated = match field.get_fields() {
            [only] if repetition(only) == Repetition::REPEATED => Some(only),
            _ => None,
        };
        let shape = match (container(field), repeated) {
            (Some(Container::List), Some(repeated)) => {
                let element = match repeated_child(field, repeated) {
                    Some(child) => self.node(child, def + 1, rep + 1)?,
                    None => self.content(repeated, def + 1, rep + 1)?,
                };
                Shape::List(def + 1, rep + 1, Box::new(element))
            }
            (Some(Container::Map), Some(repeated)) if !repeated.is_primitive() => {
                let first = self.columns;
                let entry = self.object(repeated, def + 1, rep + 1)?;
                let pair = Shape::Pair(entry.into_iter().map(|(_, node)| node).collect());
                let pair = Node { columns: first..self.columns, shape: pair };
                Shape::List(def + 1, rep + 1, Box::new(pair))
            }
            _ => Shape::Object(self.object(field, def, rep)?),
        };
        if start == self.columns {
            return Err(ParquetError::General(format!("{:?} has no columns", field.name())));
        }
        Ok(Node { columns: start..self.columns, shape })
    }
}

enum Container {
    List,
    Map,
}

fn container(field: &Type) -> Option<Container> {
    let info = field.get_basic_info();
    match (info.logical_type_ref(), info.converted_type()) {
        (Some(LogicalType::List), _) | (_, ConvertedType::LIST) => Some(Container::List),
        (Some(LogicalType::Map), _) | (_, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE) => {
            Some(Container::Map)
        }
        _ => None,
    }
}

fn repetition(field: &Type) -> Repetition {
    let info = field.get_basic_info();
    if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED }
}

/// Returns the element within the repeated group of a list; `None` if the repeated field is itself the element, by the
/// rules for old writers in parquet-format's LogicalTypes.md.
fn repeated_child<'a>(list: &Type, repeated: &'a Type) -> Option<&'a Type> {
    if repeated.is_primitive() {
        return None;
    }
    match repeated.get_fields() {
        [only] => {
            let is_old = repeated.name() == "array"
                || repeated.name() == format!("{}_tuple", list.name()).as_str();
            let is_nested =
                container(repeated).is_some() || repetition(only) == Repetition::REPEATED;
            (!is_old && !is_nested).then_some(only.as_ref())
        }
        _ => None,
    }
}

impl Node {
    /// Takes the next value from the columns.
    pub(super) fn value(&self, columns: &mut [Column]) -> Result<Value, ParquetError> {
        let first = self.columns.start;
        Ok(match &self.shape {
            Shape::Leaf => columns[first].take()?,
            Shape::Optional(def, content) => {
                if columns[first].definition()? < *def {
                    self.skip(columns)?;
                    Value::Null
                } else {
                    content.value(columns)?
                }
            }
            Shape::List(def, rep, element) => {
                let mut elements = Vec::new();
                if columns[first].definition()? < *def {
                    self.skip(columns)?;
                } else {
                    elements.push(element.value(columns)?);
                    while columns[first].repetition() == *rep {
                        elements.push(element.value(columns)?);
                    }
                }
                Value::Array(elements)
            }
            Shape::Pair(nodes) => {
                let values = nodes.iter().map(|node| node.value(columns));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            Shape::Object(fields) => {
                let mut object = Map::new();
                for (name, node) in fields {
                    object.insert(name.clone(), node.value(columns)?);
                }
                Value::Object(object)
            }
        })
    }

    /// Takes the mark of an absent value from every column.
    fn skip(&self, columns: &mut [Column]) -> Result<(), ParquetError> {
        columns[self.columns.clone()].iter_mut().try_for_each(|column| column.take().map(drop))
    }
}
