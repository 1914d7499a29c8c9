"""Draws the chart of `scripts/bench-learning`: one small chart per algorithm, exact match by step."""

import html

COLUMNS = 4
WIDTH, HEIGHT = 220, 130
LEFT, TOP, RIGHT, BOTTOM = 30, 24, 10, 22
COLOURS = ("#1f5fa8", "#c4651a", "#3b8a4f")


def drawing(results):
    """Returns an SVG of the exact match of each step's rollouts. All seeds of an algorithm share one chart."""
    charts = {}
    for result in results:
        charts.setdefault(result["name"], []).append(result)
    rows = -(-len(charts) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * WIDTH} {rows * HEIGHT}" '
        'font-family="sans-serif" font-size="10" role="img" aria-label="Exact match by step of each algorithm">',
        f'<rect width="{COLUMNS * WIDTH}" height="{rows * HEIGHT}" fill="#ffffff"/>',
    ]
    for index, (name, runs) in enumerate(charts.items()):
        parts.append(f'<g transform="translate({index % COLUMNS * WIDTH} {index // COLUMNS * HEIGHT})">')
        parts += chart(name, runs)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def chart(name, runs):
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    steps = max(len(run["steps"]) for run in runs)

    def point(step, em):
        return f"{LEFT + wide * step / max(steps - 1, 1):.1f},{TOP + high * (1 - em):.1f}"

    yield f'<text x="{LEFT}" y="15" font-size="11" font-weight="bold">{html.escape(name)}</text>'
    for level in (0, 0.5, 1):
        y = TOP + high * (1 - level)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#d8d8d8"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 3:.1f}" text-anchor="end" fill="#555555">{level:g}</text>'
    yield f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="#555555">1</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="#555555">{steps}</text>'
    for run, colour in zip(runs, COLOURS):
        line = " ".join(point(step, em) for step, em in enumerate(run["steps"]))
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
