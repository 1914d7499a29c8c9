"""Starts a server for a measurement and stops it afterwards."""

import http.client
import json
import socket
import subprocess
import sys
import time

START_SECONDS_MAX = 300
TOP_K = 3


def retrieve(connection, queries):
    """Returns the answer of `POST /retrieve` to a batch of queries."""
    body = json.dumps({"queries": queries, "topk": TOP_K, "return_scores": True})
    connection.request("POST", "/retrieve", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise OSError(f"/retrieve answers {answer.status}: {content[:200]!r}")
    return json.loads(content)["result"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A server that is ready when the block is entered and stopped at its end.

    PORT in the command is replaced by a free port. The server's output goes to the file `log`, if there is one.
    """

    def __init__(self, command, log=None):
        self.port = free_port()
        self.command = [str(word).replace("PORT", str(self.port)) for word in command]
        self.log = log

    def __enter__(self):
        started = time.monotonic()
        with open(self.log or "/dev/null", "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        while self.process.poll() is None and time.monotonic() < started + START_SECONDS_MAX:
            try:
                retrieve(self.connect(timeout=30), ["first"])
                self.seconds = time.monotonic() - started
                return self
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        self.__exit__()
        sys.exit(f"error: {self.command} does not respond" + (f": see {self.log}" if self.log else ""))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
