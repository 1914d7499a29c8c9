"""Unpacks the demo's corpus and questions, which are part of the repository."""

import glob
import hashlib
import lzma
import os
import shutil

from . import folder
from .console import ProvisionError, say

RECIPE = "data 1"


def provide(packed, cache):
    """Unpacks every `packed/*.jsonl.xz` into `cache/data/NAME`, unless this is already done."""
    paths = sorted(glob.glob(os.path.join(packed, "*.jsonl.xz")))
    if not paths:
        raise ProvisionError(f"{packed} holds no *.jsonl.xz: the checkout is incomplete")
    name = os.path.basename(packed)
    target_folder = os.path.join(cache, "data", name)
    digest = hashlib.sha256(RECIPE.encode())
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    source = digest.hexdigest()
    if folder.is_current(target_folder, source):
        say(f"data {name}: already present")
        return
    os.makedirs(os.path.dirname(target_folder), exist_ok=True)

    def fill(new):
        for path in paths:
            target = os.path.join(new, os.path.basename(path)[: -len(".xz")])
            try:
                with lzma.open(path) as packed_file, open(target, "wb") as out:
                    shutil.copyfileobj(packed_file, out, 1 << 20)
            except (lzma.LZMAError, EOFError) as error:
                raise ProvisionError(f"{path}: damaged ({error})") from error

    folder.make(target_folder, source, fill)
    say(f"data {name}: unpacked {len(paths)} files")
