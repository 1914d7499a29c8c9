"""What must be true of an image: its size, its user, its labels, and what must not be in it."""

import json
import re
import stat
import subprocess
import tarfile

TITLE = "org.opencontainers.image.title"
LABELS = (TITLE, "org.opencontainers.image.description", "org.opencontainers.image.licenses", "search-r1.device")
# Folders of package managers that only cost space, as paths without the leading slash.
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
# Longer files hold models and libraries, not settings.
READ_BYTES_MAX = 1 << 20


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def faults(image, size_bytes_max=None, health_check=False):
    """Everything that is wrong with `image`, one line each."""
    described = json.loads(docker("image", "inspect", image))[0]
    found = list(faults_of_settings(described, health_check))
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    for line in history.splitlines():
        if SECRET_NAME.search(line) or SECRET_TEXT.search(line.encode()):
            found.append(f"the history holds a secret: {line[:80]}")
    container = docker("create", image).strip()
    models = []
    try:
        found.extend(faults_of_files(container, models))
    finally:
        docker("rm", "--volumes", container)
    size = described["Size"] - sum(models)
    if size_bytes_max and size > size_bytes_max:
        found.append(f"{size / 1e6:.0f} MB without models, at most {size_bytes_max / 1e6:.0f} MB")
    return [f"{image}: {fault}" for fault in found]


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
            yield f"the environment holds a secret: {variable.split('=')[0]}"


def faults_of_files(container, models):
    """Adds the sizes of the files of models to `models`."""
    exported = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
    count = 0
    with tarfile.open(fileobj=exported.stdout, mode="r|") as files:
        for member in files:
            count += 1
            if member.isfile() and MODELS.match(member.name):
                models.append(member.size)
            yield from faults_of_file(files, member)
    if exported.wait() != 0 or count < 100:
        yield f"could not be read: {count} files"


def faults_of_file(files, member):
    name = member.name.removeprefix("./")
    writable = member.mode & stat.S_IWOTH
    sticky = member.isdir() and member.mode & stat.S_ISVTX
    if writable and not sticky and (member.isfile() or member.isdir()):
        yield f"{name} can be written by everybody ({member.mode:o})"
    if not member.isfile():
        return
    if CACHES.match(name):
        yield f"{name} is a package manager's cache"
    if SECRET_FILES.search(name):
        yield f"{name} looks like a secret by its name"
    if member.size <= READ_BYTES_MAX:
        content = files.extractfile(member).read()
        found = SECRET_TEXT.search(content)
        # A program may well hold the words that introduce a key; a text that does is one.
        if found and b"\0" not in content[:4096]:
            yield f"{name} holds {found[0][:20]!r}"
