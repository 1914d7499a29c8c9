"""The demo's corpus and questions: part of the project, packed; unpacked here."""

import glob
import hashlib
import lzma
import os
import shutil

from . import folder
from .console import ProvisionError, say

RECIPE = "data 1"


def provide(packed, cache):
    """Unpacks every `packed/*.jsonl.xz` into `cache/data/NAME` unless it is there."""
    paths = sorted(glob.glob(os.path.join(packed, "*.jsonl.xz")))
    if not paths:
        raise ProvisionError(f"{packed} holds no *.jsonl.xz: the checkout is not complete")
    name = os.path.basename(packed)
    place = os.path.join(cache, "data", name)
    digest = hashlib.sha256(RECIPE.encode())
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    source = digest.hexdigest()
    if folder.is_current(place, source):
        say(f"data {name}: already there")
        return
    os.makedirs(os.path.dirname(place), exist_ok=True)

    def fill(new):
        for path in paths:
            target = os.path.join(new, os.path.basename(path)[: -len(".xz")])
            try:
                with lzma.open(path) as packed_file, open(target, "wb") as out:
                    shutil.copyfileobj(packed_file, out, 1 << 20)
            except (lzma.LZMAError, EOFError) as error:
                raise ProvisionError(f"{path}: damaged ({error})") from error

    folder.make(place, source, fill)
    say(f"data {name}: unpacked {len(paths)} files")
