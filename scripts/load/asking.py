"""Requests at given times over many connections, in an event loop."""

import asyncio
import json
import random
import time


def head(body):
    return f"POST /retrieve HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def read_answer(reader):
    """Returns the status and the body of an answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    length = next(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:"))
    return status, await reader.readexactly(length)


class Asker:
    """A pool of connections to one server, and the latencies of their requests.

    Requests beyond `connections` wait here; None opens as many connections as there are requests.
    """

    def __init__(self, port, connections=None):
        self.port = port
        self.free = asyncio.Semaphore(connections or 1_000_000)
        self.idle = []
        self.admitted, self.refused, self.failures = [], [], []

    async def ask(self, body):
        """Sends one request and notes the seconds until its answer."""
        async with self.free:
            await self.exchange(body)

    async def exchange(self, body):
        started = time.monotonic()
        try:
            reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
            started = time.monotonic()
            writer.write(head(body))
            status, _ = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failures.append(repr(error))
            return
        took = time.monotonic() - started
        if status == 200:
            self.admitted.append(took)
        elif status == 503:
            self.refused.append(took)
        else:
            self.failures.append(str(status))
        self.idle.append((reader, writer))

    async def at_rate(self, bodies, rate, seconds, draw):
        """Sends requests at random times, `rate` a second, whether or not the server keeps up."""
        tasks, due, number = [], time.monotonic(), 0
        end = due + seconds
        while due < end:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0, due - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(bodies[number % len(bodies)])))
            number += 1
        await asyncio.gather(*tasks)
        return number

    async def in_turn(self, bodies, clients, seconds):
        """Sends requests from several clients, each after its last answer. Returns the requests per second."""
        end, before = time.monotonic() + seconds, len(self.admitted)

        async def client(number):
            while time.monotonic() < end:
                await self.ask(bodies[number % len(bodies)])
                number += clients

        started = time.monotonic()
        await asyncio.gather(*(client(number) for number in range(clients)))
        return (len(self.admitted) - before) / (time.monotonic() - started)

    def close(self):
        for _, writer in self.idle:
            writer.close()


def bodies_of(queries, size=1):
    """Returns requests of `size` queries each."""
    starts = range(0, len(queries) - size + 1, size)
    return [json.dumps({"queries": queries[start:start + size], "topk": 3}).encode() for start in starts]


def random_of(seed):
    return random.Random(seed)
