"""Broken requests, drawn from a seed: JSON, MessagePack, heads, paths and chunks."""

import collections
import concurrent.futures
import json
import random
import socket
import time

from serving import Server, questions

WORKERS = 4
GROWTH_MB_MAX = 16
METHODS = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "CONNECT", "TRACE", "post", "PO\0ST", "PRI", ""]
VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", "http/1.1", ""]
PATHS = ["/retrieve", "/retrieve/", "/search", "/batch_search", "/queries", "/access", "/info", "/stats", "/readyz",
         "//", "/../retrieve", "/%00%ff", "/retrieve?queries=a", "*", "http://other/retrieve", "/\u00e9"]
CHUNKS = [b"5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"zz\r\n", b"-1\r\n", b"5;a=b\r\nabcde\r\n0\r\nA: b\r\n\r\n",
          b"0\r\n", b"00000000000000000000005\r\nabcde\r\n0\r\n\r\n", b"5\nabcde\n0\n\n"]


def packed(value):
    """Encodes a value as MessagePack."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return b"\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, str):
        text = value.encode()
        return b"\xdb" + len(text).to_bytes(4, "big") + text
    if isinstance(value, list):
        return b"\xdd" + len(value).to_bytes(4, "big") + b"".join(map(packed, value))
    return bytes([0x80 | len(value)]) + b"".join(packed(key) + packed(item) for key, item in value.items())


def value_of(draw, depth=0):
    kind = draw.randrange(9 if depth < 4 else 6)
    if kind == 6:
        return [value_of(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind > 6:
        return {draw.choice(["a", "document", "contents", ""]): value_of(draw, depth + 1)}
    return [None, True, draw.randrange(-2**63, 2**63), "", "town \u00e9\U0001f30a\0", draw.choice("ab") * 2000][kind]


def fields_of(draw, texts):
    fields = {}
    for key in ("queries", "query", "topk", "top_k", "top_n", "k", "urls", "return_scores", "return_score", "partial"):
        if draw.random() < 0.4:
            usual = {"queries": draw.sample(texts, 2), "query": draw.choice(texts), "urls": ["https://a"]}.get(key, 3)
            fields[key] = usual if draw.random() < 0.6 else value_of(draw)
    return fields


def body_of(draw, texts):
    fields = fields_of(draw, texts)
    body = packed(fields) if draw.random() < 0.4 else json.dumps(fields, ensure_ascii=draw.random() < 0.5).encode()
    for _ in range(draw.choice([0, 0, 1, 1, 2, 3])):
        at, kind = draw.randrange(len(body) + 1), draw.randrange(7)
        if kind == 0:
            body = body[:at]
        elif kind == 1:
            body = draw.choice([b"[", b'{"a":', b"\x91", b"\x81\xa1a"]) * draw.randrange(20_000)
        elif kind == 2:
            body = body[:at] + draw.randbytes(draw.randrange(20)) + body[at:]
        elif kind == 3:
            body = body[:at] + draw.choice([b"\xdf", b"\xdd", b"\xc6", b"\xc9"]) + draw.randbytes(8) + body[at:]
        elif kind == 4:
            body = body[:at] + b"9" * draw.randrange(400) + body[at:]
        elif body:
            body = body[:at] + draw.randbytes(1) + body[at + 1:]
    return body


def request_of(draw, texts):
    """Returns the bytes of a request, and True if it is whole."""
    body = body_of(draw, texts)
    if draw.random() < 0.5:
        timeout = draw.choice(["", "", "X-Request-Timeout-Ms: 5\r\n", "X-Request-Timeout-Ms: -1\r\n", "grpc-timeout: 1x\r\n"])
        head = f"POST {draw.choice(PATHS[:6])} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{timeout}Content-Length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body, True
    headers = draw.choice([
        "Content-Length: -1", "Content-Length: 99999999999999999999", f"Content-Length: {len(body)}\r\nContent-Length: 1",
        f"Content-Length: {len(body) + 100}", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(body)}", f"Content-Length: {len(body)}\r\nExpect: 100-continue",
        f"Content-Length: {len(body)}\r\nX: {'x' * draw.randrange(100_000)}",
        f"Content-Length: {len(body)}\r\n" + "A: b\r\n" * draw.randrange(300), "Bad Name: x\r\n: y", "",
    ])
    path = draw.choice(PATHS + ["/" + "x" * draw.randrange(100_000)])
    head = f"{draw.choice(METHODS)} {path} {draw.choice(VERSIONS)}\r\nHost: t\r\n{headers}\r\n\r\n"
    chunked = draw.choice(CHUNKS) if "chunked" in headers else b""
    return head.encode() + chunked + body, False


def statuses_of(port, sent, is_whole):
    """Sends bytes and returns the statuses of the answers."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
        try:
            stream.sendall(sent)
            if not is_whole:
                stream.shutdown(socket.SHUT_WR)
            while part := stream.recv(65536):
                answer += part
        except TimeoutError:
            return ["no end"]
        except OSError:
            pass  # The server may close before it has read everything.
    return [part[2:5].decode("latin-1") for part in answer.split(b"HTTP/1.")[1:]]


def send_all(port, count, seed, texts):
    draw, seen, failures = random.Random(seed), collections.Counter(), []
    for _ in range(count):
        sent, is_whole = request_of(draw, texts)
        statuses = statuses_of(port, sent, is_whole)
        seen.update(statuses or ["closed"])
        if any(status[:1] not in "1234" and status != "503" for status in statuses) or is_whole and not statuses:
            failures.append(f"{statuses}: {sent[:300]!r}")
    return seen, failures


def hostile(arguments):
    count, texts = arguments.count or 100_000, questions()
    with Server(body_timeout_ms=5000, header_timeout_ms=5000) as server:
        expected = server.ask(texts[:50])

        def run(each, first):
            with concurrent.futures.ProcessPoolExecutor(WORKERS) as workers:
                jobs = [workers.submit(send_all, server.port, each // WORKERS, first + worker, texts)
                        for worker in range(WORKERS)]
                return [job.result() for job in jobs]

        # What grows once has grown after a tenth: buffers, the table of pages, the allocator's lists.
        ends = run(count // 10, arguments.seed)
        before, started = server.memory(), time.monotonic()
        ends += run(count - count // 10, arguments.seed + WORKERS)
        after = server.memory()
        seen = sum((counts for counts, _ in ends), collections.Counter())
        failures = [failure for _, more in ends for failure in more]
        print(f"{count} requests in {time.monotonic() - started:.0f} s: {dict(seen.most_common())}")
        print(f"memory {before:.1f} to {after:.1f} MB")
        if server.process.poll() is not None:
            failures.append("the server ended")
        elif server.ask(texts[:50]) != expected or not server.is_idle():
            failures.append(f"the server is not as before: {server.get('/stats')[1]}")
    if after - before > GROWTH_MB_MAX:
        failures.append(f"memory grew from {before:.1f} to {after:.1f} MB")
    return failures[:20]
