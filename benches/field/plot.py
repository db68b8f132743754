#!/usr/bin/env python3
"""Plots and tables of the benchmarks in benches/field, from the results that criterion saved.

    plot.py <criterion directory> <output directory> [<run> ...]

A run is the name of a saved criterion baseline (default `new`). With several runs, the median of
their results is used. Writes one SVG plot for each benchmark group to the output directory and
prints the tables as Markdown.
"""

import json
import math
import statistics
import sys
from html import escape
from pathlib import Path

OURS = "polycast"
FLOORS = ("copy", "memcpy")
TITLES = {
    "binary-whole": "Binary frames, whole",
    "binary-pieces": "Binary frames in 1400-byte pieces",
    "text-whole": "Text frames (ASCII), whole",
    "text-pieces": "Text frames (ASCII) in 1400-byte pieces",
    "unicode-whole": "Text frames (mixed widths), whole",
    "unicode-pieces": "Text frames (mixed widths) in 1400-byte pieces",
    "mask": "Masking",
}
COLOURS = {
    "polycast": "#c1121f",
    "sockudo-ws": "#1d6fa5",
    "sockudo-ws parser": "#5fb0dd",
    "fastwebsockets": "#2a9d5c",
    "tungstenite": "#e09f3e",
}
WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 72, 170, 44, 52


def read(root, runs):
    """Returns group -> payload size in bytes -> name -> nanoseconds per frame or call."""
    found = {}
    for path in sorted(root.glob("*/*/*/*/benchmark.json")):
        if path.parent.name not in runs:
            continue
        about = json.loads(path.read_text())
        estimates = json.loads((path.parent / "estimates.json").read_text())
        frames = about["throughput"].get("Elements", 1)
        size, name = int(about["value_str"]), about["function_id"]
        times = found.setdefault(about["group_id"], {}).setdefault(size, {}).setdefault(name, [])
        times.append(estimates["median"]["point_estimate"] / frames)
    return {
        group: {
            size: {name: statistics.median(times) for name, times in names.items()}
            for size, names in sorted(sizes.items())
        }
        for group, sizes in found.items()
    }


def label(size):
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def order(sizes):
    """The names of a group: polycast first, then by time at the middle size, `FLOORS` last."""
    middle = list(sizes.values())[len(sizes) // 2]
    return sorted(middle, key=lambda name: (name in FLOORS, name != OURS, middle[name]))


def rate(size, ns):
    """Gigabytes per second: bytes per nanosecond."""
    return size / ns


def svg(group, sizes):
    steps = list(sizes)
    rates = [rate(size, ns) for size, names in sizes.items() for ns in names.values()]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(size):
        first, last = math.log(steps[0]), math.log(steps[-1])
        return LEFT + (right - LEFT) * (math.log(size) - first) / (last - first)

    def y(value):
        return bottom - (bottom - TOP) * (math.log10(value) - low) / (high - low)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(TITLES.get(group, group))}</text>',
        f'<text transform="translate(18 {(TOP + bottom) / 2}) rotate(-90)" '
        'text-anchor="middle">payload, GB/s of CPU time</text>',
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">payload</text>',
    ]
    for power in range(low, high + 1):
        for digit in range(1, 10):
            value = digit * 10.0**power
            if power == high and digit > 1:
                break
            stroke = "#999" if digit == 1 else "#eee"
            out.append(line(LEFT, y(value), right, y(value), stroke))
        text = f"{10.0**power:g}"
        out.append(f'<text x="{LEFT - 8}" y="{y(10.0**power) + 4}" text-anchor="end">{text}</text>')
    for size in steps:
        out.append(line(x(size), TOP, x(size), bottom, "#ddd"))
        place = f'x="{x(size)}" y="{bottom + 18}" text-anchor="middle"'
        out.append(f"<text {place}>{label(size)}</text>")
    for row, name in enumerate(order(sizes)):
        colour, dash = COLOURS.get(name, "#555"), "5 4" if name in FLOORS else "none"
        width = 3 if name == OURS else 1.8
        points = [(x(size), y(rate(size, names[name]))) for size, names in sizes.items()]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        style = f'stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"'
        out.append(f'<polyline points="{path}" fill="none" {style}/>')
        if name not in FLOORS:
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        top = TOP + 10 + 20 * row
        out.append(f'<path d="M{right + 14} {top}h24" {style}/>')
        out.append(f'<text x="{right + 44}" y="{top + 4}">{escape(name)}</text>')
    return "\n".join(out + ["</svg>", ""])


def line(x1, y1, x2, y2, stroke):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{stroke}"/>'


def short(ns):
    return f"{ns:,.0f}" if ns >= 100 else f"{ns:.1f}"


def table(group, sizes):
    names = order(sizes)
    others = [name for name in names if name != OURS and name not in FLOORS]
    floors = [name for name in names if name in FLOORS]
    heads = [OURS, *others, *floors, "fastest other / polycast"]
    if "memcpy" in floors:
        heads.append("memcpy / polycast")
    rows = [f"### {TITLES.get(group, group)}", ""]
    rows += ["| payload | " + " | ".join(heads) + " |", "| ---: " * (len(heads) + 1) + "|"]
    for size, times in sizes.items():
        ours = times[OURS]
        cells = [short(times[name]) for name in [OURS, *others, *floors]]
        cells.append(f"**{min(times[name] for name in others) / ours:.2f}**")
        if "memcpy" in floors:
            cells.append(f"{times['memcpy'] / ours:.2f}")
        rows.append(f"| {label(size)} | " + " | ".join(cells) + " |")
    return "\n".join(rows + [""])


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    root, out, runs = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or ["new"]
    groups = read(root, runs)
    for group in TITLES:
        if group in groups:
            (out / f"{group}.svg").write_text(svg(group, groups[group]))
            print(table(group, groups[group]))


if __name__ == "__main__":
    main()
