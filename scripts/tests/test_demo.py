"""Tests of scripts/demo with a stand-in for the trainer, which writes the results of each stage.

They check the stages that are kept, the stages that run again, and signals. `.ci/run` runs the real programs.
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SCRIPTS = pathlib.Path(__file__).resolve().parent.parent

TRAINER = r"""#!/usr/bin/env bash
command=$1 run_dir= name= model=
while (($#)); do
  case $1 in --run-dir) run_dir=$2 ;; --name) name=$2 ;; --model) model=$2 ;; esac
  shift
done
echo "$command${name:+ $name}" >>"$CALLS"
case $command in
  sft) mkdir -p "$run_dir/warm-start" && echo {} >"$run_dir/warm-start/config.json" ;;
  eval) [[ -d $model ]] && mkdir -p "$run_dir/eval" && echo {} >"$run_dir/eval/$name.json" ;;
  train)
    mkdir -p "$run_dir/checkpoints/step-2" "$run_dir/checkpoints/step-10"
    if [[ -n ${STARTED-} ]]; then
      trap 'kill $!; exit "$STOP_CODE"' TERM
      echo ready >"$STARTED"
      # Nothing is ever written to this pipe, so only a signal ends the wait.
      while true; do read -r <>"$NEVER" >/dev/null 2>&1 & wait $!; done
    fi
    ;;
  report) echo page >"$run_dir/report.html" ;;
esac
"""
ALL = ["sft", "eval warm-start", "train", "eval grpo", "eval grpo-random-passages", "report"]


class Demo(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name in ("bin", "data", "model"):
            (self.folder / name).mkdir()
        trainer = self.folder / "bin" / "trainer"
        trainer.write_text(TRAINER)
        trainer.chmod(0o755)
        (self.folder / "data" / "corpus.jsonl").write_text("{}\n")
        (self.folder / "model" / "config.json").write_text("{}\n")
        self.calls = self.folder / "calls"

    def start(self, *arguments, **variables):
        self.calls.write_text("")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAINER_")}
        environment.update(
            DEMO_BINARIES=str(self.folder / "bin"),
            DEMO_DATA=str(self.folder / "data"),
            DEMO_MODEL=str(self.folder / "model"),
            CALLS=str(self.calls),
            **variables,
        )
        command = [str(SCRIPTS / "demo"), "--run-dir", str(self.folder / "run"), "--retriever", "http://x/retrieve"]
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *arguments], env=environment, **both)

    def run_demo(self, *arguments, **variables):
        process = self.start(*arguments, **variables)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output, self.calls.read_text().splitlines()

    def test_all_stages_run_once_and_a_finished_demo_is_kept(self):
        code, output, calls = self.run_demo("--resume")
        self.assertEqual((code, calls), (0, ALL), output)
        code, output, calls = self.run_demo("--resume")
        self.assertEqual((code, calls), (0, ["train", "report"]), output)
        code, output, calls = self.run_demo()
        self.assertEqual((code, calls), (0, ALL), "without --resume all stages run again: " + output)

    def test_other_settings_are_refused(self):
        self.assertEqual(self.run_demo("--resume", TRAINER_TRAINING_STEPS="2")[0], 0)
        code, output, calls = self.run_demo("--resume", TRAINER_TRAINING_STEPS="3")
        self.assertEqual((code, calls), (64, []), output)
        self.assertIn("TRAINER_TRAINING_STEPS=3", output)
        for other in ({"TRAINER_LOG": "debug"}, {"TRAINER_RETRIEVER_URL": "http://y/retrieve"}, {"TRAINER_SEED": ""}):
            self.assertEqual(self.run_demo("--resume", TRAINER_TRAINING_STEPS="2", **other)[0], 0, other)

    def stopped_by(self, number, stop_code):
        started, never = self.folder / "started", self.folder / "never"
        for pipe in (started, never):
            if not pipe.exists():
                os.mkfifo(pipe)
        process = self.start("--resume", STARTED=str(started), NEVER=str(never), STOP_CODE=str(stop_code))
        with open(started, encoding="utf-8") as pipe:
            self.assertEqual(pipe.read(), "ready\n")
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        return process.returncode, output, self.calls.read_text().splitlines()

    def test_sigterm_reaches_the_trainer_and_the_demo_resumes_later(self):
        code, output, calls = self.stopped_by(signal.SIGTERM, 0)
        self.assertEqual((code, calls), (0, ALL[:3]), output)
        code, output, calls = self.run_demo("--resume")
        self.assertEqual((code, calls), (0, ALL[2:]), output)
        self.assertIn("already done", output)

    def test_a_trainer_that_fails_while_stopping_is_reported(self):
        self.assertEqual(self.stopped_by(signal.SIGTERM, 1)[0], 1)
        self.assertEqual(self.stopped_by(signal.SIGTERM, 143)[0], 0)

    def test_a_missing_file_is_named(self):
        (self.folder / "model" / "config.json").unlink()
        code, output, _ = self.run_demo()
        self.assertEqual(code, 1)
        self.assertIn("model/config.json is missing", output)


if __name__ == "__main__":
    unittest.main()
