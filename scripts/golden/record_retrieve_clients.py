#!/usr/bin/env python3
"""Records the requests of the known clients of a retrieval server, byte for byte, in retrieve-clients.json.

Each client sends by the library that it uses itself, with the keys and options of its source at the commit that is
named. A body is recorded as text with one character for each byte. `reads` is the path to the text of the first passage that the client reads in the answer, and `lists` the path to
the list that has one entry for each passage.

Needs requests 2.34.2, msgspec 0.23.0, aiohttp 3.14.5 and httpx 0.28.1.
"""

import asyncio
import http.server
import json
import pathlib
import sys
import threading

import aiohttp
import httpx
import msgspec
import requests

GOLDEN = pathlib.Path(__file__).resolve().parent.parent.parent / "tests/golden"
# Names of headers that say what a body is.
KEPT = {"content-type", "accept", "content-length", "transfer-encoding"}
received = []


class Recorder(http.server.BaseHTTPRequestHandler):
    """Keeps each request and answers it with an empty object."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() in KEPT}
        received.append({"path": self.path, "headers": headers, "body": body.decode("latin-1")})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def by_requests(path, **options):
    return lambda url: requests.post(url + path, timeout=10, **options)


def by_aiohttp(path, body):
    async def send(url):
        async with aiohttp.ClientSession() as session, session.post(url + path, json=body):
            pass

    return lambda url: asyncio.run(send(url))


def by_httpx(path, body):
    return lambda url: httpx.post(url + path, json=body, timeout=10)


QUESTIONS = ["Where is town1?", "town2 \u00e9"]
SCORED = {"queries": QUESTIONS, "topk": 3, "return_scores": True}
ONE = {"queries": QUESTIONS[:1], "topk": 3, "return_scores": True}
FLAT = {"queries": QUESTIONS[:1], "topk": 3, "return_scores": False}
SINGLE = {"query": QUESTIONS[0], "topk": 3, "return_scores": True}
TOP_K = {"query": QUESTIONS[0], "top_k": 3}
NESTED = ["result", 0, 0, "document", "contents"]
BARE = ["result", 0, 0, "contents"]

# Name, commit, profile, sender, lists, reads.
CLIENTS = [
    ("Search-R1 generation.py", "a14dc3a", "rllm", by_requests("/retrieve", json=SCORED), ["result", 0], NESTED),
    ("Search-R1 rerank", "a14dc3a", "rllm", by_requests("/retrieve", json={
        "queries": QUESTIONS, "topk_retrieval": 10, "topk_rerank": 3, "return_scores": True}), ["result", 0], NESTED),
    ("Search-R1 google and serp servers", "a14dc3a", "proxy",
     by_requests("/retrieve", json={"queries": QUESTIONS}), ["result", 0], NESTED),
    ("veRL SearchTool", "b178a3c", "rllm", by_requests("/retrieve", headers={
        "Content-Type": "application/json", "Accept": "application/json"}, json=SCORED), ["result", 0], NESTED),
    ("SkyRL-gym, NeMo RL", "a956457", "rllm", by_requests("/retrieve", headers={
        "Content-Type": "application/json", "Accept": "application/json"}, json=SINGLE), ["result", 0], NESTED),
    ("skyrl-agent", "a956457", "rllm", by_requests("/retrieve", json=ONE), ["result", 0], NESTED),
    ("slime, torchtitan", "624b824", "rllm", by_aiohttp("/retrieve", FLAT), ["result", 0], BARE),
    ("ASearcher, RLinf", "813e804", "rllm", by_aiohttp("/retrieve", FLAT), ["result", 0], BARE),
    ("ASearcher /access", "813e804", "rllm", by_aiohttp("/access", {
        "urls": ["https://example.org/0", "https://example.org/none"]}), ["result"], ["result", 0, "contents"]),
    ("verl-tool", "980962b", "rllm", by_requests("/retrieve", json=ONE), ["result", 0], NESTED),
    ("Agent-Lightning", "c632d8d", "rllm", by_httpx("/retrieve", ONE), ["result", 0], NESTED),
    ("RL-Factory", "d0abc1d", "rllm", by_requests("/retrieve", json=ONE), ["result", 0], NESTED),
    ("GEM of 2025", "465b75e", "rllm",
     by_requests("/retrieve", data=msgspec.msgpack.encode(ONE)), ["result", 0], NESTED),
    ("GEM, ROLL", "4069f2f", "rllm", by_requests("/retrieve", data=msgspec.msgpack.encode(SINGLE)),
     ["result"], ["result", 0, "document", "contents"]),
    ("ZeroSearch", "2d4cdca", "zerosearch", by_requests("/retrieve", json=TOP_K), [], [0, "text"]),
    ("rLLM", "9beb6e0", "rllm", by_httpx("/retrieve", TOP_K), ["results"], ["results", 0, "content"]),
    ("rLLM with k", "9beb6e0", "rllm", by_httpx("/retrieve", {
        "query": QUESTIONS[0], "k": 3}), ["results"], ["results", 0, "content"]),
    ("ReCall, ReSearch search", "aaf16b3", "rllm", by_requests("/search", json={
        "query": QUESTIONS[0], "top_n": 3, "return_score": False}), [], [0, "contents"]),
    ("ReCall, ReSearch search with scores", "aaf16b3", "rllm", by_requests("/search", json={
        "query": QUESTIONS[0], "top_n": 3, "return_score": True}), [0], [0, 0, "contents"]),
    ("ReCall, ReSearch batch_search", "aaf16b3", "rllm", by_requests("/batch_search", json={
        "query": QUESTIONS, "top_n": 3, "return_score": False}), [0], [0, 0, "contents"]),
    ("ReCall, ReSearch batch_search with scores", "aaf16b3", "rllm", by_requests("/batch_search", json={
        "query": QUESTIONS, "top_n": 3, "return_score": True}), [0, 0], [0, 0, 0, "contents"]),
    ("R1-Searcher", "631167c", "rllm", by_requests("/queries", json={
        "queries": QUESTIONS, "k": 3}), ["answers", 0], ["answers", 0, 0]),
    ("forks without scores", "-", "rllm", by_requests("/retrieve", json={
        "query": QUESTIONS[0], "topk": 3, "return_scores": False}), ["result", 0], BARE),
]


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    recorded = []
    for name, commit, profile, send, lists, reads in CLIENTS:
        send(url)
        recorded.append({"client": name, "commit": commit, "profile": profile, **received.pop(),
                         "lists": lists, "reads": reads})
    server.shutdown()
    versions = {module.__name__: module.__version__ for module in (requests, msgspec, aiohttp, httpx)}
    path = GOLDEN / "retrieve-clients.json"
    path.write_text(json.dumps({"versions": versions, "requests": recorded}, indent=1) + "\n", encoding="utf-8")
    print(f"{len(recorded)} requests in {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
