"""Folders that are either complete or absent: made under a temporary name, stamped, flushed, renamed.

The stamp records the source of the folder and the size of each large file. With it, a later run can check
the folder without reading the files.
"""

import json
import os
import shutil

from .console import ProvisionError

STAMP = "setup-stamp.json"
# Files with these suffixes are compared by size. The thousands of headers are not checked.
CHECKED_SUFFIXES = (".so", ".gguf", ".jsonl", ".onnx", ".json")


def is_current(folder, source):
    """Returns `True` if `folder` was made from `source` and its large files still have their sizes."""
    try:
        with open(os.path.join(folder, STAMP), encoding="utf-8") as file:
            stamp = json.load(file)
        sizes = stamp["bytes"]
        return stamp["source"] == source and all(
            os.path.getsize(os.path.join(folder, name)) == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def make(folder, source, fill):
    """Calls `fill` with the path of a new folder, then replaces `folder` with it."""
    new, old = folder + ".new", folder + ".old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    os.makedirs(new)
    try:
        fill(new)
        stamp = {"source": source, "bytes": sizes_in(new)}
        with open(os.path.join(new, STAMP), "w", encoding="utf-8") as file:
            json.dump(stamp, file, indent=1)
        flush(new)
        if os.path.isdir(folder):
            os.rename(folder, old)
        os.rename(new, folder)
    except OSError as error:
        raise ProvisionError(f"cannot make {folder}: {error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def sizes_in(folder):
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(CHECKED_SUFFIXES) or ".so." in name:
                path = os.path.join(parent, name)
                sizes[os.path.relpath(path, folder)] = os.path.getsize(path)
    return sizes


def flush(folder):
    for parent, _, names in os.walk(folder):
        for name in names:
            flush_path(os.path.join(parent, name))
        flush_path(parent)


def flush_path(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder, needed_bytes):
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise ProvisionError(
            f"{folder} has {free / 1e9:.1f} GB free, set-up needs {needed_bytes / 1e9:.1f} GB: "
            "free some space or choose another folder with --cache"
        )
