"""All that a folder of results holds, as Markdown; neither the datasets nor the models are needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.evaluation.arms import parse_arm
from pipeline.evaluation.report import markdown, score, title
from pipeline.evaluation.results import DIGITS, Result
from pipeline.evaluation.tables import ablations, filled, prompt_of, render

METHODS = "methods"
"""The table whose arms are reported on; what else was run on the pages is an ablation."""
COLD_STARTS = "cold-starts.json"


def summary(results: Sequence[Result], folder: Path) -> Iterator[str]:
    """A report for each set of questions asked of documents as they are, then every table that has results."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        if not result.disturbance:
            groups.setdefault((result.dataset, result.split, result.benchmark), []).append(result)
    for (dataset, _, _), found in sorted(groups.items(), key=lambda group: -len(group[1])):
        scores = score(found, _arms(dataset, found))
        if scores:
            notes = cold_starts(folder, {result.weights for result in found})
            yield f"## {title(scores)}\n\n{markdown(scores, notes)}"
    tables = [table for table in ablations() if filled(table, results)]
    yield from (render(table, results) for table in tables)


def _arms(dataset: str, results: Sequence[Result]) -> dict[str, str]:
    """Names and digests of the arms to report on: those of the table of methods, first; of public datasets all."""
    (methods,) = ablations([METHODS])
    families = sorted({result.family for result in results})
    arms = [
        parse_arm(name, family, prompt_of(dataset))
        for family in families
        for name in (methods.arms(family) if dataset == "pages" else dict.fromkeys(result.arm for result in results))
    ]
    return {arm.name: arm.sha256[:DIGITS] for arm in arms}


def keep_cold_start(folder: Path, weights: str, device: str, seconds: float) -> None:
    """Write down how long the first answer took, if no run was faster so far: others' work on the machine delays it."""
    known = _read(folder)
    key = f"{weights[:DIGITS]} {device}"
    known[key] = min(seconds, known.get(key, seconds))
    fresh = folder / f"{COLD_STARTS}.{os.getpid()}"
    fresh.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    fresh.replace(folder / COLD_STARTS)


def cold_starts(folder: Path, weights: set[str]) -> list[str]:
    """What a report says of them."""
    found = [(key.split(), seconds) for key, seconds in sorted(_read(folder).items())]
    return [
        f"Cold start to first answer, imports and model included, fastest of the runs here: {seconds:.1f} s on {device}."
        for (digest, device), seconds in found
        if digest in weights
    ]


def _read(folder: Path) -> dict[str, float]:
    path = folder / COLD_STARTS
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known
