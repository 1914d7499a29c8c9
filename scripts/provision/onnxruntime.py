"""Provides ONNX Runtime, which runs the retriever's embedding models: one library from a wheel.

For CUDA, the CUDA provider is added, and the NVIDIA libraries that the provider and the retriever's search load.
"""

import fnmatch
import os
import posixpath
import re
import shutil
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch_all

# The CPU recipe keeps its original name, so that existing folders stay valid.
RECIPES = {"cpu": "onnxruntime 1", "cuda": "onnxruntime 1 cuda"}
# The library's file name ends in its version. The licences are unpacked with it.
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
# Upper bound on the unpacked size of a wheel, as a multiple of the wheel's size.
UNPACKED_RATIO = 3


def provide(entries, registry, cache, device):
    """Makes `cache/onnxruntime` with `lib` for `device`, unless it is up to date."""
    wheels = lock.of_part(entries, "onnxruntime-" + device)
    if not wheels:
        raise ProvisionError(f"the lock file lists no wheels of ONNX Runtime for device {device}")
    named = (entry["version"] for entry in wheels if entry["package"].startswith("onnxruntime"))
    version = next(named, wheels[0]["version"])
    target_folder = os.path.join(cache, "onnxruntime")
    source = lock.digest(wheels, RECIPES[device])
    name = f"onnxruntime {version}" + (" for CUDA" if device == "cuda" else "")
    if folder.is_current(target_folder, source):
        say(f"{name}: already present")
        return
    total = sum(entry["bytes"] for entry in wheels)
    say(f"{name}: {total / 1e6:.0f} MB to download")
    folder.require_space(cache, (1 + UNPACKED_RATIO) * total)
    paths = fetch_all(registry(), wheels, cache)

    def fill(new):
        os.makedirs(os.path.join(new, "lib"))
        for path in paths:
            unpack(path, new, device)
        names = os.listdir(os.path.join(new, "lib"))
        for required in REQUIRED[device]:
            libraries = fnmatch.filter(names, required)
            if len(libraries) != 1:
                raise ProvisionError(f"the wheels hold {len(libraries)} libraries {required}, expected one")

    folder.make(target_folder, source, fill)
    for path in paths:
        os.remove(path)


def unpack(path, new, device):
    """Copies the libraries of a wheel to `new/lib`, and ONNX Runtime's licences to `new`."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            member = MEMBERS[device].fullmatch(name)
            if member:
                groups = member.groupdict()
                library = member[2] or groups.get("nvidia")
                target = os.path.join(new, "lib" if library else "", posixpath.basename(name))
                with archive.open(name) as packed, open(target, "wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
