"""What an arm answered, a line of JSON a question: tables are made from these lines alone.

A line holds scores as well as what they were made from (the answer's words, the boxes shown, the true boxes of the page), so
that a table needs neither the dataset nor the model. Digests are cut to 16 hex digits: they tell runs apart, they prove
nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

from pipeline.errors import UsageError
from pipeline.geometry import Box
from pipeline.records import Usage

DIGITS = 16
_BOXES = ("truths", "regions", "first_regions")

Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """What an arm answered to one question, what it showed for it, and how it scored.

    Attributes:
        dataset, split, benchmark: Which questions; digest of all of them.
        disturbance: What was done to the documents, such as ``noise-2``; "" for nothing.
        example: The question's id.
        group, unit: See `pipeline.evaluation.datasets.Example`.
        quality: Of the scan, in the pages benchmark; "" elsewhere.
        answerable: Whether there is an accepted answer; without one a refusal is right.
        model, family, weights, dtype: What answered; digest of the weights.
        arm, config: Name and digest of the arm.
        text: The document's answer; None if it was refused or failed.
        not_found: Whether it was refused.
        failure: Error code.
        page: Page of the answer, 1-based; of the most certain refusal if it was refused; None if all failed.
        page_wh: That page's size in pixels.
        truths: True boxes on that page.
        places: Number of true boxes in the whole document.
        regions: Boxes shown of that page, best first.
        first_regions: Boxes found in the first round.
        inside, inside_area: Shares of the first map's saliency, and of its area, in the page's true boxes; None without
            a map or true boxes.
        pointed: Whether that map's peak lies in a true box (the pointing game); None likewise.
        rounds: Rounds of the search.
        stop: Why it ended.
        margin, certainty, entropy, spatial_entropy, gradient_norm: Signals of the answer, see `pipeline.records.Signals`.
        disruption: See `pipeline.evaluation.disruption`; None of other arms.
        usage: All that the answer cost.
        scores: By name, as the dataset's official metric gives them; empty where nothing can be scored.
    """

    dataset: str
    split: str
    benchmark: str
    disturbance: str
    example: str
    group: str
    unit: str
    quality: str
    answerable: bool
    model: str
    family: str
    weights: str
    dtype: str
    arm: str
    config: str
    text: str | None
    not_found: bool
    failure: str | None
    page: int | None
    page_wh: tuple[int, int] | None
    truths: tuple[Box, ...]
    places: int
    regions: tuple[Box, ...]
    first_regions: tuple[Box, ...]
    inside: float | None
    inside_area: float | None
    pointed: bool | None
    rounds: int
    stop: str | None
    margin: float | None
    certainty: float | None
    entropy: float | None
    spatial_entropy: float | None
    gradient_norm: float | None
    disruption: float | None
    usage: Usage
    scores: dict[str, float]

    @property
    def key(self) -> Key:
        """What makes it the same result."""
        return self.benchmark, self.disturbance, self.weights, self.dtype, self.config, self.example

    def to_json(self) -> str:
        """As one line; numbers to six digits, and nothing of what is empty or as usual: thousands of lines are committed."""
        parts = asdict(self) | {name: [box.xyxy for box in getattr(self, name)] for name in _BOXES}
        usual = _EMPTY | {"unit": self.example}
        told = {name: part for name, part in parts.items() if name not in usual or part != usual[name]}
        return json.dumps(_rounded(told), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The inverse of `to_json`."""
        parts: dict[str, Any] = _EMPTY | json.loads(line)
        parts.setdefault("unit", parts["example"])
        parts |= {name: tuple(Box(*box) for box in parts[name]) for name in _BOXES}
        parts["page_wh"] = parts["page_wh"] and tuple(parts["page_wh"])
        parts["usage"] = Usage(**parts["usage"])
        return cls(**parts)


_EMPTY: dict[str, Any] = {
    "disturbance": "",
    **{name: [] for name in _BOXES},
    **{name: None for name, kind in get_type_hints(Result).items() if type(None) in get_args(kind)},
}
"""What a line leaves out."""


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return value


class ResultFile:
    """Results on disk, one a line; what is in it is not computed again.

    Args:
        path: What is appended to; it need not exist.
        beside: Other files whose lines are known as well: those of other shards.
    """

    def __init__(self, path: Path, beside: Iterable[Path] = ()) -> None:
        self.path = path
        self.known: dict[Key, Result] = {}
        for other in beside:
            if other != path:
                self._take(other, other.read_text(encoding="utf-8").rpartition("\n")[0])
        if path.exists():
            self._take(path, self._whole_lines())

    def _whole_lines(self) -> str:
        text = self.path.read_text(encoding="utf-8")
        whole, _, rest = text.rpartition("\n")
        if rest:
            # The machine stopped inside a line; the question is computed again.
            os.truncate(self.path, len(text.encode()) - len(rest.encode()))
        return whole

    def _take(self, path: Path, lines: str) -> None:
        for number, line in enumerate(lines.split("\n") if lines else (), start=1):
            try:
                result = Result.from_json(line)
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{path}, line {number}: not a result of this version ({error!r}); name another --out"
                ) from error
            self.known[result.key] = result

    def append(self, result: Result) -> None:
        """Add a result; it is on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(result.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.known[result.key] = result


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, the last line of a key winning.

    Raises:
        UsageError: A line is not a result of this version.
    """
    return list(ResultFile(folder / "none.jsonl", sorted(folder.glob("*.jsonl"))).known.values())
