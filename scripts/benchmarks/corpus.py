#!/usr/bin/env python3
"""Makes the corpus and the queries of the retrieval benchmarks.

    corpus.py FOLDER PASSAGES

FOLDER/corpus.jsonl contains passages of about 100 words from three English dictionaries that Debian packages (gcide,
WordNet, FOLDOC), in order. Once these run out, passages are shingled: each joins pieces of 10 to 30 consecutive words
from random real passages, up to 100 words. FOLDER/queries.txt contains 2,000 runs of 5 to 10 consecutive words from
real passages, one per line.

All draws come from one seed, so equal packages give equal files. `apt-get download` puts the packages into
FOLDER/packages, where they stay for the next run.
"""

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

PACKAGES = {"dict-gcide": "gcide", "dict-wn": "wn", "dict-foldoc": "foldoc"}
PASSAGE_WORDS = 100
PIECE_WORDS = (10, 30)
QUERIES = 2_000
QUERY_WORDS = (5, 10)
SEED = 20_260_901

# Source tags such as [1913 Webster], pronunciations between backslashes, link braces.
MARKUP = re.compile(r"\[[^\]\n]{0,40}\]|\\[^\\\n]*\\|[{}]")


def fetch(package, folder):
    """Returns the package's file, and downloads it if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{package}_*.deb")):
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    files = sorted(folder.glob(f"{package}_*.deb"))
    if len(files) != 1:
        sys.exit(f"{folder} has {len(files)} files of {package}, expected 1")
    return files[0]


def dictionary_text(package, name, folder):
    """Returns the dictionary in a package. A dictzip file is a gzip file."""
    unpacked = folder / package
    subprocess.run(["dpkg-deb", "-x", fetch(package, folder), unpacked], check=True)
    with gzip.open(unpacked / "usr/share/dictd" / f"{name}.dict.dz") as file:
        return file.read().decode("utf-8", errors="replace")


def real_passages(folder):
    """Returns consecutive words of the dictionaries, as one list of words per passage."""
    passages = []
    for package, name in PACKAGES.items():
        words = MARKUP.sub(" ", dictionary_text(package, name, folder)).split()
        cuts = range(0, len(words), PASSAGE_WORDS)
        passages.extend(words[cut : cut + PASSAGE_WORDS] for cut in cuts)
    return passages


def piece(passages, draw, lengths):
    """Returns some consecutive words of a random passage."""
    words = draw.choice(passages)
    length = min(draw.randint(*lengths), len(words))
    start = draw.randint(0, len(words) - length)
    return words[start : start + length]


def shingled_passage(passages, draw):
    words = []
    while len(words) < PASSAGE_WORDS:
        words.extend(piece(passages, draw, PIECE_WORDS))
    return words[:PASSAGE_WORDS]


def main(arguments):
    if len(arguments) != 2 or not arguments[1].isdigit() or int(arguments[1]) == 0:
        sys.exit(__doc__)
    folder, count = Path(arguments[0]), int(arguments[1])
    real = real_passages(folder / "packages")
    draw = random.Random(SEED)
    queries = [piece(real[:count], draw, QUERY_WORDS) for _ in range(QUERIES)]
    (folder / "queries.txt").write_text("".join(" ".join(words) + "\n" for words in queries))
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for row in range(count):
            words = real[row] if row < len(real) else shingled_passage(real, draw)
            record = {"id": str(row), "contents": " ".join(words)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    shingled = max(0, count - len(real))
    print(f"{count - shingled} real and {shingled} shingled passages, {QUERIES} queries in {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
