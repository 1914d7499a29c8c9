"""ONNX Runtime's library, with which the retriever runs embedding models: one file out of a wheel. For CUDA
also its provider, and the libraries of NVIDIA that this and the retriever's own search load.
"""

import fnmatch
import os
import posixpath
import re
import shutil
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch

# The recipe for the CPU is the one of before there was another: what is there stays.
RECIPES = {"cpu": "onnxruntime 1", "cuda": "onnxruntime 1 cuda"}
# The library's file name ends in the version; the licences go with it.
MEMBERS = {
    "cpu": re.compile(r"onnxruntime/(capi/(libonnxruntime\.so\.[\d.]+)|LICENSE|ThirdPartyNotices\.txt)"),
    "cuda": re.compile(
        r"onnxruntime/(capi/(libonnxruntime(?:\.so\.[\d.]+|_providers_(?:cuda|shared)\.so))"
        r"|LICENSE|ThirdPartyNotices\.txt)|nvidia/(?:.*/)?lib/(?P<nvidia>(?!libnvblas|.*\.alt\.)[^/]+\.so[^/]*)"
    ),
}
REQUIRED = {
    "cpu": ("libonnxruntime.so.*",),
    "cuda": (
        "libonnxruntime.so.*", "libonnxruntime_providers_cuda.so", "libonnxruntime_providers_shared.so",
        "libcublas.so.*", "libcublasLt.so.*", "libcudart.so.*", "libcudnn.so.*", "libcurand.so.*", "libnvrtc.so.*",
    ),
}
# Unpacked size of a wheel in relation to the wheel, at most.
UNPACKED_RATIO = 3


def provide(entries, registry, cache, device):
    """Makes `cache/onnxruntime` with `lib` for `device` unless it is there."""
    wheels = lock.of_part(entries, "onnxruntime-" + device)
    if not wheels:
        raise ProvisionError(f"the lock file lists no wheels of ONNX Runtime for device {device}")
    named = (entry["version"] for entry in wheels if entry["package"].startswith("onnxruntime"))
    version = next(named, wheels[0]["version"])
    place = os.path.join(cache, "onnxruntime")
    source = lock.digest(wheels, RECIPES[device])
    name = f"onnxruntime {version}" + (" for CUDA" if device == "cuda" else "")
    if folder.is_current(place, source):
        say(f"{name}: already there")
        return
    total = sum(entry["bytes"] for entry in wheels)
    say(f"{name}: {total / 1e6:.0f} MB to fetch")
    folder.require_space(cache, (1 + UNPACKED_RATIO) * total)
    downloads = os.path.join(cache, "downloads")
    os.makedirs(downloads, exist_ok=True)
    paths = [fetch(registry(), entry, downloads) for entry in wheels]

    def fill(new):
        os.makedirs(os.path.join(new, "lib"))
        for path in paths:
            unpack(path, new, device)
        names = os.listdir(os.path.join(new, "lib"))
        for required in REQUIRED[device]:
            found = fnmatch.filter(names, required)
            if len(found) != 1:
                raise ProvisionError(f"the wheels hold {len(found)} libraries {required}, expected one")

    folder.make(place, source, fill)
    for path in paths:
        os.remove(path)


def unpack(path, new, device):
    """Copies the libraries of a wheel to `new/lib` and ONNX Runtime's licences beside it."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            found = MEMBERS[device].fullmatch(name)
            if found:
                groups = found.groupdict()
                library = found[2] or groups.get("nvidia")
                target = os.path.join(new, "lib" if library else "", posixpath.basename(name))
                with archive.open(name) as packed, open(target, "wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
