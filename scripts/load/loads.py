"""Scenarios of much load: more than the capacity, many connections at once, and a long time below the capacity."""

import asyncio
import json
import math
import time

from asking import Asker, bodies_of, head, random_of, read_answer
from serving import Server, long_query, percentile, questions

OVERLOAD = 10
# In each heavy request, so that ten times the capacity is a rate that a script reaches.
QUERIES = 4
# The wait that is accepted, in times of one search: one request may wait for the one that is searched.
WAIT_SHARE = 2
# The share of requests that a server refuses at a fifth of its capacity with such a wait.
CALM_REFUSED_MAX = 0.1
REFUSED_MS_MAX = 10
RECOVERY_SECONDS_MAX = 1
GROWTH_MB_MAX = 16
SLOPE_MB_PER_HOUR_MAX = 16
# Of the soak: with as many as there are requests, the memory would follow the pace of the machine.
CONNECTIONS = 64


def milliseconds(values, share):
    return 1000 * percentile(values, share)


def heavy():
    """Returns requests of some milliseconds each."""
    texts = questions()
    return bodies_of([long_query(texts, number) for number in range(400)], QUERIES)


async def unloaded(port, bodies, seconds, draw):
    """Returns the capacity in requests per second, and the latencies at a fifth of it."""
    asker = Asker(port)
    await asker.in_turn(bodies, 1, 1)
    capacity = await asker.in_turn(bodies, 2, 3)
    asker.admitted.clear()
    await asker.at_rate(bodies, capacity / 5, seconds, draw)
    asker.close()
    return capacity, asker


def overload(arguments):
    seconds, draw = arguments.seconds or 60, random_of(arguments.seed)
    bodies = heavy()
    settings = {"threads": 1, "max_in_flight_queries": 1}
    with Server(**settings) as server:
        capacity, calm = asyncio.run(unloaded(server.port, bodies, min(seconds, 20), draw))
    middle, worst = milliseconds(calm.admitted, 0.5), milliseconds(calm.admitted, 0.99)
    print(f"capacity {capacity:.0f} requests/s; unloaded p50 {middle:.1f} ms, p99 {worst:.1f} ms")
    with Server(**settings, max_wait_ms=math.ceil(middle * WAIT_SHARE)) as server:
        failures = asyncio.run(overloaded(server, bodies, capacity, worst, seconds, draw))
    return failures


async def overloaded(server, bodies, capacity, worst, seconds, draw):
    warm = Asker(server.port)
    await warm.at_rate(bodies, capacity * OVERLOAD, 2, draw)
    before, asker = server.memory(), Asker(server.port)
    asker.idle = warm.idle
    sent = await asker.at_rate(bodies, capacity * OVERLOAD, seconds, draw)
    after, ended = server.memory(), time.monotonic()
    answered = len(asker.admitted) + len(asker.refused)
    admitted, refused = milliseconds(asker.admitted, 0.99), milliseconds(asker.refused, 0.99)
    print(f"sent {sent} in {seconds:.0f} s; admitted {len(asker.admitted)}, refused {len(asker.refused)}, "
          f"failed {len(asker.failures)}")
    print(f"admitted p50 {milliseconds(asker.admitted, .5):.1f} ms, p99 {admitted:.1f} ms; refused p50 "
          f"{milliseconds(asker.refused, .5):.1f} ms, p99 {refused:.1f} ms; memory {before:.1f} to {after:.1f} MB")
    calm = Asker(server.port)
    await calm.ask(bodies[0])
    recovery = time.monotonic() - ended
    await calm.at_rate(bodies, capacity / 5, 5, draw)
    again = milliseconds(calm.admitted, 0.99)
    share = len(calm.refused) / (len(calm.refused) + len(calm.admitted))
    print(f"answers again after {1000 * recovery:.0f} ms, then at a fifth of the capacity p99 {again:.1f} ms, "
          f"{100 * share:.1f} % refused")
    checks = {
        f"{len(asker.failures)} failed: {asker.failures[:3]}": not asker.failures,
        f"{sent} sent, {answered} answered": answered == sent,
        f"p99 {admitted:.1f} ms is above twice {worst:.1f} ms": admitted <= 2 * worst,
        f"refused after {refused:.1f} ms (p99), above {REFUSED_MS_MAX} ms": refused <= REFUSED_MS_MAX,
        f"memory grew from {before:.1f} to {after:.1f} MB": after - before <= GROWTH_MB_MAX,
        f"recovered after {recovery:.1f} s": recovery <= RECOVERY_SECONDS_MAX,
        f"p99 {again:.1f} ms afterwards, {100 * share:.1f} % refused":
            again <= 2 * worst and share <= CALM_REFUSED_MAX,
        f"not idle: {server.get('/stats')[1]}": server.is_idle(),
    }
    return [failure for failure, holds in checks.items() if not holds]


def cancel(arguments):
    count, draw = arguments.count or 10_000, random_of(arguments.seed)
    texts = questions()
    settings = {"max_connections": 2 * count, "max_requests": 2 * count, "max_queued_queries": 2 * count}
    with Server(**settings) as server:
        expected = server.ask(texts)
        failures = asyncio.run(cancelled(server, texts, expected, count, draw))
        before = time.monotonic()
        while not server.is_idle() and time.monotonic() < before + 10:
            time.sleep(0.01)
        print(f"idle after {time.monotonic() - before:.2f} s; memory {server.memory():.1f} MB")
        if not server.is_idle():
            failures.append(f"not idle: {server.get('/stats')[1]}")
        if server.ask(texts) != expected:
            failures.append("the answers changed")
    return failures


async def cancelled(server, texts, expected, count, draw):
    failures, opened = [], []
    for start in range(0, count, 500):
        part = range(start, min(start + 500, count))
        opened += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", server.port) for _ in part))
    print(f"{len(opened)} connections are open")

    async def client(number, reader, writer, leaves_after):
        at = number % len(texts)
        writer.write(head(bodies_of([texts[at]])[0]))
        if leaves_after is not None:
            await asyncio.sleep(leaves_after)
            writer.close()
            return "left"
        status, body = await read_answer(reader)
        if status == 503:
            writer.close()
            return "refused"
        ids = [[passage["id"] for passage in passages] for passages in json.loads(body)["result"]]
        if status != 200 or ids != [expected[at]]:
            failures.append(f"{status}: {texts[at]!r} has {ids}, expected {expected[at]}")
        # Nothing follows the answer.
        writer.write_eof()
        rest = await reader.read()
        if rest:
            failures.append(f"{texts[at]!r} was answered twice: {rest[:100]}")
        writer.close()
        return "answered"

    leaving = [draw.uniform(0, 2) if draw.random() < 0.5 else None for _ in opened]
    started = time.monotonic()
    ends = await asyncio.gather(*(client(number, *connection, leaves) for number, (connection, leaves)
                                  in enumerate(zip(opened, leaving))), return_exceptions=True)
    took = time.monotonic() - started
    counts = {str(end): ends.count(end) for end in ends}
    print(f"after {took:.1f} s: {counts}")
    failures += [f"{end!r}" for end in counts if end not in ("left", "answered", "refused")]
    if counts.get("answered", 0) + counts.get("refused", 0) != leaving.count(None):
        failures.append("a client that stayed has no answer")
    return failures


def soak(arguments):
    seconds, draw = arguments.seconds or 1800, random_of(arguments.seed)
    bodies = bodies_of(questions()) + heavy()[:40]
    with Server() as server:
        return asyncio.run(soaked(server, bodies, seconds, draw))


async def soaked(server, bodies, seconds, draw):
    asker = Asker(server.port, CONNECTIONS)
    capacity = await asker.in_turn(bodies, 8, 5)
    # The first tenth fills what grows once: connections, buffers, the allocator's lists.
    await asker.at_rate(bodies, 0.8 * capacity, seconds / 10, draw)
    asker.admitted.clear()
    samples = []

    async def sample():
        while True:
            samples.append((time.monotonic(), server.memory()))
            await asyncio.sleep(1)

    sampling = asyncio.create_task(sample())
    sent = await asker.at_rate(bodies, 0.8 * capacity, seconds, draw)
    sampling.cancel()
    slope = slope_of(samples) * 3600
    print(f"{sent} requests at {0.8 * capacity:.0f}/s, p99 {milliseconds(asker.admitted, .99):.1f} ms, refused "
          f"{len(asker.refused)}; memory {samples[0][1]:.1f} to {samples[-1][1]:.1f} MB, {slope:+.2f} MB per hour")
    # A short run sees the steps of the allocator, which a slope would multiply.
    grew = samples[-1][1] - samples[0][1]
    failures = [f"memory grows by {slope:.1f} MB per hour"] if slope > SLOPE_MB_PER_HOUR_MAX and grew > 2 else []
    return failures + [f"{len(asker.failures)} failed: {asker.failures[:3]}" for _ in asker.failures[:1]]


def slope_of(samples):
    """Returns the slope of the least squares line, in MB per second."""
    mean_time = sum(at for at, _ in samples) / len(samples)
    mean = sum(value for _, value in samples) / len(samples)
    above = sum((at - mean_time) * (value - mean) for at, value in samples)
    below = sum((at - mean_time) ** 2 for at, _ in samples)
    return above / below if below else 0.0
