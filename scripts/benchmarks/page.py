"""Tables in a page, between the marks of the script that measures them."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines) + "\n"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def circumstances(part):
    """Returns the sentence that names the machine and the day of a measurement."""
    measured = part["circumstances"]
    processor = measured.get("processor")
    named = f"{processor}, " if processor and " " in processor else ""
    return f"{named}{measured['date']}, {measured['threads']} threads, load before it {measured['load_before']}."


def replace_between(name, text, page="docs/benchmarks.md"):
    """Replaces the text between the marks of `name` in a page of the project."""
    path = ROOT / page
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
