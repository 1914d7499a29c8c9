"""Provides libtorch from the registry's wheels as one folder: `lib`, `include`, `build-version`.

The CPU folder keeps four libraries of the torch wheel and the two CUDA run-time libraries that
libtorch_cpu.so links to even without a GPU. The CUDA folder keeps all libraries of torch and of the NVIDIA
wheels that the torch wheel pins. They share one folder, because the loader looks for each next to the others.
"""

import ctypes.util
import os
import posixpath
import re
import shutil
import subprocess
import zipfile

from . import folder, lock
from .console import ProvisionError, say
from .download import fetch_all

RECIPE = "libtorch 1"
HEADERS = "torch/include/"
CPU_LIBRARIES = re.compile(
    r"torch/lib/(libtorch|libtorch_cpu|libc10)\.so$|torch/lib/libgomp[^/]*\.so[^/]*$"
    r"|nvidia/.*/(libcudart|libcupti)\.so\.\d+$"
)
# Excludes the Python bindings, which need one specific version of Python.
CUDA_LIBRARIES = re.compile(r"(torch/lib|nvidia/.*/lib)/(?!libtorch_python|libshm)[^/]+\.so[^/]*$")
REQUIRED = {
    "cpu": ("libtorch.so", "libtorch_cpu.so", "libc10.so", "libcudart.so.13", "libcupti.so.13"),
    "cuda": ("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10_cuda.so", "libcudart.so.13"),
}
# Upper bound on the unpacked size of a wheel, as a multiple of the wheel's size.
UNPACKED_RATIO = 1.6


def detect_device():
    """Returns "cuda" if a driver and a device respond, else "cpu"."""
    if not ctypes.util.find_library("cuda") and not os.access("/dev/nvidia0", os.F_OK):
        return "cpu"
    tool = shutil.which("nvidia-smi")
    if tool:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
        return "cuda" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"
    return "cuda" if os.access("/dev/nvidia0", os.F_OK) else "cpu"


def provide(entries, registry, cache, device):
    """Makes `cache/libtorch` for `device`, unless it is up to date."""
    wheels = lock.of_part(entries, "libtorch-" + device)
    if not wheels:
        raise ProvisionError(f"the lock file lists no wheels for device {device}")
    target_folder = os.path.join(cache, "libtorch")
    source = lock.digest(wheels, f"{RECIPE} {device}")
    version = next(entry["version"] for entry in wheels if entry["package"] == "torch")
    if folder.is_current(target_folder, source):
        say(f"libtorch {version} for {device}: already present")
        return
    total = sum(entry["bytes"] for entry in wheels)
    say(f"libtorch {version} for {device}: {total / 1e6:.0f} MB to download, in {len(wheels)} files")
    folder.require_space(cache, int(total * (1 + UNPACKED_RATIO)))
    paths = fetch_all(registry(), wheels, cache)

    def fill(new):
        for path in paths:
            unpack(path, new, device)
        for name in REQUIRED[device]:
            if not os.path.isfile(os.path.join(new, "lib", name)):
                raise ProvisionError(f"the wheels contain no {name}: the lock file does not match this recipe")
        # The Rust bindings check their version against this file, which the wheels lack.
        with open(os.path.join(new, "build-version"), "w", encoding="utf-8") as file:
            file.write(f"{version}+{device}\n")

    say(f"  unpacking to {target_folder}")
    folder.make(target_folder, source, fill)
    for path in paths:
        os.remove(path)


def unpack(wheel, new, device):
    """Copies the libraries of `wheel` to `new/lib` and libtorch's headers to `new/include`."""
    libraries = CPU_LIBRARIES if device == "cpu" else CUDA_LIBRARIES
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = posixpath.normpath(member.filename)
            if member.is_dir() or name.startswith(("/", "..")):
                continue
            if name.startswith(HEADERS):
                target = os.path.join(new, "include", name[len(HEADERS):])
            elif libraries.fullmatch(name):
                target = os.path.join(new, "lib", posixpath.basename(name))
            else:
                continue
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
