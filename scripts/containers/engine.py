"""Finds Docker Engine and Compose, or installs and starts them from Debian's packages."""

import os
import shutil
import subprocess
import sys
import tempfile
import time

from provision.console import say

PACKAGES = ("docker.io", "docker-compose", "debootstrap", "zstd")
TOOLS = ("dockerd", "docker", "debootstrap", "zstd")
START_LIMIT_S = 60


class Unavailable(Exception):
    """The reason why Docker is unavailable, in one line."""


def answers():
    """Returns `True` if an engine responds to this user."""
    if not shutil.which("docker"):
        return False
    done = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return done.returncode == 0


def compose_command():
    """Returns `docker compose` if the plugin is installed, else `docker-compose` if installed, else None."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    return None


class Engine:
    """A running engine. If the block started it, its end stops it."""

    def __init__(self):
        self.process = None
        self.log = None

    def __enter__(self):
        if answers() and compose_command() and shutil.which("zstd"):
            return self
        install()
        if not answers():
            self.start()
        if not compose_command():
            raise Unavailable("neither `docker compose` nor `docker-compose` is installed")
        return self

    def start(self):
        self.log = tempfile.NamedTemporaryFile(prefix="dockerd-", suffix=".log")
        command = ["dockerd"]
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + START_LIMIT_S
        while not answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log.name, encoding="utf-8", errors="replace") as log:
                    last = log.read().strip().splitlines()[-1:]
                raise Unavailable(f"dockerd does not start: {' '.join(last)[:300]}")
            time.sleep(0.5)

    def __exit__(self, *error):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.log:
            self.log.close()


def install():
    """Installs missing tools from Debian's packages."""
    if all(map(shutil.which, TOOLS)) and compose_command():
        return
    if os.geteuid() != 0:
        raise Unavailable("no Docker Engine responds to this user, and only root can install one")
    if not shutil.which("apt-get"):
        raise Unavailable("Docker Engine is not installed, and apt-get is missing")
    started = time.monotonic()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES, "iptables"],
    ):
        done = subprocess.run(command, check=False, **quiet)
        if done.returncode != 0:
            last = done.stdout.strip().splitlines()[-1:]
            raise Unavailable(f"`{' '.join(command[:2])}` failed: {' '.join(last)[:300]}")
    say(f"Docker Engine and Compose installed in {time.monotonic() - started:.0f} s")


def versions():
    """Returns the versions of engine, Compose and Python, for the record."""
    ask = ["docker", "version", "--format", "{{.Server.Version}}"]
    engine = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    ask = [*compose_command(), "version", "--short"]
    compose = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return f"Docker Engine {engine}, {' '.join(compose_command())} {compose}, Python {sys.version.split()[0]}"
