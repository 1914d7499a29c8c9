"""Scenarios of faults under load: the server is killed, the wall clock jumps."""

import ctypes.util
import http.client
import os
import pathlib
import random
import tempfile
import threading
import time

from serving import Server, questions

CLIENTS = 8
KILLS = 3
RETRY_SECONDS_MAX = 60
# Jumps of the wall clock: a day on, a year back, and back to the truth.
JUMPS = ["+1d", "-365d", "+0"]


def ask_surely(server, queries):
    """Asks until there is an answer. Returns the ids, and the number of attempts that failed."""
    started, attempts = time.monotonic(), 0
    while True:
        try:
            return server.ask(queries), attempts
        except (OSError, ValueError):
            attempts += 1
            if time.monotonic() > started + RETRY_SECONDS_MAX:
                raise
            time.sleep(0.05)


def clients_of(server, texts, expected, stop):
    """Starts clients that ask until `stop` is set. Returns the threads and the list of what they saw."""
    seen = []

    def client(seed):
        draw = random.Random(seed)
        while not stop.is_set():
            at = [draw.randrange(len(texts)) for _ in range(4)]
            ids, attempts = ask_surely(server, [texts[one] for one in at])
            seen.append((ids == [expected[one] for one in at], attempts))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads, seen


def restart(arguments):
    texts, stop, draw = questions(), threading.Event(), random.Random(arguments.seed)
    with Server() as server:
        expected = server.ask(texts)
        threads, seen = clients_of(server, texts, expected, stop)
        for _ in range(KILLS):
            time.sleep(draw.uniform(0.5, 2))
            server.kill()
            started = time.monotonic()
            server.start()
            print(f"killed; ready again after {time.monotonic() - started:.2f} s")
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
    wrong = sum(not is_right for is_right, _ in seen)
    again = sum(attempts > 0 for _, attempts in seen)
    print(f"{len(seen)} requests answered, {again} of them asked again, {wrong} wrong")
    checks = {f"{wrong} answers are wrong": wrong == 0, "no request was interrupted": again > 0}
    return [failure for failure, holds in checks.items() if not holds]


def library():
    """Returns the path of libfaketime."""
    named = os.environ.get("LIBFAKETIME")
    places = [named] if named else [str(path) for path in pathlib.Path("/usr/lib").glob("**/libfaketime.so.1")]
    found = [place for place in places if pathlib.Path(place).exists()]
    return found[0] if found else ctypes.util.find_library("faketime")


def clock(arguments):
    path = library()
    if path is None:
        return ["libfaketime is missing: install the package libfaketime, or set LIBFAKETIME to its file"]
    texts, stop = questions(), threading.Event()
    with tempfile.NamedTemporaryFile("w", suffix=".faketime") as time_file:
        time_file.write("+0\n")
        time_file.flush()
        environment = {"LD_PRELOAD": path, "FAKETIME_TIMESTAMP_FILE": time_file.name, "FAKETIME_CACHE_DURATION": "1",
                       "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        with Server(environment=environment) as server:
            expected = server.ask(texts)
            threads, seen = clients_of(server, texts, expected, stop)
            for jump in JUMPS:
                time.sleep(2)
                pathlib.Path(time_file.name).write_text(jump + "\n")
                time.sleep(2)
                date = date_of(server)
                print(f"jump {jump}: the server says {date}; {len(seen)} requests so far")
            stop.set()
            for thread in threads:
                thread.join()
            is_idle = server.is_idle()
    wrong = sum(not is_right for is_right, _ in seen)
    failed = sum(attempts for _, attempts in seen)
    print(f"{len(seen)} requests, {failed} failed, {wrong} wrong")
    checks = {f"{wrong} wrong": wrong == 0, f"{failed} failed": failed == 0, "not idle": is_idle, "too few": len(seen) > 100}
    return [failure for failure, holds in checks.items() if not holds]


def date_of(server):
    """Returns the date in the header of an answer, which is the server's wall clock."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/livez")
    return connection.getresponse().getheader("date")
