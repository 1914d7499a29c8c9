#!/usr/bin/env bash
# Shows that the server of milvus-lite 3.2.2 takes a collection with descriptions of the collection and of a field and
# silently drops both. Milvus keeps them: the schema of a collection has a description for exactly this. Facts that are
# kept there, such as the name of the embedding model, are lost without an error; properties of the collection are kept.
#
# Needs Python 3.10 or later and the package index. Installs into a temporary folder (0.4 GB) and listens on this
# machine only. Exits with 0 if the behaviour is as described.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check milvus-lite==3.2.2 pymilvus==3.0.2
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/venv/bin/milvus-lite" server --data-dir "$folder/lite.db" --host 127.0.0.1 --port "$port" > "$folder/log" 2>&1 &
server=$!

"$folder/venv/bin/python" - "http://127.0.0.1:$port" <<'PYTHON'
import sys
import time
from importlib.metadata import version

from pymilvus import DataType, MilvusClient

print("milvus-lite", version("milvus-lite"), "pymilvus", version("pymilvus"))
for attempt in range(60):
    try:
        client = MilvusClient(uri=sys.argv[1])
        break
    except Exception:
        if attempt == 59:
            raise
        time.sleep(1)
schema = client.create_schema(auto_id=False, description="vectors of e5-base-v2")
schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64, description="title of the page")
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
client.create_collection("notes", schema=schema, properties={"encoder": "e5-base-v2"})
found = client.describe_collection("notes")
field = next(field for field in found["fields"] if field["name"] == "id")
print("description of the collection:", repr(found["description"]))
print("description of its field:", repr(field["description"]))
print("properties:", found["properties"])
if found["description"] or field["description"] or found["properties"].get("encoder") != "e5-base-v2":
    sys.exit("the behaviour has changed")
print("both descriptions are lost, properties are kept")
PYTHON
