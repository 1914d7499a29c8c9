#!/usr/bin/env python3
"""Records question rows in the parquet files of four writers, in all their codecs: tests/golden/parquet.

pandas, pyarrow, polars and DuckDB each write the same rows: Search-R1's columns, lists in lists, structs, nulls, empty
lists, texts that repeat (dictionary encoding), large strings, numbers. `expected.json` has, for each file, the rows of
pyarrow's `to_pylist`. Needs pandas, pyarrow, polars and duckdb. Run it from the root of the checkout.
"""

import json
from pathlib import Path

import duckdb
import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet

FOLDER = Path("tests/golden/parquet")
ANSWERS = [["Wilhelm Röntgen"], ["14 December 1972 UTC", "December 1972"], [], ["東京", ""]]
QUESTIONS = ["who got the first nobel prize in physics?", "when was the last moon walk?", "", "what is 東京 😀?"]


def rows():
    """Returns forty rows; every fifth lacks what may be absent."""
    made = []
    for number in range(40):
        answers, question = ANSWERS[number % 4], QUESTIONS[number % 4]
        is_bare = number % 5 == 4
        made.append({
            "id": f"test_{number}",
            "question": None if is_bare else question,
            "golden_answers": None if is_bare else answers,
            "data_source": ["nq", "hotpotqa"][number % 2],
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question: {question}"}],
            "reward_model": None if is_bare else {"ground_truth": {"target": answers}, "style": "rule"},
            "extra_info": {"index": number, "split": "train"},
            "score": None if is_bare else number / 8,
            "hops": number * 10**9,
            "flag": None if is_bare else number % 3 == 0,
            "paths": [] if is_bare else [answers, [], [question]],
        })
    return made


def of_pyarrow(table):
    write = pyarrow.parquet.write_table
    for codec in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        write(table, FOLDER / f"pyarrow-{codec}.parquet", compression=codec, row_group_size=25, store_schema=False)
    large = pyarrow.schema([
        pyarrow.field(field.name, pyarrow.large_string() if field.type == pyarrow.string() else field.type)
        for field in table.schema
    ])
    coded = table.cast(large)
    at = coded.schema.get_field_index("data_source")
    coded = coded.set_column(at, "data_source", table["data_source"].dictionary_encode())
    write(coded, FOLDER / "pyarrow-large-dictionary.parquet", compression="snappy", data_page_version="2.0")
    write(table, FOLDER / "pyarrow-delta.parquet", compression="zstd", use_dictionary=False, store_schema=False,
          column_encoding={"id": "DELTA_BYTE_ARRAY", "question": "DELTA_LENGTH_BYTE_ARRAY",
                           "hops": "DELTA_BINARY_PACKED", "score": "BYTE_STREAM_SPLIT"})


def of_pandas(made):
    """Writes rows as Search-R1's scripts do: lists become arrays of numpy."""
    frame = pandas.DataFrame([
        row | {"golden_answers": None if row["golden_answers"] is None else numpy.array(row["golden_answers"], object)}
        for row in made
    ])
    frame["data_source"] = frame["data_source"].astype("category")
    for codec in ["snappy", "gzip", "zstd", "lz4", "brotli", None]:
        frame.to_parquet(FOLDER / f"pandas-{codec or 'none'}.parquet", compression=codec, index=False)


def of_polars(made):
    frame = polars.DataFrame(made)
    frame = frame.with_columns(polars.col("data_source").cast(polars.Categorical))
    for codec in ["uncompressed", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        frame.write_parquet(FOLDER / f"polars-{codec}.parquet", compression=codec, row_group_size=16)


def of_duckdb(table):
    connection = duckdb.connect()
    connection.register("rows", table)
    for codec in ["uncompressed", "snappy", "gzip", "zstd", "lz4", "lz4_raw", "brotli"]:
        path = FOLDER / f"duckdb-{codec}.parquet"
        connection.execute(f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT parquet, COMPRESSION {codec})")
    connection.execute(
        f"COPY (SELECT * FROM rows) TO '{FOLDER}/duckdb-v2.parquet' (FORMAT parquet, PARQUET_VERSION V2)"
    )


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = rows()
    table = pyarrow.Table.from_pylist(made)
    of_pyarrow(table)
    of_pandas(made)
    of_polars(made)
    of_duckdb(table)
    read = {path.name: pyarrow.parquet.read_table(path).to_pylist() for path in sorted(FOLDER.glob("*.parquet"))}
    # The files differ, and their rows do not; a file whose rows do is listed with its own.
    others = {name: rows for name, rows in read.items() if rows != made}
    expected = {"files": sorted(read), "rows": made, "others": others}
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")
    versions = [f"{module.__name__} {module.__version__}" for module in (pandas, pyarrow, polars, duckdb)]
    print(", ".join(versions), f"{len(read)} files, {len(others)} with other rows: {sorted(others)}")


if __name__ == "__main__":
    main()
