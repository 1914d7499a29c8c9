"""Converts a BERT encoder from safetensors to ONNX: one graph, weights unchanged.

Inputs are `input_ids`, `attention_mask` and `token_type_ids` as int64 [batch, tokens]; outputs are
`last_hidden_state` [batch, tokens, hidden] and, if the model has a pooler, `pooler_output` [batch, hidden]. A
cross-encoder has a classifier after the pooler; its only output is `logits` [batch, 1 or 2].
Equal input files give equal bytes.
"""

import array
import json
import math
import struct

from . import protobuf
from .console import ProvisionError

OPSET = 17
IR_VERSION = 8
# Enum values of onnx.proto: tensor element types and attribute types.
FLOAT, INT64 = 1, 7
ATTRIBUTE_FLOAT, ATTRIBUTE_INTEGER, ATTRIBUTE_INTEGERS = 1, 2, 7
# Size limit of a protobuf file.
FILE_BYTES_MAX = (1 << 31) - 1
LOWEST = -3.4028234663852886e38
SETTINGS = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


class Weights:
    """The tensors of a safetensors file. Each tensor that is read must be f32."""

    def __init__(self, file):
        self.file = file
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise ProvisionError("not a safetensors file: its header is longer than the file")
        header = json.loads(file.read(length))
        self.base = 8 + length
        self.tensors = {name.removeprefix("bert."): entry for name, entry in header.items() if name != "__metadata__"}

    def __contains__(self, name):
        return name in self.tensors

    def read(self, name):
        """Returns the shape and the little-endian bytes of a tensor."""
        entry = self.tensors.get(name)
        if entry is None:
            raise ProvisionError(f"the safetensors file has no tensor {name}")
        if entry["dtype"] != "F32":
            raise ProvisionError(f"tensor {name}: is {entry['dtype']}, expected F32")
        start, end = entry["data_offsets"]
        self.file.seek(self.base + start)
        content = self.file.read(end - start)
        if len(content) != end - start or len(content) != 4 * math.prod(entry["shape"]):
            raise ProvisionError(f"tensor {name}: has {len(content)} bytes, expected a tensor of {entry['shape']}")
        return entry["shape"], content


def transposed(shape, content):
    """Transposes a matrix from [rows, columns] to [columns, rows]. Its elements may be any four-byte type."""
    numbers = array.array("I", content)
    if numbers.itemsize != 4:
        raise ProvisionError(f"Python's array type 'I' has {numbers.itemsize} bytes on this machine, expected 4")
    columns = shape[1]
    return [columns, shape[0]], b"".join(numbers[column::columns].tobytes() for column in range(columns))


class Graph:
    """A graph under construction. Each method adds a node or a constant and returns its name."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.tensors = {}

    def node(self, kind, inputs, output=None, **attributes):
        output = output or f"{kind}_{len(self.nodes)}"
        parts = [protobuf.text(1, name) for name in inputs] + [protobuf.text(2, output)]
        parts += [protobuf.text(3, output), protobuf.text(4, kind)]
        parts += [protobuf.data(5, attribute(name, value)) for name, value in attributes.items()]
        self.nodes.append(b"".join(parts))
        return output

    def tensor(self, name, kind, shape, content):
        if name not in self.tensors:
            dimensions = b"".join(protobuf.integer(1, size) for size in shape)
            start = dimensions + protobuf.integer(2, kind) + protobuf.text(8, name)
            self.tensors[name] = (start, protobuf.data(9, content))
        return name

    def integers(self, *values):
        name = "integers_" + "_".join(map(str, values)).replace("-", "minus")
        return self.tensor(name, INT64, [len(values)], struct.pack(f"<{len(values)}q", *values))

    def number(self, name, value):
        return self.tensor(name, FLOAT, [], struct.pack("<f", value))

    def weight(self, name):
        return self.tensor(name, FLOAT, *self.weights.read(name))

    def linear(self, value, name, output=None):
        """Adds value · Wᵀ + b, with W transposed in advance."""
        shape, content = transposed(*self.weights.read(name + ".weight"))
        matrix = self.tensor(name + ".weight_transposed", FLOAT, shape, content)
        return self.node("Add", [self.node("MatMul", [value, matrix]), self.weight(name + ".bias")], output)

    def norm(self, value, name, epsilon, output=None):
        inputs = [value, self.weight(name + ".weight"), self.weight(name + ".bias")]
        return self.node("LayerNormalization", inputs, output, axis=-1, epsilon=epsilon)

    def slice(self, value, axis, start, end):
        """Adds value[start:end] along an axis. `end` is a number or the name of a tensor that holds it."""
        end = end if isinstance(end, str) else self.integers(end)
        return self.node("Slice", [value, self.integers(start), end, self.integers(axis)])


def attribute(name, value):
    if isinstance(value, float):
        return protobuf.text(1, name) + protobuf.real(2, value) + protobuf.integer(20, ATTRIBUTE_FLOAT)
    if isinstance(value, int):
        return protobuf.text(1, name) + protobuf.integer(3, value) + protobuf.integer(20, ATTRIBUTE_INTEGER)
    numbers = b"".join(protobuf.integer(8, number) for number in value)
    return protobuf.text(1, name) + numbers + protobuf.integer(20, ATTRIBUTE_INTEGERS)


def declared(name, kind, *sizes):
    """Returns the declaration of an input or output. A size is a number, or a name for a free dimension."""
    shape = b"".join(
        protobuf.data(1, protobuf.text(2, size) if isinstance(size, str) else protobuf.integer(1, size))
        for size in sizes
    )
    tensor = protobuf.integer(1, kind) + protobuf.data(2, shape)
    return protobuf.text(1, name) + protobuf.data(2, protobuf.data(1, tensor))


def embeddings(graph, epsilon):
    words = graph.node("Gather", [graph.weight("embeddings.word_embeddings.weight"), "input_ids"])
    types = graph.node("Gather", [graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    tokens = graph.slice(graph.node("Shape", ["input_ids"]), 0, 1, 2)
    positions = graph.slice(graph.weight("embeddings.position_embeddings.weight"), 0, 0, tokens)
    total = graph.node("Add", [graph.node("Add", [words, types]), positions])
    return graph.norm(total, "embeddings.LayerNorm", epsilon)


def attention(graph, value, mask, name, hidden, heads):
    shape = graph.integers(0, 0, heads, hidden // heads)

    def by_head(part, order):
        heads_apart = graph.node("Reshape", [graph.linear(value, f"{name}.self.{part}"), shape])
        return graph.node("Transpose", [heads_apart], perm=order)

    scale = graph.number("attention_scale", 1 / math.sqrt(hidden // heads))
    products = graph.node("MatMul", [by_head("query", [0, 2, 1, 3]), by_head("key", [0, 2, 3, 1])])
    scores = graph.node("Add", [graph.node("Mul", [products, scale]), mask])
    mixed = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), by_head("value", [0, 2, 1, 3])])
    together = graph.node("Transpose", [mixed], perm=[0, 2, 1, 3])
    return graph.linear(graph.node("Reshape", [together, graph.integers(0, 0, hidden)]), name + ".output.dense")


def gelu(graph, value):
    """Adds x · (1 + erf(x / √2)) / 2, in the form that ONNX Runtime fuses into one kernel."""
    inner = graph.node("Erf", [graph.node("Div", [value, graph.number("root_of_two", math.sqrt(2))])])
    factor = graph.node("Add", [inner, graph.number("one", 1.0)])
    return graph.node("Mul", [graph.node("Mul", [value, factor]), graph.number("half", 0.5)])


def classifier(graph, pooled):
    """Adds the head of a cross-encoder and returns the declaration of its output."""
    shape = graph.weights.read("classifier.weight")[0]
    if shape[0] not in (1, 2):
        raise ProvisionError(f"tensor classifier.weight: has {shape[0]} rows, expected 1 or 2")
    graph.linear(pooled, "classifier", "logits")
    return declared("logits", FLOAT, "batch", shape[0])


def encoder(graph, config):
    """Adds all nodes and returns the declarations of the outputs."""
    hidden, epsilon = config["hidden_size"], config["layer_norm_eps"]
    value = embeddings(graph, epsilon)
    kept = graph.node("Cast", ["attention_mask"], to=FLOAT)
    masked = graph.node("Sub", [graph.number("one", 1.0), graph.node("Unsqueeze", [kept, graph.integers(1, 2)])])
    mask = graph.node("Mul", [masked, graph.number("lowest", LOWEST)])
    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        attended = attention(graph, value, mask, name + ".attention", hidden, config["num_attention_heads"])
        value = graph.norm(graph.node("Add", [attended, value]), name + ".attention.output.LayerNorm", epsilon)
        outer = graph.linear(gelu(graph, graph.linear(value, name + ".intermediate.dense")), name + ".output.dense")
        output = "last_hidden_state" if layer + 1 == config["num_hidden_layers"] else None
        value = graph.norm(graph.node("Add", [outer, value]), name + ".output.LayerNorm", epsilon, output)
    outputs = [declared("last_hidden_state", FLOAT, "batch", "tokens", hidden)]
    if "pooler.dense.weight" in graph.weights:
        first = graph.node("Squeeze", [graph.slice(value, 1, 0, 1), graph.integers(1)])
        pooled = graph.node("Tanh", [graph.linear(first, "pooler.dense")], "pooler_output")
        if "classifier.weight" in graph.weights:
            return [classifier(graph, pooled)]
        outputs.append(declared("pooler_output", FLOAT, "batch", hidden))
    return outputs


def check(config):
    for key, accepted in SETTINGS.items():
        setting = config.get(key, accepted)
        if setting != accepted:
            raise ProvisionError(f"config.json: {key} is {setting!r}, expected {accepted!r}")
    for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise ProvisionError(f"config.json: {key} is {config.get(key)!r}, expected a positive integer")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ProvisionError("config.json: hidden_size is not a multiple of num_attention_heads")


def export(config, safetensors, out):
    """Writes the model to the open file `out`, and returns `True` if it is a cross-encoder.

    `config` is the content of config.json, `safetensors` the open file of the weights.
    """
    config = {"layer_norm_eps": 1e-12, **config}
    check(config)
    graph = Graph(Weights(safetensors))
    outputs = encoder(graph, config)
    parts = [protobuf.data(1, node) for node in graph.nodes] + [protobuf.text(2, "bert")]
    for start, content in graph.tensors.values():
        parts.append(protobuf.data(5, start, content))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        parts.append(protobuf.data(11, declared(name, INT64, "batch", "tokens")))
    parts += [protobuf.data(12, output) for output in outputs]
    model = [protobuf.integer(1, IR_VERSION), protobuf.data(8, protobuf.integer(2, OPSET)), protobuf.data(7, *parts)]
    total = sum(len(part) for part in model)
    if total > FILE_BYTES_MAX:
        raise ProvisionError(f"the ONNX file would have {total} bytes, expected at most {FILE_BYTES_MAX}")
    for part in model:
        out.write(part)
    return "classifier.weight" in graph.weights
