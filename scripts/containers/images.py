"""Checks an image: its size, its user, its labels, and files that it must not contain."""

import json
import re
import stat
import subprocess
import tarfile

from .compose import docker

TITLE = "org.opencontainers.image.title"
LABELS = (TITLE, "org.opencontainers.image.description", "org.opencontainers.image.licenses", "search-r1.device")
# Caches of package managers, which waste space, as paths without the leading slash.
CACHES = re.compile(
    r"(var/cache/apt/(archives/.+\.deb|(src)?pkgcache\.bin)|var/lib/apt/lists/.+_(Packages|InRelease|Release).*"
    r"|.*/\.cargo/registry/.+|usr/local/cargo/(registry|git)/.+|.*/\.rustup/.+|.*/\.cache/.+|.*/\.npm/.+"
    r"|.*/__pycache__/.+)$"
)
SECRET_FILES = re.compile(
    r"(^|/)(\.env(\..*)?|\.netrc|\.pypirc|\.git-credentials|\.git/.+|\.dockercfg|\.docker/config\.json"
    r"|id_(rsa|dsa|ecdsa|ed25519)|credentials(\.toml)?|.+\.(key|p12|pfx|keystore))$"
)
SECRET_TEXT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,}"
    rb"|hf_[A-Za-z0-9]{30,}|xox[abp]-[0-9A-Za-z-]{10,}|://[^/\s:@\"'<>{}$]+:[^/\s:@\"'<>{}$]+@[a-z0-9]"
)
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)[A-Z_]*=\S")
MODELS = re.compile(r"(\./)?usr/local/share/search-r1/(models|gguf)/")
# Larger files are models and libraries, not settings.
READ_BYTES_MAX = 1 << 20


def faults(image, size_bytes_max=None, health_check=False):
    """Returns the faults of `image`, one line each."""
    described = json.loads(docker("image", "inspect", image))[0]
    image_faults = list(faults_of_settings(described, health_check))
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    for line in history.splitlines():
        if SECRET_NAME.search(line) or SECRET_TEXT.search(line.encode()):
            image_faults.append(f"the history contains a secret: {line[:80]}")
    container = docker("create", image)
    models = []
    try:
        image_faults.extend(faults_of_files(container, models))
    finally:
        docker("rm", "--volumes", container)
    size = described["Size"] - sum(models)
    if size_bytes_max and size > size_bytes_max:
        image_faults.append(f"has {size / 1e6:.0f} MB without models, expected at most {size_bytes_max / 1e6:.0f} MB")
    return [f"{image}: {fault}" for fault in image_faults]


def faults_of_settings(described, health_check):
    settings = described["Config"]
    user = settings.get("User") or "root"
    if user.split(":")[0] in ("root", "0"):
        yield f"runs as {user}"
    for label in LABELS:
        if not (settings.get("Labels") or {}).get(label):
            yield f"has no label {label}"
    if health_check and not settings.get("Healthcheck"):
        yield "has no health check"
    for variable in settings.get("Env") or []:
        if SECRET_NAME.search(variable):
            yield f"the environment contains a secret: {variable.split('=')[0]}"


def faults_of_files(container, models):
    """Yields the faults of all files, and adds the sizes of model files to `models`."""
    exported = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
    count = 0
    with tarfile.open(fileobj=exported.stdout, mode="r|") as files:
        for member in files:
            count += 1
            if member.isfile() and MODELS.match(member.name):
                models.append(member.size)
            yield from faults_of_file(files, member)
    if exported.wait() != 0 or count < 100:
        yield f"cannot be read: the export ended after {count} files"


def faults_of_file(files, member):
    name = member.name.removeprefix("./")
    writable = member.mode & stat.S_IWOTH
    sticky = member.isdir() and member.mode & stat.S_ISVTX
    if writable and not sticky and (member.isfile() or member.isdir()):
        yield f"{name} is writable by everybody ({member.mode:o})"
    if not member.isfile():
        return
    if CACHES.match(name):
        yield f"{name} is a package manager's cache"
    if SECRET_FILES.search(name):
        yield f"{name} has the name of a secret"
    if member.size <= READ_BYTES_MAX:
        content = files.extractfile(member).read()
        secret = SECRET_TEXT.search(content)
        # A program may contain the headline of a key. A text with that headline is a key.
        if secret and b"\0" not in content[:4096]:
            yield f"{name} contains {secret[0][:20]!r}"
