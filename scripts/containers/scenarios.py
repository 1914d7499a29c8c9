"""Scenarios that users run with compose.yaml, and their expected results."""

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request

from .compose import check, docker, wait_until
from .engine import say

# sysexits.h: the command line or the configuration is invalid.
EXIT_USAGE = 64
RETRIEVER_IMAGE = "search-r1-retriever:cpu"
START_LIMIT_S = 120
# A training run of this size takes a minute or two on two cores.
TRAINING_LIMIT_S = 900
RETRIEVER_GRACE_S = 40
TRAINER_GRACE_S = 120
RUN_DIR = "/runs/test"
STEPS = 5
# A small run, with enough demonstrations that the model searches for every question.
TRAINING = {
    "TRAINER_RUN_DIR": RUN_DIR,
    "TRAINER_SFT_DEMONSTRATIONS": "48",
    "TRAINER_SFT_TRAJECTORIES_PER_UPDATE": "6",
    "TRAINER_SFT_LEARNING_RATE": "2e-4",
    "TRAINER_SFT_DIRECT_FRACTION": "0",
    "TRAINER_TRAINING_STEPS": str(STEPS),
    "TRAINER_TRAINING_PROMPTS_PER_STEP": "4",
    "TRAINER_TRAINING_GROUP_SIZE": "4",
    "TRAINER_EVAL_QUESTIONS": "16",
    "TRAINER_ROLLOUT_MAX_TURNS": "1",
}
LIMA = {"id": "lima", "title": "Lima", "contents": '"Lima"\nLima is the capital and largest city of Peru.'}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """The project under test, and its address on the host."""

    def __init__(self, project, data_folder):
        self.project = project
        self.data_folder = data_folder
        self.url = f"http://{project.variables['RETRIEVER_PUBLISH']}"

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def passages(self, query):
        """Returns the passages for one query, best first."""
        answer = self.ask("/retrieve", {"queries": [query], "topk": 1, "return_scores": True})
        return [entry["document"] for entry in answer["result"][0]]

    def best_passage(self, query):
        passages = self.passages(query)
        check(passages, f"{query!r} finds no passage")
        return passages[0]

    def is_ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/readyz")["status"] == "ok"
        return False

    def wait_until_ready(self):
        wait_until("the retriever to be ready", self.is_ready, START_LIMIT_S)


def first_answer(world):
    """Starts with empty volumes: indexes the demo corpus, and answers as soon as it reports ready."""
    world.project.run("up", "--detach", "retriever")
    world.wait_until_ready()
    passage = world.best_passage("What is the capital of Norway?")
    check("Oslo" in passage["contents"], f"the first answer is {passage}")
    say(f"POST {world.url}/retrieve answers {passage['id']}")
    container = world.project.container("retriever")
    wait_until("the health check to pass", container.is_healthy, START_LIMIT_S)
    settings = container.inspect()
    host = settings["HostConfig"]
    check(host["ReadonlyRootfs"], "the root file system is writable")
    check([name.removeprefix("CAP_") for name in host["CapDrop"]] == ["ALL"], f"CapDrop is {host['CapDrop']}")
    check(not host["Privileged"] and host["Memory"] > 0, "the container is privileged or has no memory limit")
    ports = {port: bound for port, bound in settings["NetworkSettings"]["Ports"].items() if bound}
    check(list(ports) == ["8000/tcp"] and len(ports["8000/tcp"]) == 1, f"open ports: {ports}")
    user = docker("exec", container.name, "id", "--user")
    check(user != "0", "the process runs as root")


def swap(world):
    """Changes the back end, the corpus and a setting by one variable each, then returns to the demo's index."""
    path = os.path.join(world.data_folder, "lima.jsonl")
    with open(path, "w", encoding="utf-8") as corpus:
        corpus.write(json.dumps(LIMA) + "\n")
    own_corpus = {"RETRIEVER_CORPUS": "/data/lima.jsonl", "RETRIEVER_INDEX": "/index/lima"}
    world.project.run(
        "up", "--detach", "retriever", RETRIEVER_BACKEND="bm25", RETRIEVER_PASSAGE_FIELDS="full", **own_corpus
    )
    world.wait_until_ready()
    info = world.ask("/info")
    check((info["backend"], info["passage_count"]) == ("bm25", 1), f"/info is {info}")
    passage = world.best_passage("largest city of Peru")
    check(passage["id"] == "lima" and passage.get("title") == "Lima", f"the answer is {passage}")
    say("another corpus with other settings answers")
    world.project.run("up", "--detach", "retriever", RETRIEVER_BACKEND="dense", **own_corpus)
    world.wait_until_ready()
    check(world.ask("/info")["backend"] == "dense", f"/info is {world.ask('/info')}")
    # The query shares no word with the passage.
    passage = world.best_passage("which metropolis do Peruvians govern from")
    check(passage["id"] == "lima", f"the answer is {passage}")
    say("the dense back end answers")
    world.project.run("up", "--detach", "retriever")
    world.wait_until_ready()
    check(world.ask("/info")["passage_count"] > 1, "the demo's index is gone")


def invalid_variables(world):
    """Reports all invalid variables in one message, exits with its own code, does not restart or serve."""
    world.project.run("rm", "--force", "--stop", "retriever", "retriever-check")
    invalid = {
        "RETRIEVER_BACKEND": "nonsense",
        "RETRIEVER_INDEX": "/index/nowhere",
        "RETRIEVER_CORPUS": "",
        "RETRIEVER_TOP_K": "-1",
        "RETRIEVER_LOG": "info,=",
    }
    world.project.run("up", "--detach", "retriever", fails=True, **invalid)
    stopped = world.project.container("retriever-check")
    expect_one_message(stopped, "the configuration has bad values", set(invalid) - {"RETRIEVER_CORPUS"})
    running = world.project.exists("retriever") and world.project.container("retriever").state["Running"]
    check(not running and not world.is_ready(), "the retriever serves with an invalid configuration")

    invalid = {"TRAINER_TRAINING_STEPS": "none", "TRAINER_ROLLOUT_TOP_P": "2", "TRAINER_SEED": "-1"}
    world.project.run("rm", "--force", "--stop", "trainer-check")
    world.project.run("up", "--detach", "trainer-check", **invalid)
    stopped = world.project.container("trainer-check")
    stopped.wait_for_end(START_LIMIT_S)
    expect_one_message(stopped, "error: ", set(invalid))


def expect_one_message(stopped, headline, names):
    state, log = stopped.state, stopped.log()
    check(state["ExitCode"] == EXIT_USAGE, f"exit code {state['ExitCode']}; the log is\n{log}")
    check(not state["Running"] and stopped.inspect()["RestartCount"] == 0, "it was restarted")
    check(log.count(headline) == 1, f"expected one message:\n{log}")
    missing = [name for name in sorted(names) if name not in log]
    check(not missing, f"{missing} are missing from\n{log}")
    say(log.strip())


def stop_under_load(world):
    """Sends SIGTERM under load: accepted requests get complete answers, and the exit code is 0."""
    world.project.run("up", "--detach", "retriever")
    world.wait_until_ready()
    container = world.project.container("retriever")
    load = Load(container.address)
    with load:
        wait_until("the first answers", lambda: load.answered > 8, START_LIMIT_S)
        started = time.monotonic()
        world.project.run("stop", "retriever")
        seconds = time.monotonic() - started
    check(container.state["ExitCode"] == 0, f"exit code {container.state['ExitCode']}:\n{container.log()}")
    check(seconds < RETRIEVER_GRACE_S, f"the stop took {seconds:.1f} s")
    check(not load.broken, f"incomplete answers: {load.broken[:3]}")
    check("drained" in container.log(), f"the log does not mention that it drained:\n{container.log()}")
    say(f"{load.answered} requests answered completely, {load.refused} refused; stopped in {seconds:.1f} s, exit code 0")


class Load:
    """A stream of batches from several threads, sent directly to the container until the block ends."""

    THREADS = 8
    BODY = json.dumps({"queries": [f"capital of country {n}" for n in range(256)], "topk": 3}).encode()

    def __init__(self, host):
        self.host = host
        self.answered = self.refused = 0
        self.broken = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(self.THREADS)]

    def work(self):
        while not self.ended.is_set():
            connection = http.client.HTTPConnection(self.host, 8000, timeout=60)
            try:
                connection.request("POST", "/retrieve", self.BODY, {"Content-Type": "application/json"})
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException):
                # No response: the server no longer accepts connections.
                self.count("refused")
                self.ended.wait(0.05)
                continue
            try:
                body = json.loads(answer.read())
                whole = answer.status == 503 or len(body["result"]) == 256
                self.count("answered" if answer.status == 200 else "refused")
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                whole, body = False, repr(error)
            connection.close()
            if not whole:
                with self.lock:
                    self.broken.append(f"status {answer.status}: {str(body)[:200]}")

    def count(self, outcome):
        with self.lock:
            setattr(self, outcome, getattr(self, outcome) + 1)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *error):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def training(world):
    """Runs a small demo: stops and resumes it, crashes its retriever, then takes the retriever away for a while."""
    project = world.project
    project.run("up", "--detach", **TRAINING)
    trainer, retriever = project.container("trainer"), project.container("retriever")
    trainer.wait_for_line("== GRPO", TRAINING_LIMIT_S)
    wait_until("the first step", lambda: steps_done(trainer), TRAINING_LIMIT_S)

    started = time.monotonic()
    project.run("stop", **TRAINING)
    seconds = time.monotonic() - started
    codes = [container.state["ExitCode"] for container in (trainer, retriever)]
    check(codes == [0, 0], f"exit codes {codes} of trainer and retriever; {trainer.log()[-2000:]}")
    check(seconds < TRAINER_GRACE_S, f"the stop took {seconds:.0f} s")
    saved = sorted(name for name in files_of(trainer, f"{RUN_DIR}/checkpoints") if name.endswith("trainer_state.json"))
    check(saved, "no checkpoint was saved")
    say(f"stopped in {seconds:.1f} s with exit codes 0 and 0; saved {saved[-1]}")

    project.run("up", "--detach", **TRAINING)
    trainer, retriever = project.container("trainer"), project.container("retriever")
    trainer.wait_for_line("resuming", TRAINING_LIMIT_S)
    retriever.kill_process(RETRIEVER_IMAGE)
    wait_until("Docker to restart the retriever", lambda: retriever.inspect()["RestartCount"] == 1, START_LIMIT_S)
    wait_until("the retriever to be healthy again", retriever.is_healthy, START_LIMIT_S)
    say("after kill -9, Docker restarted the retriever")
    # Stays away until the trainer reports a failed search.
    docker("kill", retriever.name)
    trainer.wait_for_line("search failed, retrying", TRAINING_LIMIT_S)
    project.run("up", "--detach", "--no-deps", "retriever", **TRAINING)

    code = trainer.wait_for_end(TRAINING_LIMIT_S)
    check(code == 0, f"the trainer ended with {code}:\n{trainer.log()[-3000:]}")
    check(trainer.inspect()["RestartCount"] == 0, "the trainer crashed and was restarted")
    check("report.html" in trainer.log(), "the log does not name the report")
    check("report.html" in files_of(trainer, f"{RUN_DIR}/report.html"), "the report is missing")
    check_trajectories(world, trainer)


def steps_done(trainer):
    return docker("exec", trainer.name, "cat", f"{RUN_DIR}/metrics.jsonl", may_fail=True).count("\n")


def files_of(container, path):
    """Returns name and content of every file under a path of a container, running or stopped."""
    copied = subprocess.run(["docker", "cp", f"{container.name}:{path}", "-"], capture_output=True, check=False)
    check(copied.returncode == 0, f"{path}: {copied.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        return {
            member.name: archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()
        }


def check_trajectories(world, trainer):
    """Checks that every step was trained once, and that every trained search had its passages."""
    metrics = [json.loads(line) for line in files_of(trainer, f"{RUN_DIR}/metrics.jsonl")["metrics.jsonl"].splitlines()]
    check([row["step"] for row in metrics] == list(range(1, STEPS + 1)), f"steps {[row['step'] for row in metrics]}")
    searches = dropped = 0
    for name, packed in files_of(trainer, f"{RUN_DIR}/trajectories").items():
        with tempfile.NamedTemporaryFile(suffix=".zst") as file:
            file.write(packed)
            file.flush()
            text = subprocess.run(["zstd", "-dc", file.name], capture_output=True, check=True).stdout
        for line in text.splitlines():
            trajectory = json.loads(line)
            if trajectory["end"] == "search_failed":
                dropped += 1
                continue
            for search in trajectory["searches"]:
                searches += 1
                # A query may match no passage. If so, it must match none now either.
                empty = not search["passage_ids"]
                check(
                    not empty or not world.passages(search["query"]),
                    f"{name}: trained on an empty result of {search['query']!r}",
                )
    check(searches > 0, "the model never searched, so the test proves nothing")
    counted = sum(row["dropped_trajectories"] for row in metrics)
    check(counted == dropped, f"metrics count {counted} dropped trajectories, the files contain {dropped}")
    say(f"{STEPS} steps, {searches} trained searches with passages, {dropped} trajectories dropped")
