"""A compose project of its own: its commands, its containers and what is left of it."""

import json
import os
import subprocess
import time

from .engine import compose_command

COMMAND_LIMIT_S = 1200
# How often something is asked that does not say by itself when it changes.
POLL_S = 0.2


class Failed(Exception):
    """What did not hold, and what was seen instead."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def docker(*arguments, fails=False):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    check(fails or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def wait_until(what, condition, limit_s):
    """Returns the first true answer of `condition`."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"waited {limit_s} s for {what}")
        time.sleep(POLL_S)


class Container:
    """One container of the project; also after it has ended."""

    def __init__(self, name):
        self.name = name

    def inspect(self):
        return json.loads(docker("inspect", self.name))[0]

    @property
    def state(self):
        return self.inspect()["State"]

    @property
    def address(self):
        networks = self.inspect()["NetworkSettings"]["Networks"]
        return next(network["IPAddress"] for network in networks.values())

    def is_healthy(self):
        return self.state.get("Health", {}).get("Status") == "healthy"

    def log(self):
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(["docker", "logs", self.name], check=True, **both).stdout

    def wait_for_line(self, text, limit_s, count=1):
        """Waits until the log holds `text` `count` times; fails early if the container has ended."""

        def seen():
            # First whether it runs: what it wrote before its end is then in the log.
            running = self.state["Running"] or self.state["Restarting"]
            if self.log().count(text) >= count:
                return True
            check(running, f"{self.name} ended without {text!r}; its log ends with\n{self.log()[-3000:]}")
            return False

        wait_until(f"{text!r} in the log of {self.name}", seen, limit_s)

    def wait_for_end(self, limit_s):
        """The exit code."""
        wait_until(f"the end of {self.name}", lambda: self.state["Status"] == "exited", limit_s)
        return self.state["ExitCode"]

    def kill_process(self, image):
        """SIGKILL to the first process, as the kernel sends it when memory runs out: for Docker that is a
        crash, unlike `docker kill`, after which it would not start the container again."""
        process = str(self.state["Pid"])
        docker(
            "run", "--rm", "--pid", "host", "--user", "0", "--cap-add", "KILL", "--entrypoint", "bash",
            image, "-c", f"kill -9 {process}",
        )


class Project:
    """`docker compose` for one project name, with the variables of the day."""

    def __init__(self, name, folder, variables):
        self.name = name
        self.folder = folder
        self.variables = variables
        self.command = [*compose_command(), "--project-name", name]

    def run(self, *arguments, fails=False, **variables):
        """Runs a compose command; `fails` says that it must."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("RETRIEVER_", "TRAINER_", "COMPOSE_"))
        }
        environment.update(self.variables)
        environment.update(variables)
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT_S,
        )
        shown = " ".join(arguments)
        if fails:
            check(done.returncode != 0, f"compose {shown} succeeded:\n{done.stdout[-3000:]}")
        else:
            check(done.returncode == 0, f"compose {shown} failed:\n{done.stdout[-3000:]}")
        return done.stdout

    def container(self, service):
        label = "label=com.docker.compose."
        found = docker(
            "ps", "--all", "--quiet",
            "--filter", f"{label}project={self.name}", "--filter", f"{label}service={service}",
        ).split()
        check(len(found) == 1, f"{len(found)} containers of service {service}")
        return Container(found[0])

    def exists(self, service):
        label = "label=com.docker.compose."
        filters = ("--filter", f"{label}project={self.name}", "--filter", f"{label}service={service}")
        return bool(docker("ps", "--all", "--quiet", *filters))


def everything():
    """Every container, volume and network of the engine."""
    lists = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return {name for command in lists for name in docker(*command, "--quiet").split()}
