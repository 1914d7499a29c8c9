"""A retriever over the demo's corpus in a process of its own, and requests to it."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = ROOT / "target/release/retriever-server"
DATA = ROOT / ".cache/data/worldqa"
INDEX = ROOT / "runs/check-load/index"
START_SECONDS_MAX = 60


def questions():
    with open(DATA / "test.jsonl", encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line in lines]


def long_query(texts, number, length=8000):
    """Returns a query of many words, which takes the server several milliseconds."""
    text = " ".join(texts[(number * 7 + offset) % len(texts)] for offset in range(length // 40))
    return text[:length]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server with settings, ready when the block is entered."""

    def __init__(self, environment=None, **settings):
        if not INDEX.exists():
            subprocess.run([BINARY, "index", "--corpus", DATA / "corpus.jsonl", "--index", INDEX], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = free_port()
        self.settings = {f"RETRIEVER_{name.upper()}": str(value) for name, value in settings.items()}
        self.environment = environment or {}

    def __enter__(self):
        self.start()
        return self

    def start(self):
        environment = {**os.environ, **self.settings, **self.environment, "RETRIEVER_LOG": "warn"}
        command = [BINARY, "serve", "--index", INDEX, "--addr", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        started = time.monotonic()
        while time.monotonic() < started + START_SECONDS_MAX and self.process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.01)
        sys.exit("error: the server does not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def ask(self, queries, top_k=3):
        """Returns the ids of the passages of each query."""
        body = json.dumps({"queries": queries, "topk": top_k})
        status, answer = self.request("POST", "/retrieve", body)
        if status != 200:
            raise OSError(f"{status} {answer}")
        return [[passage["id"] for passage in passages] for passages in answer["result"]]

    def memory(self):
        """Returns the resident memory that no file backs, in MB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024

    def is_idle(self):
        stats = self.get("/stats")[1]
        return stats["requests_in_flight"] == stats["queries_in_flight"] == stats["queries_waiting"] == 0


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
