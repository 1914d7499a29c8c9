"""Tests of scripts/run-docs: every command of the pages has a run, and differences are reported."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
loader = importlib.machinery.SourceFileLoader("run_docs", str(SCRIPTS / "run-docs"))
run_docs = importlib.util.module_from_spec(importlib.util.spec_from_loader("run_docs", loader))
loader.exec_module(run_docs)


def blocks(text):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "page.md"
        path.write_text(text, encoding="utf-8")
        return [run_docs.Block("page.md", text, match) for match in run_docs.FENCE.finditer(text)]


class Pages(unittest.TestCase):
    def test_every_command_of_the_pages_is_run_somewhere(self):
        self.assertEqual(list(run_docs.faults()), [])
        runs = [block.runs for path in run_docs.pages() for block in run_docs.blocks_of(path) if block.language == "sh"]
        for name in run_docs.RUNS:
            self.assertTrue(any(name in run for run in runs), name)

    def test_blocks_know_their_runs(self):
        parsed = blocks(
            "a\n\n<!-- run: local containers -->\n```sh\nx\n```\n\n<!-- run: gate background -->\n```sh\ny\n```\n"
            "\n```sh\nz\n```\n\n<!-- output -->\n```json\n1\n```\n"
        )
        self.assertEqual([block.runs for block in parsed], [{"local", "containers"}, {"gate"}, {"local"}, {"local"}])
        self.assertEqual([block.background for block in parsed], [False, True, False, False])
        self.assertEqual([block.is_output for block in parsed], [False, False, False, True])
        self.assertEqual(parsed[0].location, "page.md:4")

    def test_commands_cannot_hide(self):
        def faults(text, gate=""):
            return " ".join(fault for block in blocks(text) for fault in block.faults(gate))

        self.assertIn("language ''", faults("```\nx\n```\n"))
        self.assertIn("looks like a command", faults("```text\nRETRIEVER_TOP_K=5 docker compose up\n```\n"))
        self.assertIn("never", faults("<!-- run: never -->\n```sh\nx\n```\n"))
        self.assertIn("'make x' is not in", faults("<!-- run: gate -->\n```sh\nmake x  # why\n```\n", "make xy"))
        self.assertEqual(faults("<!-- run: gate -->\n```sh\nmake x  # why\n```\n", "part a make x\n"), "")


class Answers(unittest.TestCase):
    def test_an_ellipsis_stands_for_anything_in_between(self):
        self.assertIsNone(run_docs.missing_part('{"a":1}', 'log\n{"a":1}\n'))
        self.assertIsNone(run_docs.missing_part('{"a":"x …","b":2}', '{"a":"x y z","b":2}'))
        self.assertEqual(run_docs.missing_part('"b":2…"a":1', '{"a":1,"b":2}'), '"a":1')
        self.assertIsNotNone(run_docs.missing_part('{"a":1}', '{"a":2}'))


if __name__ == "__main__":
    unittest.main()
