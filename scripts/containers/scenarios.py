"""What users do with compose.yaml, and what must come of it."""

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

# sysexits.h: the command line or the configuration is wrong.
EXIT_USAGE = 64
RETRIEVER_IMAGE = "search-r1-retriever:cpu"
START_LIMIT_S = 120
# A training of this size is over after a minute or two on two cores.
TRAINING_LIMIT_S = 900
RETRIEVER_GRACE_S = 40
TRAINER_GRACE_S = 120
RUN_DIR = "/runs/test"
STEPS = 5
# Small, and warm enough that the model searches for every question.
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
    """The project under test and how the host reaches it."""

    def __init__(self, project, data_folder):
        self.project = project
        self.data_folder = data_folder
        self.url = f"http://{project.variables['RETRIEVER_PUBLISH']}"

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def found(self, query):
        """Passages for one query, best first."""
        answer = self.ask("/retrieve", {"queries": [query], "topk": 1, "return_scores": True})
        return [entry["document"] for entry in answer["result"][0]]

    def best_passage(self, query):
        found = self.found(query)
        check(found, f"{query!r} finds nothing")
        return found[0]

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/readyz")["status"] == "ok"
        return False

    def wait_until_ready(self):
        wait_until("the retriever to be ready", self.answers, START_LIMIT_S)


def first_answer(world):
    """Empty volumes: the demo corpus is indexed, and the first readiness is a real one."""
    world.project.run("up", "--detach", "retriever")
    world.wait_until_ready()
    passage = world.best_passage("What is the capital of Norway?")
    check("Oslo" in passage["contents"], f"the first answer is {passage}")
    say(f"POST {world.url}/retrieve answers {passage['id']}")
    container = world.project.container("retriever")
    wait_until("the health check to see it", container.is_healthy, START_LIMIT_S)
    settings = container.inspect()
    host = settings["HostConfig"]
    check(host["ReadonlyRootfs"], "the root file system can be written")
    check([name.removeprefix("CAP_") for name in host["CapDrop"]] == ["ALL"], f"CapDrop is {host['CapDrop']}")
    check(not host["Privileged"] and host["Memory"] > 0, "privileged, or without a memory limit")
    ports = {port: bound for port, bound in settings["NetworkSettings"]["Ports"].items() if bound}
    check(list(ports) == ["8000/tcp"] and len(ports["8000/tcp"]) == 1, f"open ports: {ports}")
    user = docker("exec", container.name, "id", "--user")
    check(user != "0", "the process runs as root")


def swap(world):
    """One variable each: the back end, the corpus, a setting; and back to the demo's index."""
    path = os.path.join(world.data_folder, "lima.jsonl")
    with open(path, "w", encoding="utf-8") as corpus:
        corpus.write(json.dumps(LIMA) + "\n")
    mine = {"RETRIEVER_CORPUS": "/data/lima.jsonl", "RETRIEVER_INDEX": "/index/lima"}
    world.project.run(
        "up", "--detach", "retriever", RETRIEVER_BACKEND="bm25", RETRIEVER_PASSAGE_FIELDS="full", **mine
    )
    world.wait_until_ready()
    info = world.ask("/info")
    check((info["backend"], info["passage_count"]) == ("bm25", 1), f"/info says {info}")
    passage = world.best_passage("largest city of Peru")
    check(passage["id"] == "lima" and passage.get("title") == "Lima", f"the answer is {passage}")
    say("another corpus with other settings answers")
    world.project.run("up", "--detach", "retriever", RETRIEVER_BACKEND="dense", **mine)
    world.wait_until_ready()
    check(world.ask("/info")["backend"] == "dense", f"/info says {world.ask('/info')}")
    # No word in common with the passage.
    passage = world.best_passage("which metropolis do Peruvians govern from")
    check(passage["id"] == "lima", f"the answer is {passage}")
    say("the dense back end answers")
    world.project.run("up", "--detach", "retriever")
    world.wait_until_ready()
    check(world.ask("/info")["passage_count"] > 1, "the demo's index is gone")


def wrong_variables(world):
    """One message with every wrong variable, an exit code of its own, no restart, nothing served."""
    world.project.run("rm", "--force", "--stop", "retriever", "retriever-check")
    wrong = {
        "RETRIEVER_BACKEND": "nonsense",
        "RETRIEVER_INDEX": "/index/nowhere",
        "RETRIEVER_CORPUS": "",
        "RETRIEVER_TOP_K": "-1",
        "RETRIEVER_LOG": "info,=",
    }
    world.project.run("up", "--detach", "retriever", fails=True, **wrong)
    stopped = world.project.container("retriever-check")
    expect_one_message(stopped, "the configuration has bad values", set(wrong) - {"RETRIEVER_CORPUS"})
    running = world.project.exists("retriever") and world.project.container("retriever").state["Running"]
    check(not running and not world.answers(), "the retriever serves all the same")

    wrong = {"TRAINER_TRAINING_STEPS": "none", "TRAINER_ROLLOUT_TOP_P": "2", "TRAINER_SEED": "-1"}
    world.project.run("rm", "--force", "--stop", "trainer-check")
    world.project.run("up", "--detach", "trainer-check", **wrong)
    stopped = world.project.container("trainer-check")
    stopped.wait_for_end(START_LIMIT_S)
    expect_one_message(stopped, "error: ", set(wrong))


def expect_one_message(stopped, headline, names):
    state, log = stopped.state, stopped.log()
    check(state["ExitCode"] == EXIT_USAGE, f"exit code {state['ExitCode']}; the log is\n{log}")
    check(not state["Running"] and stopped.inspect()["RestartCount"] == 0, "it was started again")
    check(log.count(headline) == 1, f"not one message:\n{log}")
    missing = [name for name in sorted(names) if name not in log]
    check(not missing, f"{missing} are not named in\n{log}")
    say(log.strip())


def stop_under_load(world):
    """SIGTERM while requests come: what was begun is answered whole, and the exit code is 0."""
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
    check(seconds < RETRIEVER_GRACE_S, f"it took {seconds:.1f} s")
    check(not load.broken, f"answers that broke off: {load.broken[:3]}")
    check("drained" in container.log(), f"the log does not say that it drained:\n{container.log()}")
    say(f"{load.answered} requests answered whole, {load.refused} refused; stopped in {seconds:.1f} s, exit code 0")


class Load:
    """Batches without end from several threads, straight to the container, until it is gone."""

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
                # Nothing came back: the connection was not accepted any more.
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

    def count(self, what):
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *error):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def training(world):
    """The demo, small: stopped and gone on with, its retriever killed and taken away for a while."""
    project = world.project
    project.run("up", "--detach", **TRAINING)
    trainer, retriever = project.container("trainer"), project.container("retriever")
    trainer.wait_for_line("== GRPO", TRAINING_LIMIT_S)
    wait_until("the first step", lambda: steps_done(trainer), TRAINING_LIMIT_S)

    started = time.monotonic()
    project.run("stop", **TRAINING)
    seconds = time.monotonic() - started
    codes = [one.state["ExitCode"] for one in (trainer, retriever)]
    check(codes == [0, 0], f"exit codes {codes} of trainer and retriever; {trainer.log()[-2000:]}")
    check(seconds < TRAINER_GRACE_S, f"the stop took {seconds:.0f} s")
    saved = sorted(name for name in files_of(trainer, f"{RUN_DIR}/checkpoints") if name.endswith("trainer_state.json"))
    check(saved, "no checkpoint was saved")
    say(f"stopped in {seconds:.1f} s with exit codes 0 and 0; saved {saved[-1]}")

    project.run("up", "--detach", **TRAINING)
    trainer, retriever = project.container("trainer"), project.container("retriever")
    trainer.wait_for_line("resuming", TRAINING_LIMIT_S)
    retriever.kill_process(RETRIEVER_IMAGE)
    wait_until("Docker to start it again", lambda: retriever.inspect()["RestartCount"] == 1, START_LIMIT_S)
    wait_until("the retriever to be healthy again", retriever.is_healthy, START_LIMIT_S)
    say("killed with -9, the retriever came back by itself")
    # Taken away until the trainer has noticed, so that searches do fail.
    docker("kill", retriever.name)
    trainer.wait_for_line("search failed, retrying", TRAINING_LIMIT_S)
    project.run("up", "--detach", "--no-deps", "retriever", **TRAINING)

    code = trainer.wait_for_end(TRAINING_LIMIT_S)
    check(code == 0, f"the trainer ended with {code}:\n{trainer.log()[-3000:]}")
    check(trainer.inspect()["RestartCount"] == 0, "the trainer crashed on its way")
    check("report.html" in trainer.log(), "the log does not say where the report is")
    check("report.html" in files_of(trainer, f"{RUN_DIR}/report.html"), "there is no report")
    check_trajectories(world, trainer)


def steps_done(trainer):
    return docker("exec", trainer.name, "cat", f"{RUN_DIR}/metrics.jsonl", fails=True).count("\n")


def files_of(container, path):
    """Name and content of every file under a path of a container, running or not."""
    copied = subprocess.run(["docker", "cp", f"{container.name}:{path}", "-"], capture_output=True, check=False)
    check(copied.returncode == 0, f"{path}: {copied.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        return {
            member.name: archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()
        }


def check_trajectories(world, trainer):
    """Every step was trained once, and on no search without its passages."""
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
                # A query may match nothing; then it still does.
                empty = not search["passage_ids"]
                check(
                    not empty or not world.found(search["query"]),
                    f"{name}: trained on an empty result of {search['query']!r}",
                )
    check(searches > 0, "the model never searched: nothing was shown")
    counted = sum(row["dropped_trajectories"] for row in metrics)
    check(counted == dropped, f"{counted} trajectories counted as dropped, {dropped} found")
    say(f"{STEPS} steps, {searches} searches with passages in what was trained on, {dropped} trajectories dropped")
