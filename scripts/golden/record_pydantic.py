#!/usr/bin/env python3
"""Records what an application like that of Search-R1's retrieval server takes for a request.

Needs fastapi 0.121.0, pydantic 2.12.3 and httpx, which set-up does not install. Run it from the root of the checkout:

    record_pydantic.py    makes tests/golden/pydantic-requests.json

The model has the three fields of Search-R1's `QueryRequest`. A body is recorded as text with one character for each
byte, since some are not UTF-8; a surrogate without its other half in a query is recorded as U+FFFD.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import List, Optional

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

OUT = Path("tests/golden/pydantic-requests.json")

NUMBERS = """
5 0 1 -0 -1 7 100 101 5.0 5.5 0.0 -0.0 -5.0 1e2 1e0 1e-1 1e30 123456789012345678901234567890 true false null [] {} [5]
"5" "0" "-5" "-0" "+5" "+0" "5.0" "5.00" "+5.0" "-5.0" "0.0" "007" "0005.000" "5.5" "5." ".5" ".0" "." "5.0.0" "5,0"
"" "\\t5\\n" "\\u00a05" "\\u20035" "--5" "+-5" "1_0" "0_5" "00_5" "1_000_000" "1__0" "_5" "5_" "_"
"-_5" "-1_0" "1_0.0" "5.0_0" "5._0" "1_.0" "1e2" "5e0" "1E1" "0x5" "0b1" "5L" "five" "true" "True" "null" "None" "NaN"
"inf" "Infinity" "\\u0665" "\\uff15" "\\u00b2" "\\u2460" "123456789012345678901234567890" "5\\u0000"
""".split()
NUMBERS += ['" "', '" 5 "', '"5 "', '"5.0 "', '"5 0"', '"+ 5"', '"5 .0"']

TRUTHS = """
true false 1 0 1.0 0.0 -0 -0.0 2 -1 0.5 1e0 10 null [] {} [true] "true" "True" "TRUE" "tRuE" "t" "T" "yes" "Yes" "YES" "y"
"Y" "on" "On" "oN" "1" "false" "False" "FALSE" "f" "F" "no" "No" "NO" "n" "N" "off" "Off" "OFF" "0" "" "true\\n" "2" "-1"
"1.0" "00" "01" "+1" "enable" "ok" "tru" "yess" "null" "None" "\\uff11" "\\u0131" "\\u017fon" "o\\u00f1" 1_0
""".split()
TRUTHS += ['" true"', '"true "', '" "', '" 1"']

BODIES = [
    b"\xef\xbb\xbf" + b'{"queries":["a"]}',
    b"\xef\xbb\xbf" + b' \r\n\t{"queries":["a"]} \n',
    b"\xef\xbb\xbf\xef\xbb\xbf" + b'{"queries":["a"]}',
    *('{"queries":["\u00e9\U0001f600"]}'.encode(encoding) for encoding in
      ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")),
    b"\xfe\xff" + '{"queries":["\u00e9"]}'.encode("utf-16-be"),
    b"\x00\x00\xfe\xff" + '{"queries":["\u00e9"]}'.encode("utf-32-be"),
    '{"queries":["\ud800a"]}'.encode("utf-16-le", "surrogatepass"),
    *(b'{"queries":["' + text + b'"]}' for text in (
        rb"\ud800", rb"\uDBFF", rb"a\udc00b", rb"\ud83d\ude00", rb"\uD83D\uDE00", rb"\ude00\ud83d", rb"\ud83d\ud83d\ude00",
        rb"\ud83d\u0041", rb"\ud83d\n", rb"\\ud83d", rb"\\\ud83d", rb"\"\ud83d\"", rb"\u00e9", rb"\u0000", rb"\/", rb"\x41",
        rb"\u12", rb"\ud83", rb"\ud83d\u", rb"\ud83d\u12", b"\xed\xa0\x80", b"\xed\xb0\x80x", b"\xed\xa0\xbd\xed\xb8\x80",
        b"\xff", b"\xed\xa0", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x7f", b"\n", b"\x00", b"\x1f", b"\xe2\x80\xa8", b"NaN",
        rb"NaN \" Infinity", b"")),
    *(b'{"queries":["a"],"unknown":' + value + b"}" for value in (
        b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"+Infinity", b"nan", b"inf", b"1e999", b"-1e999", b"1e", b"01", b"1.",
        b".5", b"[NaN,[1E400],{\"b\":-Infinity}]", b"[1,]", b"NaN1", b"'a'", b"undefined", b"0x1", b'"\\ud800"', b"NaN,",
        b"123456789012345678901234567890123456789012345678901234567890")),
    b'{"queries":["a"],"\\ud800":1}',
    b'{"queries":["a"],"queries":["b"]}',
    b'{"queries":["a"],"topk":2,"topk":3}',
    b'{"queries":["a"],}',
    b'{"queries":["a"]}x',
    b'{"queries":["a"]}{}',
    b'{"queries":["a"] // why\n}',
    b'{"queries":["a"]',
    b"{'queries':['a']}",
    b'{"queries":[]}',
    b'{"queries":["a","","b"],"topk":"2","return_scores":"true"}',
    *(b'{"queries":' + value + b"}" for value in (
        b"[1]", b"[1.5]", b"[true]", b"[null]", b'[["a"]]', b'[{"a":1}]', b'["a",2]', b'"a"', b'{"a":"b"}', b"null", b"5",
        b"true", b"NaN", b"[NaN]")),
    b"{}", b'{"topk":3}', b"[]", b'["a"]', b"null", b"5", b'"a"', b"", b" ", b"NaN",
]


class QueryRequest(BaseModel):
    """Has the fields of Search-R1's request."""

    queries: List[str]
    topk: Optional[int] = None
    return_scores: bool = False


def application():
    """Returns an application that repeats what it has read."""
    app = FastAPI()

    @app.post("/retrieve")
    def retrieve(request: QueryRequest):
        queries = [re.sub("[\ud800-\udfff]", "\ufffd", query) for query in request.queries]
        return {"queries": queries, "topk": request.topk, "return_scores": request.return_scores}

    return app


def main():
    bodies = [f'{{"queries":["a"],"topk":{value}}}'.encode() for value in NUMBERS]
    bodies += [f'{{"queries":["a"],"return_scores":{value}}}'.encode() for value in TRUTHS]
    bodies += BODIES
    client = TestClient(application(), raise_server_exceptions=False)
    cases = []
    for body in bodies:
        answer = client.post("/retrieve", content=body, headers={"Content-Type": "application/json"})
        case = {"body": body.decode("latin-1"), "status": answer.status_code}
        if answer.status_code == 200:
            case["read"] = answer.json()
            # Numbers beyond 64 bits are a matter of Python's.
            if (case["read"]["topk"] or 0) >= 2**63:
                case["read"]["topk"] = 2**63 - 1
        cases.append(case)
    versions = {name: version(name) for name in ("pydantic", "fastapi")}
    lines = ",\n".join(json.dumps(case) for case in cases)
    OUT.write_text(f'{{"versions":{json.dumps(versions)},"cases":[\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(cases)} bodies, {sum(case['status'] == 200 for case in cases)} taken")


if __name__ == "__main__":
    main()
