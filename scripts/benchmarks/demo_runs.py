"""Runs the trainer with the demo's model on the world set, and a retriever over its corpus."""

import contextlib
import os
import pathlib
import subprocess
import sys

from served import Served

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DATA = ROOT / ".cache/data/worldqa"
MODEL = ROOT / ".cache/models/smollm2-135m-instruct"
PROGRAMS = ROOT / "target/release"


def check_set_up():
    for path in (PROGRAMS / "trainer", PROGRAMS / "retriever-server", MODEL / "config.json", DATA / "corpus.jsonl"):
        if not path.exists():
            sys.exit(f"error: {path} is missing: run `make setup`")


@contextlib.contextmanager
def served_world(folder):
    """Starts a retriever over the world set, with its index in `folder`, and yields its address."""
    program, corpus, index = PROGRAMS / "retriever-server", DATA / "corpus.jsonl", folder / "index"
    subprocess.run([program, "index", "--corpus", corpus, "--index", index], check=True)
    serve = [program, "serve", "--addr", "127.0.0.1:PORT", "--index", index, "--backend", "bm25"]
    with Served(serve, folder / "retriever.log") as retriever:
        yield f"http://127.0.0.1:{retriever.port}/retrieve"


def run_trainer(command, folder, settings, *options):
    """Runs a trainer command with the demo's configuration, changed by `settings`.

    `folder` is the run directory. It also receives the command's log.
    """
    words = [PROGRAMS / "trainer", command, "--config", ROOT / "scripts/demo.toml", "--run-dir", folder]
    for setting in settings:
        words += ["--set", setting]
    variables = {
        "TRAINER_MODEL_PATH": MODEL, "TRAINER_DATA_TRAIN": DATA / "train.jsonl",
        "TRAINER_DATA_TEST": DATA / "test.jsonl", "TRAINER_DATA_CORPUS": DATA / "corpus.jsonl",
    }
    environment = os.environ | {name: str(path) for name, path in variables.items()}
    with open(folder / f"{command}.log", "ab") as log:
        ended = subprocess.run(
            [*map(str, words), *map(str, options)], stdout=log, stderr=log, cwd=ROOT, env=environment)
    if ended.returncode:
        sys.exit(f"error: trainer {command} ended with {ended.returncode}: see {log.name}")
