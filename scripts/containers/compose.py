"""A compose project: its commands, its containers, and the objects that it leaves in the engine."""

import json
import os
import subprocess
import time

from .engine import compose_command

COMMAND_LIMIT_S = 1200
# Interval for polling a state that is not announced.
POLL_S = 0.2


class Failed(Exception):
    """A failed check, with the expected and the actual state."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def docker(*arguments, may_fail=False):
    """Runs a docker command and returns its output. `may_fail` accepts any exit code."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    check(may_fail or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def wait_until(event, condition, limit_s):
    """Waits until `condition` returns a true value, and returns it. `event` describes it in the error."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = condition()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"waited {limit_s} s for {event}")
        time.sleep(POLL_S)


class Container:
    """A container of the project, running or stopped."""

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
        """Waits until the log contains `text` `count` times. Fails early if the container has stopped."""

        def seen():
            # Reads the state before the log, so that the log of a stopped container is complete.
            running = self.state["Running"] or self.state["Restarting"]
            if self.log().count(text) >= count:
                return True
            check(running, f"{self.name} ended without {text!r}; its log ends with\n{self.log()[-3000:]}")
            return False

        wait_until(f"{text!r} in the log of {self.name}", seen, limit_s)

    def wait_for_end(self, limit_s):
        """Waits until the container has stopped, and returns its exit code."""
        wait_until(f"the end of {self.name}", lambda: self.state["Status"] == "exited", limit_s)
        return self.state["ExitCode"]

    def kill_process(self, image):
        """Sends SIGKILL to the first process, as the kernel does when memory runs out.

        Docker treats this as a crash and restarts the container, unlike after `docker kill`.
        """
        process = str(self.state["Pid"])
        docker(
            "run", "--rm", "--pid", "host", "--user", "0", "--cap-add", "KILL", "--entrypoint", "bash",
            image, "-c", f"kill -9 {process}",
        )


class Project:
    """`docker compose` for one project name, with a fixed set of variables."""

    def __init__(self, name, folder, variables):
        self.name = name
        self.folder = folder
        self.variables = variables
        self.command = [*compose_command(), "--project-name", name]

    def run(self, *arguments, fails=False, **variables):
        """Runs a compose command and returns its output. With `fails`, the command must fail."""
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
        ids = self.container_ids(service)
        check(len(ids) == 1, f"{len(ids)} containers of service {service}, expected 1")
        return Container(ids[0])

    def exists(self, service):
        return bool(self.container_ids(service))

    def container_ids(self, service):
        label = "label=com.docker.compose."
        filters = ("--filter", f"{label}project={self.name}", "--filter", f"{label}service={service}")
        return docker("ps", "--all", "--quiet", *filters).split()


def everything():
    """Returns the ids of all containers, volumes and networks of the engine."""
    lists = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return {name for command in lists for name in docker(*command, "--quiet").split()}
