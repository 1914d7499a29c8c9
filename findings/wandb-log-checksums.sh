#!/usr/bin/env bash
# Shows that the log of an offline run of wandb 0.31.0 has the framing of LevelDB's log (blocks of 32 KiB; checksum,
# length, kind) but not its checksums: it has the CRC-32 of zlib over kind and content, unmasked, where LevelDB has a
# masked CRC-32C. Besides, the file's own header of 7 bytes counts in the first block. A reader or writer of LevelDB's
# logs takes or makes every record for a damaged one.
#
# Needs Python 3.10 or later and the package index. Installs into a temporary folder (0.2 GB). Exits with 0 if the
# behaviour is as described.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wandb==0.31.0
cd "$folder"

venv/bin/python - <<'PYTHON'
import glob
import struct
import zlib
from importlib.metadata import version

import wandb

BLOCK, HEADER = 32768, 7


def crc32c(data):
    """The CRC-32C of Castagnoli, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283
print("wandb", version("wandb"))
settings = wandb.Settings(x_disable_stats=True, console="off", silent=True)
with wandb.init(mode="offline", project="checksums", settings=settings) as run:
    for step in range(300):
        run.log({"loss": 1 / (step + 1), "reward": step / 300})
data = open(glob.glob("wandb/offline-run-*/*.wandb")[0], "rb").read()
print("the file begins with", data[:HEADER])
assert data[:5] == b":W&B\xe1" and len(data) > BLOCK, len(data)
offset, fragments, of_zlib, of_leveldb = HEADER, 0, 0, 0
while offset < len(data):
    free = BLOCK - offset % BLOCK
    if free < HEADER:
        offset += free
        continue
    checksum, length, kind = struct.unpack_from("<IHB", data, offset)
    assert kind in (1, 2, 3, 4), "the blocks begin elsewhere"
    content = data[offset + 6:offset + HEADER + length]
    fragments += 1
    of_zlib += checksum == zlib.crc32(content)
    of_leveldb += checksum == masked(crc32c(content))
    offset += HEADER + length
print(f"{fragments} fragments in {len(data)} bytes: {of_zlib} with zlib's CRC-32, {of_leveldb} with LevelDB's checksum")
assert (of_zlib, of_leveldb) == (fragments, 0)
PYTHON
