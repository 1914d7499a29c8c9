#!/usr/bin/env python3
"""Records Jinja expressions as chat templates render them in `transformers`: tests/golden/template-expressions.json.

Each row is a template and the text that jinja2 gives for it, or null where jinja2 fails. The environment is that of
`transformers` (its own function compiles the templates). Needs `transformers` and jinja2. Run it from the root of the
checkout.
"""

import datetime
import json
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

TODAY = datetime.datetime(2025, 3, 9)

CONTEXT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Who wrote <b>Hamlet</b>?\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nShakespeare", "n": 2},
    ],
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "text": "Hello, World hello",
    "lines": "one\ntwo\r\n\nthree\n",
    "odd": "é🙂 \"x\" 'y' \\ \t\u00a0\u200b\n",
    "empty": "",
    "number": 7,
    "negative": -7,
    "float": 2.5,
    "large": 12345678901234567890,
    "yes": True,
    "no": False,
    "list": [3, 1, 2],
    "words": ["banana", "Apple", "cherry", "apple"],
    "mixed": [1, "a", None, True, 2.0, [1, 2], {"k": "v"}],
    "dict": {"b": 1, "a": [2, None], "items": "own", "C": "text"},
    "nested": {"a": {"b": [{"c": "deep"}]}},
    "people": [
        {"name": "Bo", "age": 30, "city": "Rome"},
        {"name": "al", "age": 25, "city": "oslo"},
        {"name": "Cy", "age": 30, "city": "Oslo"},
    ],
    "none": "shadowed",
}

# Expressions, one a line; each is rendered between {{ and }}.
EXPRESSIONS = r"""
missing
missing is none
missing is not none
missing is defined
missing is undefined
missing == none
missing == missing
missing.attribute
missing["key"]
missing[0]
missing()
missing + 1
missing ~ "x"
missing < 1
missing in [1]
1 in missing
missing | length
missing | upper
missing | list
missing | default("d")
missing | default
missing | int
missing | float
missing | tojson
missing | string
missing | join(",")
missing | first
missing | last
missing | trim
missing | replace("a", "b")
missing is sequence
missing is iterable
missing is mapping
missing is string
missing is callable
missing is number
missing is true
missing is false
not missing
missing or "fallback"
missing and "x"
missing if missing else "none"
[missing]
{"a": missing}
-missing
missing % 2
missing[1:]
dict.missing
dict.missing.deeper
dict["missing"]
dict.missing is none
dict.missing is defined
dict.get("missing") is none
dict.get("missing", "d")
dict.get("b")
tools is none
tools is defined
tools is not none
tools == none
tools
tools or []
tools | length
tools is iterable
tools.name
tools["name"] is defined
tools | default("d")
tools | default("d", true)
none
None
None is none
none is none
bos_token is defined
pad_token is defined
pad_token is none
enable_thinking is defined
enable_thinking is defined and enable_thinking is false
enable_thinking is false
documents is none
add_generation_prompt is true
yes is boolean
number is boolean
yes is number
yes is integer
number is integer
float is integer
float is float
number is float
float is number
text is number
text is sequence
list is sequence
dict is sequence
number is sequence
tools is sequence
(1, 2) is sequence
range(3) is sequence
dict.items() is sequence
list | map("string") is sequence
text is mapping
dict is mapping
messages[0] is mapping
text is string
number is string
text is iterable
number is iterable
dict is iterable
list is iterable
yes is true
number is true
1 is true
no is false
0 is false
text is callable
text.upper is callable
range is callable
raise_exception is callable
number is odd
negative is odd
number is even
number is divisibleby 7
number is divisibleby(2)
text is lower
"abc" is lower
"ABC" is upper
"a1" is upper
1 is in [1, 2]
"a" is in "abc"
3 is not in list
number is sameas 7
yes is sameas true
yes is sameas 1
1 is sameas true
none is sameas none
tools is sameas none
number is eq 7
number is equalto(7)
number is ne 7
number is gt 3
number is greaterthan 3
number is lt 3
number is le 7
number is ge 8
"x" is escaped
("x" | safe) is escaped
"upper" is filter
"nothing" is filter
"odd" is test
text is nothing
text | nothing
text.upper()
text.lower()
text.title()
text.capitalize()
text.swapcase()
"ß ǆ ﬁ".upper()
"ß ǆa".title()
"éCOLE".capitalize()
"it's o'clock x2y".title()
"it's o'clock (a) [b] <c> d-e" | title
text | capitalize
text.split()
text.split(",")
text.split(", ")
text.split("l", 1)
text.split("l", maxsplit=1)
text.split(maxsplit=1)
text.split(none, 1)
text.split(None, 1)
" a  b c ".split()
" a  b c ".split(" ")
" a  b c ".split(None, 1)
" a  b c ".rsplit(None, 1)
"".split()
"".split(",")
text.split("")
text.rsplit("l", 1)
text.rsplit("l")
text.rsplit(" ", 1)[0]
text.rsplit("zz", 1)
text.partition(",")
text.partition("zz")
text.rpartition("l")
text.rpartition("zz")
text.partition("")
text.removeprefix("Hello")
text.removeprefix("x")
text.removesuffix("hello")
text.removesuffix("x")
text.index("World")
text.index("zz")
text.rindex("l")
text.find("l")
text.find("l", 4)
text.find("l", 4, 6)
text.find("zz")
text.rfind("l")
text.find("")
text.find("l", -3)
text.count("l")
text.count("")
text.count("l", 5)
text.startswith("Hello")
text.startswith(("x", "He"))
text.startswith(["x"])
text.startswith("World", 7)
text.endswith("hello")
text.endswith(("a", "lo"))
text.endswith("World", 0, 12)
"  x ".strip()
"  x ".lstrip() ~ "|"
"  x ".rstrip() ~ "|"
"xxaxx".strip("x")
"xyaxy".lstrip("yx")
"axyb".rstrip("b")
"x".strip(none)
"x".strip(1)
text.replace("l", "L")
text.replace("l", "L", 1)
text.replace("l", "L", 0)
text.replace("l", "L", -1)
text.replace("", "-", 3)
text.replace("l")
text.replace(1, 2)
text | replace("l", "L")
text | replace("l", "L", 2)
text | replace("l", 1)
text | replace(old="l", new="L", count=1)
"42".zfill(5)
"-42".zfill(5)
"a".ljust(4) ~ "|"
"a".rjust(4)
"a".rjust(4, "*")
"ab".center(5, "*")
"abc".center(6, "*")
"a" | center(6) ~ "|"
"a\tb".expandtabs(4)
"{} and {}".format(1, "x")
"{1} {0} {name}".format(1, 2, name="n")
"{:>5}|{:<5}|{:^5}|{:*^5}".format("a", "b", "c", "d")
"{:05d} {:+d} {:x} {:b} {:,}".format(42, 42, 255, 5, 1234567)
"{:.2f} {:8.3f} {:e} {:g} {:%}".format(3.14159, 2.5, 12345.678, 0.0001, 0.25)
"{!r} {!s}".format("a", "b")
"{a[k]} {b.c}".format(a={"k": 1}, b={"c": 2})
"{{}} {}".format(1)
"{".format(1)
"{0} {}".format(1, 2)
"{} {}".format(1)
"{:5}|{:<5}".format(1, 2)
"{:d}".format("x")
"{}".format(none) ~ "{}".format(yes) ~ "{}".format(missing)
"{:.3}".format("abcdef")
"{0.name}".format(people[0])
"abc".isdigit()
"123".isdigit()
"".isdigit()
"12.5".isnumeric()
"abc".isalpha()
"ab1".isalnum()
"é".isalpha()
" \t".isspace()
"".isspace()
"abc".islower()
"ABC1".isupper()
"Abc Def".istitle()
"abc".isascii()
"é".isascii()
"abc_1".isidentifier()
"1abc".isidentifier()
lines.splitlines()
lines.splitlines(true)
"".splitlines()
", ".join(words)
", ".join([1, 2])
"-".join("abc")
", ".join(dict)
words | join
words | join(", ")
list | join("+")
mixed | join("|")
people | join(", ", attribute="name")
people | join(", ", attribute="missing")
"abc".encode()
text.nothing
text.nothing()
text["upper"]()
text[0]
text[-1]
text[100]
text[1:4]
text[:-6]
text[::-1]
text[::2]
text[5:2]
text[-5:]
text[10:0:-2]
text["0"]
"abc"[1:][0]
text | length
odd | length
"a" + "b"
"a" + 1
"a" ~ 1 ~ none ~ true ~ 1.0
"ab" * 3
3 * "ab"
"ab" * -1
"ab" * 1.5
"a" < "b"
"a" < 1
"B" < "a"
"" == none
"1" == 1
"a" in text
"H" not in text
1 in text
"%s and %s" % ("a", 1)
"%s" % "a"
"%s" % none
"%s" % ["a", 1]
"%s" % {"a": 1}
"%d items" % 3
"%d" % 3.9
"%d" % "3"
"%5d|%-5d|%05d|%+d" % (42, 42, 42, 42)
"%.2f|%8.3f|%e|%g" % (3.14159, 2.5, 12345.678, 1000000.0)
"%x %X %o" % (255, 255, 8)
"%5s|%-5s|%.2s" % ("ab", "ab", "abcd")
"%r" % "it's"
"%c%c" % ("a", 98)
"100%% of %s" % "x"
"%(a)s %(b)d" % {"a": 1, "b": 2}
"%(a)s" % {"b": 2}
"%s %s" % "a"
"%s" % ("a", "b")
"plain" % "x"
"plain" % []
"%s" % missing
"%*d" % (5, 42)
"%z" % 1
"%g %g %g" % (0.0001, 100000.0, 1e20)
"%s and %d" | format("a", 3)
"%(x)s" | format(x=1)
"%s" | format
"%s %s" | format("a")
"%.1f" | format(2.25)
number + 1
number - 10
number * 2
number / 2
6 / 2
number // 2
negative // 2
number // -2
number % 3
negative % 3
number % -3
-7.5 // 2
-7.5 % 2
7.5 % -2
2 ** 10
2 ** -1
2 ** 0.5
-2 ** 2
2 ** 3 ** 2
0 ** 0
1 / 0
1 // 0
1 % 0
1.5 + 1
0.1 + 0.2
1e16
1e15
123456789012345680.0
1e-4
0.00001
1.0
1.5e300 * 1e10
1_000 + 0x1F + 0b11 + 0o17
1.0 == 1
true == 1
true + true
1 < 2 < 3
1 < 3 < 2
1 == 1.0 == true
1 != 2
none < 1
[1, 2] < [1, 3]
(1, 2) < (1, 2, 0)
[1] < (1,)
dict < dict
large
large + 1
large // 7
large / 10
-number
+number
-text
- -3
not 0
not []
not ""
not "a"
number and text
0 or ""
1 if yes else 2
1 if no
(1 if no) is defined
1 if no else 2 if no else 3
list + [4]
list + (4,)
(1,) + (2,)
[1] * 3
(1,) * 2
list - [1]
list == [3, 1, 2]
[1, 2] == (1, 2)
[1, 1.0, true] | unique | list
list[0]
list[-1]
list[5]
list[5] is defined
list["0"]
list.0
list[1:]
list[::-1]
list[-2:]
list[:1]
list[::0]
list[none:2]
list["a":]
list.index(1)
list.index(9)
list.count(3)
list.append(4)
list.append is defined
list.pop()
list.sort()
list.copy()
list.length
dict.pop("b")
dict.update({"x": 1})
dict.setdefault("x", 1)
dict.clear()
dict.items
dict["items"]
dict.items() | list
dict.keys() | list
dict.values() | list
dict.keys()
dict.values()
dict.items()
{"a": 1}.items()
dict.keys() | first
dict.items() | length
"b" in dict
"b" in dict.keys()
("b", 1) in dict.items()
dict | length
dict | list
dict | first
dict | last
dict == {"b": 1}
{"a": 1, "b": 2} == {"b": 2, "a": 1}
dict.b
dict.C
dict["a"][0]
dict.a.0
dict[missing]
dict[[1]]
{[1]: 2}
{1: "a", "1": "b", none: "c", true: "d", 1.5: "e"}
{"a": 1, "a": 2}
nested.a.b[0].c
nested["a"]["b"][0]["c"]
nested.a.b.0.c
nested.a.x.c
mixed
dict
people[0]
(1,)
()
(1, "a")
[]
{}
[none, true, false, 1.0, "a'b", 'a"b', "a\\b", "é", "\n\t"]
[odd]
odd
messages
messages[0]
messages[1].content
messages[0]["role"] == "system"
messages[-1].n
messages | last
messages[1:] | length
(messages | last).role
messages[::-1][0].role
messages | length
messages | map(attribute="role") | list
messages | map(attribute="role") | join(",")
messages | map(attribute="n") | list
messages | map(attribute="n", default=0) | list
messages | map("length") | list
messages | map("nothing") | list
messages | map | list
messages | selectattr("role", "equalto", "user") | list | length
messages | selectattr("role", "==", "user") | map(attribute="content") | first
messages | selectattr("n") | list | length
messages | selectattr("n", "defined") | list | length
messages | rejectattr("role", "in", ["system", "user"]) | map(attribute="role") | list
messages | selectattr("role", "nothing", 1) | list
messages | selectattr | list
messages | groupby("role") | map("first") | list
messages | map("upper")
list | map("string") | list
list | map("string")
words | map("upper") | join(" ")
words | map("replace", "a", "o") | list
words | map("trim", "a") | list
list | select("odd") | list
list | select | list
[0, 1, "", "a"] | select | list
list | reject("odd") | list
list | select("gt", 1) | list
list | select(">=", 2) | list
tools | map("upper") | list
tools | select | list
number | map("upper") | list
list | sort
list | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
words | sort(true)
mixed | sort
people | sort(attribute="age") | map(attribute="name") | list
people | sort(attribute="age,name") | map(attribute="name") | list
people | sort(attribute="age", reverse=true) | map(attribute="name") | list
dict | dictsort
dict | dictsort(true)
{"b": 1, "a": 2} | dictsort(by="value")
{"b": 1, "a": 2} | dictsort(reverse=true)
{"b": 1} | dictsort(by="x")
people | groupby("city") | list
people | groupby("age") | map(attribute="grouper") | list
people | groupby("age") | map(attribute="list") | map("length") | list
people | groupby("zip", default="none") | length
people | map(attribute="name") | unique | list
words | unique | list
words | unique(true) | list
people | unique(attribute="age") | map(attribute="name") | list
[[1], [1]] | unique | list
list | min
list | max
words | min
words | max
words | max(case_sensitive=true)
people | max(attribute="age")
[] | min
[] | max is defined
mixed | max
list | sum
[0.1, 0.2] | sum
[] | sum
words | sum
people | sum(attribute="age")
people | sum(attribute="age", start=10)
[[1], [2]] | sum(start=[])
list | first
[] | first
[] | first is defined
list | last
text | first
text | last
range(5) | last
number | first
list | length
list | count
text | count
number | length
list | reverse | list
list | reverse
text | reverse
list | batch(2) | list
list | batch(2, 0) | list
list | slice(2) | list
list | slice(2, "x") | list
range(10) | slice(3) | list
text | list
number | list
range(3)
range(3) | list
range(1, 10, 3) | list
range(5, 0, -2) | list
range(0) | list
range(3)[1]
range(3)[-1]
range(2.0)
range(1, 2, 0)
range(100001)
range("3")
2 in range(3)
number | abs
negative | abs
-2.5 | abs
"x" | abs
float | round
3.5 | round
2.675 | round(2)
2.345 | round(2)
0.125 | round(2)
1234.567 | round(-2)
1250 | round(-2)
1350 | round(-2)
number | round
number | round(2)
2.1 | round(method="ceil")
2.9 | round(method="floor")
2.123 | round(2, "ceil")
-2.5 | round(0, "floor")
2.5 | round(0, "up")
"2" | round
1e22 | round
0.5 | round
1.5 | round
-0.5 | round
7 | round(0, "ceil")
42.55 | round(1)
2.5 | round | int
"42" | int
" 42 " | int
"4_2" | int
"42.9" | int
"x" | int
"x" | int(5)
"" | int
"ff" | int(0, 16)
"0xff" | int(base=16)
"0b11" | int(0, 0)
"1e3" | int
2.9 | int
-2.9 | int
yes | int
tools | int
list | int
"inf" | float
"inf" | float | int
"1.5" | float
"x" | float
"1e3" | float
"1_0.5" | float
" 2 " | float
"nan" | float
number | float
tools | float
1000 | filesizeformat
1500000 | filesizeformat
1500000 | filesizeformat(true)
1 | filesizeformat
text | upper
text | lower
odd | trim
"  x  " | trim ~ "|"
"xxaxx" | trim("x")
number | trim
number | upper
none | upper
tools | upper
tools | string
tools | trim
yes | string | lower
text | wordcount
"a-b c_d 1" | wordcount
lines | indent
lines | indent(2, true)
lines | indent(2, blank=true)
lines | indent("> ")
lines | indent(width=1, first=true)
number | indent
text | truncate(10)
text | truncate(10, true)
text | truncate(10, true, "")
text | truncate(8, false, "…", 0)
text | truncate(255)
text | truncate(2)
text | list | length
"<a & 'b' \"c\">" | escape
"<a>" | e
"<a>" | escape | escape
"<a>" | forceescape
"<a>" | safe
"<a>" | safe ~ "<b>"
("<a>" | safe) + "<b>"
"<b>" + ("<a>" | safe)
("<a>" | safe) | upper
("a" | safe).upper()
[("<a>" | safe)]
["<a>", "<b>"] | map("escape") | join
"a b/c?d=é&" | urlencode
{"a b": "c/d", "e": 1} | urlencode
[("a", 1), ("b", "x y")] | urlencode
{"class": "x", "id": none, "n": 1} | xmlattr
{"a b": 1} | xmlattr
{"a": "<\"'"} | xmlattr(false)
text | attr("upper")
people[0] | attr("name")
text | nothing("x")
"a" | default("b")
"" | default("b")
"" | default("b", true)
"" | d("b", boolean=true)
0 | default(1, true)
text | default
"x" | upper | lower | title
text | upper()
text | upper(1)
text | trim(chars="Ho")
text | join("-")
mixed | tojson
dict | tojson
dict | tojson(indent=2)
dict | tojson(indent=4, sort_keys=true)
dict | tojson(sort_keys=true)
odd | tojson
odd | tojson(ensure_ascii=true)
odd | tojson(true)
"</script>&'" | tojson
[1, {"a": []}] | tojson(separators=(",", ":"))
[1, [], {}] | tojson(indent=1)
[1, 2] | tojson(indent="--")
[1, 2] | tojson(indent=0)
[1, 2] | tojson(indent=none)
(1, 2) | tojson
{1: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
range(3) | tojson
dict.items() | tojson
1.0 | tojson
1e100 | tojson
"nan" | float | tojson
large | tojson
none | tojson
tools | tojson
tojson
list | tojson | length
list | tojson(nothing=1)
"a" "b" 'c'
"\x41\u00e9\n\t\\\"\'\101"
'it\'s'
"\d \é"
"line\
break"
"\u00e9\U0001F642"
"\x4"
"\N{BULLET}"
dict(a=1, b=[2])
dict({"a": 1}, b=2)
dict([("a", 1)])
namespace(a=1)
namespace(a=1).a
namespace({"a": 1}).b is defined
namespace(_a=1)
text.__class__
text.__class__.__name__
text._private
"" ~ text.__len__ ~ "|"
number.real
number.bit_length()
number.nothing
float.is_integer()
messages[0].role.upper()[::-1]
messages[0].get("role")
messages[0].get("name") is none
messages[0].name
messages[0].name is defined
messages[0].content is string
messages[0].content is iterable
messages[1].content | trim
messages[2].content.split("</think>")[-1].lstrip("\n")
messages[2].content.split("</think>")[0].split("<think>")[-1].strip()
"</think>" in messages[2].content
messages[2]["content"].partition("</think>")[2] | trim
strftime_now("%d %b %Y")
strftime_now("%Y-%m-%d")
strftime_now("%A, %B %-d")
strftime_now()
raise_exception("no")
raise_exception()
loop
caller
self_missing
cycler("a", "b").next()
cycler()
joiner()()
range(3) == range(0, 3)
range(1, 4)[::2] | list
(1, 2)[0]
(1, 2)[5]
(1, 2) | list
1, 2
[1, 2,]
[1 2]
{"a" 1}
1 +
text.
text[
(1
"unclosed
1 is
1 | 
a b
@
1 == 1 and 2 == 2
1 is defined and 2 is defined
not 1 == 2
not missing is defined
1 + 2 * 3 - 4 / 2
(1 + 2) * 3
"a" ~ "b" + "c"
1 ~ 2 + 3
-1 | abs
2 * -3
number | string + "x"
text | length + 1
1 if text else 2 ~ "x"
"a" in "abc" == true
1 in [1] in [[1]]
[1, 2] in [[1, 2], 3]
none in [none]
0 in [false]
"x" if yes and not no else "y"
(text | upper).lower()
text.upper().lower().title()
[1, 2, 3][1:] | first
[[1, 2], [3]] | map("first") | list
[[1, 2], [3]] | map("sum") | list
["a", "b"] | map("upper") | list | tojson
[{"a": {"b": 1}}] | map(attribute="a.b") | list
[[1, 2]] | map(attribute=1) | list
["1", "2"] | map("int") | sum
people | selectattr("age", "gt", 26) | map(attribute="name") | join(", ")
people | rejectattr("age", "equalto", 30) | list
people | map(attribute="missing") | list
"abc" | map("upper") | list
dict | map("upper") | list
text.split(",") | map("trim") | list
text is string and text is not mapping
number is not divisibleby 2
"a,b;c".replace(",", ";").split(";") | list
"a" * number
text == "Hello, World hello"
number in (1, 7)
"%s" % (("a",),)
[1, 2, 3] | random is defined
text | wordwrap(5)
[1] | pprint
"<p>x</p>" | striptags
""".strip("\n")

# Whole templates, with blocks.
TEMPLATES = [
    "{% if missing %}a{% elif number > 5 %}b{% else %}c{% endif %}",
    "{% if text is string and text|length > 3 and not (text.startswith('x') or text.endswith('y')) %}ok{% endif %}",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for m in messages %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role }}>{{ m.role }}>{{ loop.nextitem.role if loop.nextitem is defined else 'end' }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role }}{% endfor %}",
    "{% for m in messages %}{{ (loop.previtem or {}).role }}|{% endfor %}",
    "{% for x in [1,1,2,2,1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in range(5) %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in [] %}a{% else %}empty{% endfor %}",
    "{% for x in missing %}a{% else %}empty{% endfor %}",
    "{% for x in tools %}a{% else %}empty{% endfor %}",
    "{% for x in number %}a{% endfor %}",
    "{% for c in 'héy' %}{{ c }}.{% endfor %}",
    "{% for k in dict %}{{ k }},{% endfor %}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in dict|items %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in dict|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}",
    "{% for a, b in ['xy', 'zw'] %}{{ a }}-{{ b }};{% endfor %}",
    "{% for x in list if x > 1 %}{{ x }}/{{ loop.index }}/{{ loop.length }};{% endfor %}",
    "{% for x in list if x > 5 %}{{ x }}{% else %}none{% endfor %}",
    "{% set ns = namespace(stop=false) %}{% for x in range(5) if not ns.stop %}{{ x }}{% if x == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for x in range(5) if x > ns.n %}{{ x }}{{ loop.first }}{% set ns.n = x + 1 %};{% endfor %}{{ ns.n }}",
    "{% for x in range(10) %}{% if x == 3 %}{% continue %}{% endif %}{% if x == 6 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in [1,2] %}{% for y in [1,2,3] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }}{{ loop.depth }} {% endfor %}{% endfor %}",
    "{% break %}",
    "{% for x in [[1,[2]],3] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}:{{ loop.depth }} {% endif %}{% endfor %}",
    "{% for x in [1] %}{{ loop([]) }}{% endfor %}",
    "{% for x in list %}{{ loop }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% if no %}{% set tools = 1 %}{% endif %}{{ tools is none }}",
    "{% if no %}{% set fresh = 1 %}{% endif %}{{ fresh is defined }}",
    "{% for i in [1] %}{% set y = i %}{% endfor %}{{ y is defined }}",
    "{% for i in [1] %}{% set messages = [] %}{{ messages|length }}{% endfor %}{{ messages|length }}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}{{ a }}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set (a, b) = 'xy' %}{{ b }}{{ a }}",
    "{% set ns = namespace(found=false, n=0) %}{% for x in list %}{% set ns.n = ns.n + x %}{% set ns.found = true %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "{% set ns = namespace() %}{% set ns.x = [] %}{% for i in range(3) %}{% set ns.x = ns.x + [i] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace() %}{{ ns.missing is defined }}{{ ns['x'] is defined }}{{ ns }}",
    "{% set ns.x = 1 %}",
    "{% set dict.x = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set true = 1 %}",
    "{% set 1 = 2 %}",
    "{% set text %}a {{ number }} b{% endset %}[{{ text }}]{{ text|length }}",
    "{% set text | upper | trim %} a {{ number }} b {% endset %}[{{ text }}]",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% filter upper %}abc {{ number }}{% endfilter %}",
    "{% filter upper | replace('A', 'x') %}abca{% endfilter %}",
    "{% filter indent(2) %}a\nb\n{% endfilter %}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(1, c='y') }}|{{ m(b=5, a=4) }}",
    "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m() }}{{ m() | upper }}",
    "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}{{ m(none) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{{ varargs|length }}{{ kwargs.x }}{% endmacro %}{{ m(1, 2, 3, x='y') }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a=1, b) %}{{ a }}{% endmacro %}",
    "{% macro m() %}{{ number }}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
    "{% macro outer() %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}",
    "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m is callable }}",
    "{% macro m() %}  padded  {% endmacro %}[{{ m() | trim }}][{{ m()|length }}]",
    "{% macro m() %}{{ caller() }}!{% endmacro %}{% call m() %}body{% endcall %}",
    "{% macro m() %}{{ caller(1, 2) }}!{% endmacro %}{% call(a, b) m() %}{{ a }}+{{ b }}{% endcall %}",
    "{% macro m() %}no{% endmacro %}{% call m() %}body{% endcall %}",
    "{% macro m(x) %}{{ x }}{{ caller is defined }}{% endmacro %}{{ m(1) }}",
    "{% macro m(*args) %}{% endmacro %}",
    "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(5, *[6]) }}",
    "{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "{% for m in messages %}{% generation %}{{ m.role }}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{%- generation -%}  x  {%- endgeneration -%}  y",
    "{% generation %}x",
    "{% do 1 %}",
    "{% nothing %}",
    "{% raw %}{{ x }}{% y %}{% endraw %}!",
    "a {% raw -%}  {{ x }}  {%- endraw %} b",
    "{% raw %}\n x\n  {% endraw %}\ny",
    "{# comment #}a{#- c -#} b",
    "  {# comment #}\nx",
    "a\n  {# c #}  b\n",
    "  {% if yes %}\n  a\n  {% endif %}\nb\n",
    "  {%+ if yes %}a{% endif %}\n",
    "  {%- if yes -%}\n  a\n  {%- endif -%}  \n b\n",
    "x  {{- ' y ' -}}  z",
    "x {{+ 1 }}",
    "{% if yes +%}\na{% endif %}",
    "{% if yes -%}\n\n a{% endif %}",
    "x\n\n",
    "x\r\ny\rz\r\n",
    "\n{% if yes %}\n\n{% endif %}\n",
    "\t {% set x = 1 %} \n{{ x }}",
    "a {% set x = 1 %}\n{{ x }}",
    "{{ 1 }}\n{{ 2 }}\n",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}}}",
    "{{ '}}' }}{{ '%}' }}",
    "{% set x = '%}' %}{{ x }}",
    "{{ '{{' }} { { } } {x} %}",
    "{% if true %}unclosed",
    "{% endif %}",
    "{% if %}x{% endif %}",
    "{% for x list %}{% endfor %}",
    "{{ x",
    "{# x",
    "{{ }}",
    "{% %}",
    "{% if yes %}{{ 1 | nothing }}{% endif %}",
    "{% if no %}{{ 1 | nothing }}{% endif %}ok",
    "{% if no %}{{ 1 is nothing }}{% endif %}ok",
    "{{ (1 | nothing) if no else 2 }}",
    "{{ 2 if yes else (1 | nothing) }}",
    "{% for x in [] %}{{ x | nothing }}{% endfor %}ok",
    "{% if no %}{% for x in [] %}{{ x | nothing }}{% endfor %}{% endif %}ok",
    "{% print 1, 'a' %}",
    "{% set j = joiner('|') %}{% for x in list %}{{ j() }}{{ x }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}",
    "{% set x = list | map('string') %}{{ x | first }}{{ x | list }}{{ x | list }}",
    "{% set x = words | select('string') %}{% for w in x %}{{ w }} {% endfor %}{% for w in x %}again{% endfor %}",
    "{% set x = missing | map('nothing') %}{{ x | list }}",
    "{% set x = [1] | map('nothing') %}unused",
    "{% set name = none %}{% if name is not none %}{{ name }}{% endif %}ok",
    "{% set date_string = '26 Jul 2024' if not strftime_now is defined else strftime_now('%d %b %Y') %}{{ date_string }}",
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{- 'U:' + message['content']|trim }}{%- elif message['role'] == 'assistant' %}{{- 'A:' + message['content'].split('</think>')[-1].lstrip('\\n') }}{%- endif %}{%- endfor %}",
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}",
    "{% for m in messages | rejectattr('role', 'equalto', 'system') %}{{ m.role }},{% endfor %}",
    "{% set loop_messages = messages if messages[0].role != 'system' else messages[1:] %}{{ loop_messages | length }}",
    "{% set content = messages[1].content if messages[1].content is string else messages[1].content | map(attribute='text') | join %}{{ content }}",
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}{{ last.content }}",
    "{% set ns = namespace(i=-1) %}{% for m in messages[::-1] %}{% if ns.i == -1 and m.role == 'user' %}{% set ns.i = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}{{ ns.i }}",
    "{{ '<|im_start|>' ~ messages[0].role ~ '\\n' ~ messages[0].content ~ '<|im_end|>' }}",
    "{% if tools is not none and tools | length > 0 %}tools{% elif documents %}docs{% else %}plain{% endif %}",
    "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools }}",
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}{{ system_message is defined }}{{ system_message }}",
    "{% for t in [{'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {'q': {'type': 'string'}}, 'required': ['q']}}}] %}{% for k, v in t.function.parameters.properties.items() %}{{ k }}: {{ v.type }}{% if k in t.function.parameters.required %}!{% endif %}{% endfor %}{{ t | tojson(indent=4) }}{% endfor %}",
    "{% set thinking = thinking | default(true) %}{{ thinking }}",
    "{{ messages[0]['content'] if messages[0]['role'] == 'system' else 'You are helpful.' }}",
    "{% for m in messages %}{% set content = m.content | string | replace('<think>', '') %}{{ content | length }} {% endfor %}",
    "{{ [] is sequence and [] is not string and [] is not mapping }}",
    "{% for a in [1,2,3] %}{% for b in [1,2] %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in list %}{% set outer = loop %}{% for y in [1,2] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for i in range(3) %}{% set x = i %}{% if x == 1 %}{% set x = 'one' %}{% endif %}{{ x }}{% endfor %}",
    "{% set x = 0 %}{% for i in range(3) %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% block a %}x{% endblock %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% trans %}x{% endtrans %}",
    "{{ self }}",
]


class Today(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return TODAY


def rendered(template):
    """Returns the text, or None where jinja2 fails."""
    try:
        context = {key: value for key, value in CONTEXT.items() if key != "none"}
        return chat_template_utils._compile_jinja_template(template).render(**context)
    except Exception:
        return None


def main():
    chat_template_utils.datetime = Today
    del CONTEXT["none"]
    lines = EXPRESSIONS.replace("\\\nbreak", "\\\u0000break").split("\n")
    templates = ["{{ " + line.replace("\u0000", "\n") + " }}" for line in lines] + TEMPLATES
    rows = [[template, rendered(template)] for template in templates]
    # An object is printed with its address, which no two runs share.
    rows = [[template, "<address>" if text and " at 0x" in text else text] for template, text in rows]
    value = {
        "origin": f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}",
        "context": CONTEXT,
        "rows": "ROWS",
    }
    dumped = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    text = json.dumps(value, indent=1, ensure_ascii=False).replace('"ROWS"', "[\n" + dumped + "\n ]") + "\n"
    Path("tests/golden/template-expressions.json").write_text(text, encoding="utf-8")
    print(len(rows), "rows,", sum(text is None for _, text in rows), "failures")


if __name__ == "__main__":
    main()
