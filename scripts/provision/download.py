"""Downloads a locked file. Resumes and retries broken transfers, and rejects a file with a wrong SHA-256."""

import hashlib
import http.client
import os
import time
import urllib.error

from .console import Progress, ProvisionError, say

CHUNK_BYTES = 1 << 20
TRIES_MAX = 6
FIRST_WAIT_SECONDS = 1.0
# HTTP statuses that a retry does not change.
FINAL_STATUS = {400, 401, 403, 404, 405, 410, 451}


class Broken(Exception):
    """A transfer that broke off. The next try continues from the bytes received so far."""


def fetch_all(registry, entries, cache):
    """Downloads locked files into `cache/downloads` and returns their paths."""
    downloads = os.path.join(cache, "downloads")
    os.makedirs(downloads, exist_ok=True)
    return [fetch(registry, locked, downloads) for locked in entries]


def fetch(registry, locked, folder):
    """Downloads the file `locked` (an entry of the lock file) into `folder` and returns its path."""
    whole = os.path.join(folder, locked["file"])
    part = whole + ".part"
    if os.path.isfile(whole):
        if os.path.getsize(whole) == locked["bytes"] and digest_of(whole).hexdigest() == locked["sha256"]:
            return whole
        os.remove(whole)
    url = registry.locate(locked["package"], locked["file"])
    for _ in range(2):
        digest = complete(registry, url, locked, part)
        if digest == locked["sha256"]:
            os.replace(part, whole)
            return whole
        os.remove(part)
        say(f"  {locked['file']}: wrong SHA-256 {digest}, downloading it again")
    raise ProvisionError(
        f"{locked['file']}: SHA-256 is {digest} twice, expected {locked['sha256']}; "
        "the registry serves a different file"
    )


def complete(registry, url, locked, part):
    """Downloads the rest of `part` in at most `TRIES_MAX` tries and returns its SHA-256."""
    wait = FIRST_WAIT_SECONDS
    for attempt in range(1, TRIES_MAX + 1):
        try:
            return transfer(registry, url, locked, part)
        except Broken as broken:
            if attempt == TRIES_MAX:
                raise ProvisionError(
                    f"{locked['file']}: {broken} after {TRIES_MAX} tries; run the command again to resume"
                ) from broken
            say(f"  {locked['file']}: {broken}; trying again in {wait:.0f} s")
            time.sleep(wait)
            wait *= 2
    raise AssertionError("unreachable: the last try returns or raises")


def transfer(registry, url, locked, part):
    """Makes one try. Continues `part` if the server supports ranges, else starts over."""
    size = locked["bytes"]
    have = os.path.getsize(part) if os.path.isfile(part) else 0
    if have > size:
        os.remove(part)
        have = 0
    digest = digest_of(part) if have else hashlib.sha256()
    if have == size:
        return digest.hexdigest()
    try:
        answer = registry.open(url, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError as error:
        if error.code in FINAL_STATUS:
            raise ProvisionError(f"{locked['file']}: the registry answers {error.code} {error.reason}") from error
        if error.code == 416:
            os.remove(part)
        raise Broken(f"the registry answers {error.code}") from error
    except OSError as error:
        raise Broken(f"no connection ({error})") from error
    with answer:
        if have and answer.status != 206:
            have, digest = 0, hashlib.sha256()
        if have:
            say(f"  {locked['file']}: resuming at {have / 1e6:.1f} MB")
        receive(answer, part, "ab" if have else "wb", digest, Progress(locked["file"], size, have))
    return digest.hexdigest()


def receive(answer, part, mode, digest, progress):
    with open(part, mode) as out:
        while progress.done < progress.total:
            try:
                chunk = answer.read(min(CHUNK_BYTES, progress.total - progress.done))
            except (OSError, http.client.HTTPException) as error:
                progress.stop()
                raise Broken(f"the transfer broke off ({error})") from error
            if not chunk:
                progress.stop()
                raise Broken(f"the transfer ended at {progress.done} of {progress.total} bytes")
            out.write(chunk)
            digest.update(chunk)
            progress.add(len(chunk))
    progress.finish()


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest
