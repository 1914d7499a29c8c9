"""Progress output: a bar that is redrawn on a terminal, a few plain lines elsewhere."""

import os
import sys
import time


class ProvisionError(Exception):
    """An error that the user can fix. It is printed without a traceback."""


def say(text):
    print(text, flush=True)


def megabytes(count):
    return f"{count / 1e6:.1f} MB"


class Progress:
    """The progress of one task that is measured in bytes."""

    REDRAW_SECONDS = 0.2
    PLAIN_STEP_PERCENT = 20

    def __init__(self, label, total_bytes, done_bytes=0):
        self.label = label
        self.total = max(total_bytes, 1)
        self.done = done_bytes
        self.start_done = done_bytes
        self.start = time.monotonic()
        self.drawn = 0.0
        self.next_percent = self.percent() + self.PLAIN_STEP_PERCENT
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def percent(self):
        return 100 * self.done // self.total

    def add(self, count):
        self.done += count
        now = time.monotonic()
        if self.terminal:
            if now - self.drawn >= self.REDRAW_SECONDS:
                self.drawn = now
                print("\r\033[K" + self.line(now), end="", flush=True)
        elif self.percent() >= self.next_percent and self.done < self.total:
            self.next_percent = self.percent() + self.PLAIN_STEP_PERCENT
            say(self.line(now))

    def line(self, now):
        rate = (self.done - self.start_done) / max(now - self.start, 1e-3)
        left = (self.total - self.done) / rate if rate > 0 else 0
        bar = ""
        if self.terminal:
            filled = min(20, 20 * self.done // self.total)
            bar = "[" + "#" * filled + "-" * (20 - filled) + "] "
        return (
            f"  {self.label}: {bar}{self.done / 1e6:.1f} of {megabytes(self.total)} "
            f"({self.percent()} %), {megabytes(rate)}/s, {left // 60:.0f}:{left % 60:02.0f} left"
        )

    def finish(self):
        seconds = time.monotonic() - self.start
        if self.terminal:
            print("\r\033[K", end="")
        say(f"  {self.label}: {megabytes(self.total)} in {seconds:.1f} s")

    def stop(self):
        """Ends the progress line, so that a message can follow."""
        if self.terminal:
            print(flush=True)
