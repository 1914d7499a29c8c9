"""The frame of a benchmark script: its output, its programs, its peers' environment, its results."""

import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache/benchmarks"
SCRIPTS = ROOT / "scripts/benchmarks"
THREADS = min(2, os.cpu_count() or 1)


def say(text):
    print(text, flush=True)


def run(*command, **options):
    """Runs a program and returns what it printed. Its error output stays visible."""
    command = [str(word) for word in command]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def provide_peers(venv=CACHE / "venv", requirements=SCRIPTS / "requirements.txt"):
    """Installs the packages of `requirements` into `venv`, unless exactly these are installed, and returns its Python."""
    python, stamp = venv / "bin/python", venv / "requirements.txt"
    if not (stamp.exists() and stamp.read_text() == requirements.read_text()):
        say(f"peers: installing into {venv.relative_to(ROOT)} (several GB)")
        run(sys.executable, "-m", "venv", venv)
        run(python, "-m", "pip", "install", "--quiet", "--requirement", requirements)
        shutil.copy(requirements, stamp)
    return python


def processor():
    """Returns the name of the processor and the widest of its vector instructions."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)[1].split()) if "flags" in text else set()
    levels = (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"), ("avx512f", "AVX-512"), ("avx2", "AVX2"))
    widest = next((level for flag, level in levels if flag in flags), platform.machine())
    return f"{name[1].strip() if name else platform.machine()} ({widest})"


def measure_parts(names, measure, path):
    """Measures each part, keeps the results of all parts in a file, and returns them."""
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        say(f"{name} ...")
        load, started = os.getloadavg()[0], time.monotonic()
        results[name] = measure(name)
        results[name]["circumstances"] = {
            "load_before": round(load, 1), "seconds": round(time.monotonic() - started), "processor": processor(),
            "threads": THREADS, "date": time.strftime("%Y-%m-%d"),
        }
        path.write_text(json.dumps(results, indent=1) + "\n")
        say(f"{name}: {results[name]['circumstances']['seconds']} s")
    return results


def chosen(parser, option, value, known):
    """Returns the words of a list with commas; ends the program if one of them is not known."""
    words = value.split(",")
    if unknown := [word for word in words if word not in known]:
        parser.error(f"--{option} is {value!r}: {unknown[0]!r} is not one of {', '.join(known)}")
    return words
