"""Reads `setup.lock.json`, which lists package, version, name, size and SHA-256 of every downloaded file."""

import hashlib
import json
import re

from .console import ProvisionError

FIELDS = {"package": str, "version": str, "file": str, "bytes": int, "sha256": str, "parts": list}
PARTS = ("libtorch-cpu", "libtorch-cuda", "model", "onnxruntime-cpu", "onnxruntime-cuda", "embedder")


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            entries = json.load(file)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProvisionError(f"{path}: not a lock file ({error!r})") from error
    for entry in entries:
        for field, kind in FIELDS.items():
            if not isinstance(entry.get(field), kind):
                raise ProvisionError(f"{path}: {field} of {entry.get('file')}: expected {kind.__name__}")
        if not re.fullmatch(r"[0-9a-f]{64}", entry["sha256"]):
            raise ProvisionError(f"{path}: sha256 of {entry['file']}: expected 64 hexadecimal digits")
        if not re.fullmatch(r"[\w.+!-]+\.whl", entry["file"]):
            raise ProvisionError(f"{path}: file {entry['file']!r}: expected the name of a wheel")
        if not set(entry["parts"]) <= set(PARTS):
            raise ProvisionError(f"{path}: parts of {entry['file']}: expected {', '.join(PARTS)}")
    return entries


def of_part(entries, part):
    return [entry for entry in entries if part in entry["parts"]]


def digest(entries, recipe):
    """Returns a digest of a folder's source: these files, unpacked by this version of the recipe."""
    text = recipe + "".join(entry["sha256"] for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()
