#!/usr/bin/env python3
"""Records parquet files of pyarrow and pandas, with their rows as JSON: tests/golden/rows.

`expected.json` has, for each file, the rows of pyarrow's `to_pylist`, in which bytes are text if they are UTF-8 and null
otherwise, numbers that are not finite are null, pairs are lists, and dates, times and decimals are texts. Needs pyarrow
and pandas. Run it from the root of the checkout.
"""

import datetime
import decimal
import json
import math
from pathlib import Path

import numpy
import pandas
import pyarrow
import pyarrow.parquet

FOLDER = Path("tests/golden/rows")


def plain(value):
    """Returns a value as JSON can write it."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value


def odd_table():
    """Returns five rows of all kinds of columns, with nulls, empty lists and lists in lists."""
    text = pyarrow.string()
    context = pyarrow.struct([("title", text), ("sentences", pyarrow.list_(text)), ("score", pyarrow.float32())])
    columns = {
        "id": pyarrow.array([7, 8, 9, 10, 2**53 + 1], pyarrow.int64()),
        "contents": pyarrow.array(['"Lima"\nCapital of Peru', "", "東京 😀", None, "x" * 300]),
        "large": pyarrow.array(["a", None, "b", "c", "d"], pyarrow.large_string()),
        "category": pyarrow.array(["u", "v", "u", None, "v"]).dictionary_encode(),
        "bytes": pyarrow.array([b"plain", b"\xff\x00", b"", None, "é".encode()], pyarrow.binary()),
        "flag": pyarrow.array([True, False, None, True, False]),
        "small": pyarrow.array([-1, 0, 127, None, -128], pyarrow.int8()),
        "unsigned": pyarrow.array([0, 2**64 - 1, 1, None, 2], pyarrow.uint64()),
        "short": pyarrow.array([0, 2**32 - 1, 1, None, 2], pyarrow.uint32()),
        "half": pyarrow.array(numpy.array([0.5, -2.0, numpy.inf, 2**-15, 1.0], numpy.float16)),
        "real": pyarrow.array([1.5, math.nan, -math.inf, None, 1e300]),
        "day": pyarrow.array([datetime.date(1969, 12, 31), datetime.date(2024, 2, 29), None,
                              datetime.date(1600, 3, 1), datetime.date(2000, 1, 1)]),
        "instant": pyarrow.array([datetime.datetime(2024, 2, 29, 23, 59, 59, 123456), None,
                                  datetime.datetime(1969, 12, 31, 23, 0), datetime.datetime(2000, 1, 1),
                                  datetime.datetime(1970, 1, 1)], pyarrow.timestamp("us")),
        "time": pyarrow.array([datetime.time(1, 2, 3), None, datetime.time(23, 59, 59, 5), datetime.time(),
                               datetime.time(12)], pyarrow.time64("us")),
        "price": pyarrow.array([decimal.Decimal("-1.05"), None, decimal.Decimal("0.00"), decimal.Decimal("12345.67"),
                                decimal.Decimal("0.10")], pyarrow.decimal128(20, 2)),
        "answers": pyarrow.array([["a", None, ""], [], None, ["b"], ["c", "d"]]),
        "lists": pyarrow.array([[[1], [], None, [2, 3]], [], None, [[]], [[4, None]]],
                               pyarrow.list_(pyarrow.list_(pyarrow.int32()))),
        "contexts": pyarrow.array([
            [{"title": "t", "sentences": ["s", "u"], "score": 0.5}, {"title": None, "sentences": [], "score": None}],
            [], None, [None, {"title": "v", "sentences": None, "score": 1.0}],
            [{"title": "w", "sentences": [None], "score": -1.0}],
        ], pyarrow.list_(context)),
        "nested": pyarrow.array([{"in": {"list": ["x"]}}, None, {"in": None}, {"in": {"list": None}}, {"in": {"list": []}}],
                                pyarrow.struct([("in", pyarrow.struct([("list", pyarrow.list_(text))]))])),
        "map": pyarrow.array([[("k", 1), ("l", None)], [], None, [("m", 3)], [("n", 4)]],
                             pyarrow.map_(text, pyarrow.int64())),
        "nothing": pyarrow.nulls(5),
    }
    return pyarrow.table(columns)


def veRL_frame():
    """Returns rows as Search-R1's data scripts write them with pandas."""
    rows = []
    for number, answers in enumerate([["Wilhelm Röntgen"], ["14 December 1972 UTC", "December 1972"]]):
        rows.append({
            "id": f"test_{number}",
            "question": f"question {number}?",
            "golden_answers": numpy.array(answers, dtype=object),
            "data_source": "nq",
            "prompt": numpy.array([{"role": "user", "content": f"Answer the question {number}"}], dtype=object),
            "ability": "fact-reasoning",
            "reward_model": {"ground_truth": {"target": numpy.array(answers, dtype=object)}, "style": "rule"},
            "extra_info": {"index": number, "split": "test"},
        })
    return pandas.DataFrame(rows)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    write = pyarrow.parquet.write_table
    table = odd_table()
    write(table, FOLDER / "odd-snappy.parquet", compression="snappy", row_group_size=3)
    write(table, FOLDER / "odd-plain.parquet", compression="none", use_dictionary=False, data_page_version="2.0",
          store_schema=False)
    columns = ["id", "contents", "answers", "contexts"]
    small = table.select(columns)
    for codec in ["zstd", "gzip", "lz4"]:
        write(small, FOLDER / f"small-{codec}.parquet", compression=codec, store_schema=False)
    write(small, FOLDER / "small-brotli.parquet", compression="brotli", store_schema=False)
    # More rows than a batch has, in pages of a few rows and two groups.
    count = 700
    many = pyarrow.table({
        "id": [str(number) for number in range(count)],
        "answers": [[str(part) for part in range(number % 4)] if number % 5 else None for number in range(count)],
    })
    write(many, FOLDER / "many.parquet", compression="zstd", row_group_size=400, data_page_size=128, store_schema=False)
    veRL_frame().to_parquet(FOLDER / "search-r1.parquet")
    passages = {
        "_id": [7, 8],
        "title": ["Oslo", "Rome"],
        "text": ["Oslo is the capital of Norway.", "Rome is the capital of Italy."],
        "metadata": [{"url": ["a"]}, None],
    }
    write(pyarrow.table(passages), FOLDER / "corpus.parquet", store_schema=False)
    expected = {}
    for path in sorted(FOLDER.glob("*.parquet")):
        expected[path.name] = plain(pyarrow.parquet.read_table(path).to_pylist())
    text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / "expected.json").write_text(text + "\n", encoding="utf-8")


main()
