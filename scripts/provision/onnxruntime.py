"""ONNX Runtime's library, with which the retriever runs embedding models: one file out of a wheel."""

import os
import posixpath
import re
import shutil
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch

RECIPE = "onnxruntime 1"
# The file's name ends in the version; the licences go with it.
MEMBERS = re.compile(r"onnxruntime/(capi/(libonnxruntime\.so\.[\d.]+)|LICENSE|ThirdPartyNotices\.txt)")


def provide(entries, registry, cache):
    """Makes `cache/onnxruntime` with `lib` unless it is there."""
    (wheel,) = lock.of_part(entries, "onnxruntime")
    place = os.path.join(cache, "onnxruntime")
    source = lock.digest([wheel], RECIPE)
    if folder.is_current(place, source):
        say(f"onnxruntime {wheel['version']}: already there")
        return
    say(f"onnxruntime {wheel['version']}: {wheel['bytes'] / 1e6:.0f} MB to fetch")
    folder.require_space(cache, 4 * wheel["bytes"])
    downloads = os.path.join(cache, "downloads")
    os.makedirs(downloads, exist_ok=True)
    path = fetch(registry(), wheel, downloads)
    folder.make(place, source, lambda new: unpack(path, new))
    os.remove(path)


def unpack(path, new):
    """Copies the library to `new/lib` and the licences beside it."""
    os.makedirs(os.path.join(new, "lib"))
    libraries = 0
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            found = MEMBERS.fullmatch(name)
            if found:
                libraries += bool(found[2])
                target = os.path.join(new, "lib" if found[2] else "", posixpath.basename(name))
                with archive.open(name) as packed, open(target, "wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
    if libraries != 1:
        raise ProvisionError(f"{path} holds {libraries} libraries libonnxruntime.so.*, expected one")
