"""A plot of a training log as SVG: loss and accuracy over minutes, a line where a stage begins."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 900, 420, 50


def plot(records: Sequence[dict[str, Any]]) -> str:
    """Draw the records of a run's log; the left axis is the loss, the right one the share of characters right."""
    if not records:
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"/>\n'
    longest = max(r["minutes"] for r in records) or 1.0
    highest = max(r["loss"] for r in records) or 1.0

    def x(record: dict[str, Any]) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * float(record["minutes"]) / longest

    def y(share: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * share

    loss = " ".join(f"{x(r):.1f},{y(r['loss'] / highest):.1f}" for r in records)
    accuracy = " ".join(f"{x(r):.1f},{y(r['accuracy']):.1f}" for r in records)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<polyline points="{loss}" fill="none" stroke="#b04a2f"/>',
        f'<polyline points="{accuracy}" fill="none" stroke="#2f6fb0"/>',
        f'<text x="{MARGIN}" y="20" fill="#b04a2f">loss, 0 to {highest:.1f}</text>',
        f'<text x="{WIDTH - MARGIN}" y="20" fill="#2f6fb0" text-anchor="end">characters right, 0 to 1</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">minutes of training, 0 to {longest:.0f}</text>',
    ]
    stage = ""
    for record in records:
        if record["stage"] != stage:
            stage = record["stage"]
            parts.append(
                f'<line x1="{x(record):.1f}" x2="{x(record):.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" stroke="#bbb"/>'
            )
            parts.append(f'<text x="{x(record) + 3:.1f}" y="{HEIGHT - MARGIN - 4}" fill="#666">{stage}</text>')
    return "\n".join([*parts, "</svg>", ""])


def plot_log(log: Path, svg: Path) -> None:
    """Draw a run's log into a file."""
    svg.write_text(plot([json.loads(line) for line in log.read_text().splitlines()]))


def main() -> None:
    """Plot a log: `python -m ops.train.plot LOG SVG`."""
    parser = argparse.ArgumentParser(prog="python -m ops.train.plot", description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("svg", type=Path)
    arguments = parser.parse_args()
    plot_log(arguments.log, arguments.svg)


if __name__ == "__main__":
    main()
