//! Separation of weights and tables, and of damaged and arbitrary files.

use proptest::prelude::*;

use super::*;

const SIDES: [u64; 2] = [32, 40];

/// Encodes a tensor of `f32`, all of them `number`.
fn tensor(name: &str, sizes: [u64; 2], number: f32) -> Vec<u8> {
    let mut message = Vec::new();
    for size in sizes {
        message.extend(number_field(tensor::SIZES, size));
    }
    message.extend(number_field(tensor::KIND, tensor::KIND_F32));
    message.extend(bytes_field(tensor::NAME, name.as_bytes()));
    let numbers = number.to_le_bytes().repeat((sizes[0] * sizes[1]) as usize);
    message.extend(bytes_field(tensor::RAW, &numbers));
    bytes_field(graph::INITIALIZER, &message)
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    const OUTPUT: u64 = 2;
    let mut message = Vec::new();
    for input in inputs {
        message.extend(bytes_field(node::INPUT, input.as_bytes()));
    }
    message.extend(bytes_field(OUTPUT, output.as_bytes()));
    message.extend(bytes_field(node::OPERATOR, operator.as_bytes()));
    bytes_field(graph::NODE, &message)
}

fn value(field: u64, name: &str) -> Vec<u8> {
    bytes_field(field, &bytes_field(value::NAME, name.as_bytes()))
}

/// Encodes a model with these parts, and a field before and one after its graph.
fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut model = vec![8, 9];
    model.extend(bytes_field(model::GRAPH, &parts.concat()));
    model.extend(bytes_field(model::OPSET_IMPORT, &[16, 17]));
    model
}

fn small() -> Vec<Vec<u8>> {
    vec![
        node("MatMul", &["in", "left"], "a"),
        tensor("left", SIDES, 1.5),
        node("MatMul", &["a", "right"], "b"),
        tensor("right", [40, 32], -2.0),
        node("MatMul", &["b", "left"], "out"),
        value(graph::INPUT, "in"),
        value(graph::OUTPUT, "out"),
    ]
}

/// Returns the inputs and the operator of each node of a model.
fn nodes(model: &[u8]) -> Vec<(Vec<String>, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let fields_of = |bytes| fields(bytes).unwrap();
    let graph = only(&fields_of(model), model::GRAPH).unwrap().bytes().unwrap();
    let nodes = fields_of(graph).into_iter().filter(|field| field.number == graph::NODE);
    nodes
        .map(|field| {
            let parts = fields_of(field.bytes().unwrap());
            let texts = |number| {
                let matches = parts.iter().filter(move |field| field.number == number);
                matches.map(|field| text(field.bytes().unwrap()))
            };
            (texts(node::INPUT).collect(), texts(node::OPERATOR).collect())
        })
        .collect()
}

#[test]
fn shared_weights_are_separated_once() {
    let file = model(&small());
    let separated = separate(&file).unwrap();
    let numbers: Vec<_> = separated
        .products
        .iter()
        .map(|matrix| (matrix.inner, matrix.columns, &matrix.numbers[..4], matrix.numbers.len()))
        .collect();
    let (left, right) = (1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes());
    assert_eq!(numbers, [(32, 40, &left[..], 32 * 40 * 4), (40, 32, &right[..], 32 * 40 * 4)]);
    let node = |input: &str| (vec![input.to_owned()], OPERATOR.to_owned());
    assert_eq!(nodes(&separated.model), [node("in"), node("a"), node("b")]);
    assert!(separated.tables.is_empty());
    assert!(separated.model.len() < 1000, "{}", separated.model.len());
    // The fields around the graph do not change, and a domain is imported after them.
    assert!(separated.model.starts_with(&[8, 9]));
    let imports: Vec<_> = fields(&separated.model)
        .unwrap()
        .into_iter()
        .filter(|field| field.number == model::OPSET_IMPORT)
        .map(|field| field.bytes().unwrap().to_vec())
        .collect();
    assert_eq!(imports, [vec![16, 17], [&[10, 9], DOMAIN.as_bytes(), &[16, 1]].concat()]);
}

#[test]
fn tensors_with_other_uses_stay_in_the_file() {
    let check = |change: &dyn Fn(&mut Vec<Vec<u8>>), expected: usize| {
        let mut parts = small();
        change(&mut parts);
        let file = model(&parts);
        let products = separate(&file).map_or(0, |separated| separated.products.len());
        assert_eq!(products, expected);
    };
    check(&|_| {}, 2);
    check(&|parts| parts.push(node("Gather", &["left", "ids"], "c")), 1);
    check(&|parts| parts.push(node("MatMul", &["right", "right"], "c")), 1);
    check(&|parts| parts.push(value(graph::OUTPUT, "left")), 1);
    check(&|parts| parts.push(value(graph::INPUT, "right")), 1);
    check(&|parts| parts[1] = tensor("left", [31, 40], 1.0), 1);
    check(&|parts| parts[2] = node("Gemm", &["a", "right"], "b"), 1);
    // Numbers of another type, and too few numbers.
    let tail = |parts: &mut Vec<Vec<u8>>, field, number| {
        let mut message = fields(&parts[3]).unwrap()[0].bytes().unwrap().to_vec();
        message.extend(number_field(field, number));
        parts[3] = bytes_field(graph::INITIALIZER, &message);
    };
    check(&|parts| tail(parts, tensor::KIND, 10), 1);
    check(&|parts| tail(parts, tensor::SIZES, 2), 1);
    // A file with numbers in another file, or with a nested graph, is not separated at all.
    check(&|parts| tail(parts, tensor::LOCATION, 1), 0);
    let nested = bytes_field(node::ATTRIBUTE, &bytes_field(attribute::GRAPH, b""));
    check(&|parts| parts.push(bytes_field(graph::NODE, &nested)), 0);
    check(&|parts| parts.retain(|part| part[0] != small()[0][0]), 0);
}

#[test]
fn tables_become_inputs() {
    let check = |lookups: &[&[&str]], operator: &str, expected: &[&str]| {
        let mut parts = small();
        parts.push(tensor("table", [8192, 32], 0.25));
        parts.extend(lookups.iter().map(|inputs| node(operator, inputs, "c")));
        let file = model(&parts);
        let separated = separate(&file).unwrap();
        for table in &separated.tables {
            assert_eq!(table.name(), Some("table"));
            assert_eq!(table.sizes(), Some(vec![8192, 32]));
            assert!(table.numbers().eq(vec![0.25; 8192 * 32]));
        }
        assert_eq!(separated.tables.is_empty(), separated.model.len() > 8192 * 32 * 4);
        let fields_of = |bytes| fields(bytes).unwrap();
        let of_model = fields_of(&separated.model);
        let graph = fields_of(only(&of_model, model::GRAPH).unwrap().bytes().unwrap());
        let inputs = graph.iter().filter(|field| field.number == graph::INPUT);
        let names: Vec<_> = inputs
            .map(|field| {
                let parts = fields_of(field.bytes().unwrap());
                only(&parts, value::NAME).unwrap().bytes().unwrap().to_vec()
            })
            .collect();
        assert_eq!(names, expected.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
    };
    check(&[&["table", "ids"]], "Gather", &["in", "table"]);
    check(&[&["table", "ids"], &["table", "others"]], "Gather", &["in", "table"]);
    check(&[&["ids", "table"]], "Gather", &["in"]);
    check(&[&["table", "ids"]], "Add", &["in"]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = separate(&bytes);
        let _ = separate(&model(&[bytes]));
    }

    #[test]
    fn damaged_files_do_not_panic(
        offset in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut file = model(&small());
        let offset = offset.index(file.len());
        file[offset] = byte;
        let _ = separate(&file);
        file.truncate(end.index(file.len()));
        let _ = separate(&file);
    }
}
