"""Tables laid out like the papers': named arms over datasets, the papers' figures beside ours.

What a table compares is data, `papers.toml`; `exhibit eval ablations` runs its arms, and anything that stands in the folder
of results fills it. The arms of a column are compared on the questions that all of them answered; a table that is no
comparison line by line (`PaperTable.own`) shows each arm on all that it answered, and what it gains on plain's.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.config import SpotEConfig
from pipeline.errors import UsageError
from pipeline.evaluation.arms import parse_arm, with_preset
from pipeline.evaluation.metrics import Interval, bootstrap_mean
from pipeline.evaluation.report import LARGE, Row, Scores, difference, table
from pipeline.evaluation.results import DIGITS, Result
from pipeline.spelling import ranked
from pipeline.vlms.catalogue import EMBEDDED
from pipeline.vlms.prompts import PromptStyle

PAPERS = Path(__file__).with_name("papers.toml")
ANY = "*"


@dataclass(frozen=True, slots=True)
class Column:
    """What stands in a column: a quantity on a dataset, its documents disturbed or not."""

    dataset: str
    disturbance: str
    quantity: str

    @classmethod
    def parse(cls, text: str) -> Column:
        """From ``DATASET[~DISTURBANCE]:QUANTITY``."""
        place, _, quantity = text.partition(":")
        dataset, _, disturbance = place.partition("~")
        return cls(dataset, disturbance, quantity)

    @property
    def heading(self) -> str:
        """As printed."""
        return " ".join(part for part in (self.dataset, self.disturbance, self.quantity) if part)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line of a table: an arm ("" for one that cannot be run here) and the paper's figures for the first columns."""

    label: str
    arm: str
    figures: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that a paper prints for one model.

    Attributes:
        model: As the paper calls it.
        family: Whose results stand beside them; ``*`` for any model, "" for none.
    """

    model: str
    family: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of a paper, or one of ours of the same form.

    Attributes:
        number: Of `exhibit eval --table`; None for those that are only ablations.
        ablation: Whether `exhibit eval ablations` runs it.
        own: Whether each line is of all questions that its arm answered, instead of those that all lines' arms did: some
            arms cost a hundred times what others do, and would leave these a handful of questions.
        source: Where the figures stand.
    """

    name: str
    number: int | None
    ablation: bool
    own: bool
    source: str
    title: str
    note: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]

    def rows_for(self, family: str) -> tuple[TableRow, ...]:
        """The lines for a model of a family: the paper's own, else those for any model, else the first ones."""
        for wanted in (family, ANY):
            found = next((group.rows for group in self.groups if group.family == wanted), None)
            if found is not None:
                return found
        return tuple(TableRow(row.label, row.arm, ()) for row in self.groups[0].rows)

    def arms(self, family: str) -> list[str]:
        """What must be run for a model of a family."""
        return list(dict.fromkeys(row.arm for row in self.rows_for(family) if row.arm))


@lru_cache(maxsize=1)
def paper_tables() -> tuple[PaperTable, ...]:
    """All tables, in the order of the file."""
    return tuple(_table(parts) for parts in tomllib.loads(PAPERS.read_text(encoding="utf-8"))["table"])


def _table(parts: dict[str, Any]) -> PaperTable:
    groups = tuple(
        Group(group.get("model", ""), group["family"], tuple(_row(row) for row in group["rows"])) for group in parts["group"]
    )
    return PaperTable(
        parts["name"],
        parts.get("number"),
        parts.get("ablation", False),
        parts.get("own", False),
        parts["source"],
        parts["title"],
        parts.get("note", ""),
        tuple(Column.parse(column) for column in parts["columns"]),
        groups,
    )


def _row(parts: Sequence[Any]) -> TableRow:
    label, arm, *figures = parts
    return TableRow(label, arm, tuple(None if figure == "" else float(figure) for figure in figures))


def numbered(number: int) -> PaperTable:
    """The table that the entropy-gradient paper gives a number.

    Raises:
        UsageError: There is none.
    """
    known = {table.number: table for table in paper_tables() if table.number is not None}
    if number not in known:
        raise UsageError(f"--table {number}: expected one of {', '.join(map(str, sorted(known)))}")
    return known[number]


def ablations(only: Sequence[str] = ()) -> list[PaperTable]:
    """The tables that are run as ablations, or some of them by name.

    Raises:
        UsageError: A name is unknown; the nearest known ones come first.
    """
    known = {table.name: table for table in paper_tables() if table.ablation}
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name}: unknown; known: {', '.join(ranked(name, known))}")
    return [known[name] for name in only or known]


def prompt_of(dataset: str) -> PromptStyle:
    """In which words a dataset is asked: the pages may not hold the answer, the public ones are asked as in the paper."""
    return "document" if dataset == "pages" else "paper"


def _percent(measure: Callable[[Scores], Interval | None]) -> Callable[[Scores], Interval | None]:
    return lambda scores: _scaled(measure(scores))


def _scaled(found: Interval | None) -> Interval | None:
    return found and Interval(100 * found.value, 100 * found.low, 100 * found.high)


def _mean(value: Callable[[Row], float]) -> Callable[[Scores], Interval | None]:
    return lambda scores: bootstrap_mean([value(row) for row in scores.rows])


QUANTITIES: dict[str, Callable[[Scores], Interval | None]] = {
    "score": _percent(Scores.score),
    "right": _percent(Scores.right),
    "hit": _percent(lambda scores: scores.hits(LARGE)),
    "shown": _percent(Scores.any_hits),
    "pointing": _percent(Scores.pointing),
    "lift": Scores.lift,
    "iou": _percent(Scores.iou),
    "covered": _percent(Scores.coverage),
    "right-if-hit": _percent(lambda scores: scores.right_given(hit=True)),
    "right-if-missed": _percent(lambda scores: scores.right_given(hit=False)),
    "disruption": lambda scores: bootstrap_mean(
        [found for row in scores.rows if (found := row.result.disruption) is not None]
    ),
    "seconds": _mean(lambda row: row.result.usage.seconds),
    "forwards": _mean(lambda row: row.result.usage.forward_passes),
    "backwards": _mean(lambda row: row.result.usage.backward_passes),
    "tokens": _mean(lambda row: row.result.usage.visual_tokens),
}
"""What a column can hold, and `GAIN`; scores and shares in percent."""
COSTS = frozenset({"seconds", "forwards", "backwards", "tokens"})
"""Of these, which hardly vary, no interval is printed."""
GAIN = "gain"
"""Score over plain's, paired, on the questions that both answered."""


def _gain(ours: Scores, plain: Scores) -> Interval | None:
    found = difference(ours, plain) if ours.rows != plain.rows else None
    return _scaled(found.difference) if found else None


@dataclass(frozen=True, slots=True)
class Model:
    """What answered."""

    family: str
    name: str
    weights: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {self.weights[:8]} {self.dtype}"


@dataclass(frozen=True, slots=True)
class _Measured:
    """A figure as it is printed, and over how many questions it is."""

    count: int
    text: str


class _Known:
    """Results by what a cell asks for."""

    def __init__(self, results: Iterable[Result], preset: str | None) -> None:
        self.preset = preset
        self.found: dict[tuple[str, str, Model, str], dict[str, Row]] = {}
        self.models: dict[Model, None] = {}
        results = list(results)
        sizes = Counter((result.dataset, result.benchmark) for result in results)
        largest = {dataset: benchmark for (dataset, benchmark), _ in reversed(sizes.most_common())}
        for result in results:
            if result.benchmark == largest[result.dataset]:  # another build's or split's questions are others
                model = Model(result.family, result.model, result.weights, result.dtype)
                key = result.dataset, result.disturbance, model, result.config
                self.found.setdefault(key, {})[result.example] = Row(result)
                self.models.setdefault(model)

    def rows(self, column: Column, arm: str, model: Model) -> dict[str, Row]:
        """The arm's results with a model on the column's dataset, by question."""
        if not arm:
            return {}
        config = parse_arm(with_preset(arm, self.preset), model.family, prompt_of(column.dataset)).sha256[:DIGITS]
        return self.found.get((column.dataset, column.disturbance, model, config), {})

    def measured(self, column: Column, lines: Sequence[TableRow], model: Model, *, own: bool) -> list[_Measured | None]:
        """Each line's figure, of all its questions (`own`) or of those that all lines with results have in common."""
        found = [self.rows(column, line.arm, model) for line in lines]
        common = set.intersection(*(set(rows) for rows in found if rows)) if any(found) else set()
        plain = Scores(self.rows(column, "plain", model).values())
        return [
            _measure(column, [rows[name] for name in sorted(rows if own else common & set(rows))], plain) for rows in found
        ]


def _measure(column: Column, rows: Sequence[Row], plain: Scores) -> _Measured | None:
    if not rows:
        return None
    scores = Scores(rows)
    found = _gain(scores, plain) if column.quantity == GAIN else QUANTITIES[column.quantity](scores)
    return _Measured(len(rows), _text(found, bare=column.quantity in COSTS))


def _text(found: Interval | None, *, bare: bool) -> str:
    if found is None:
        return ""
    return _short(found.value) if bare else f"{_short(found.value)} [{_short(found.low)}, {_short(found.high)}]"


def render(wanted: PaperTable, results: Iterable[Result], preset: str | None = None) -> str:
    """A table as Markdown: a paper's figures, then ours for the same family, then for other models.

    Args:
        wanted: Which.
        results: Of any dataset, model and arm.
        preset: Of the methods that have it, instead of their default.
    """
    known = _Known(results, preset)
    blocks: list[tuple[str, Sequence[TableRow], Model | None]] = []
    shown: set[Model] = set()
    for group in wanted.groups:
        own = [model for model in known.models if model.family == group.family]
        blocks += [(f"{group.model}: paper / ours ({model})", group.rows, model) for model in own]
        blocks += [(f"{group.model}: paper", group.rows, None)] * (not own and group.family != ANY)
        shown.update(own)
    blocks += [(str(model), wanted.rows_for(model.family), model) for model in known.models if model not in shown]
    header = ["model", "arm", *(column.heading for column in wanted.columns), "n"]
    number = f"Table {wanted.number}. " if wanted.number is not None else ""
    about = [f"### {number}{wanted.title}", f"Source: {wanted.source}. Scores and shares in percent, 95 % intervals."]
    about += [wanted.note] * bool(wanted.note)
    rows = [line for name, lines, model in blocks for line in _lines(wanted, name, lines, model, known)]
    return "\n\n".join([*about, table(header, rows)]) + "\n"


def filled(wanted: PaperTable, results: Iterable[Result], preset: str | None = None) -> bool:
    """Whether half of a table's lines, and two at least, have results of one model in one column."""
    known = _Known(results, preset)

    def count(column: Column, model: Model) -> int:
        return sum(bool(known.rows(column, line.arm, model)) for line in wanted.rows_for(model.family))

    return any(
        max(2, len(wanted.rows_for(model.family)) / 2) <= count(column, model)
        for model in known.models
        for column in wanted.columns
    )


def _lines(wanted: PaperTable, name: str, lines: Sequence[TableRow], model: Model | None, known: _Known) -> list[list[str]]:
    """The lines of one model that say anything."""
    columns = [
        known.measured(column, lines, model, own=wanted.own) if model else [None] * len(lines) for column in wanted.columns
    ]
    told = [
        [_label(line, model), *_cells(line, found)]
        for line, *found in zip(lines, *columns, strict=True)
        if any(found) or line.figures
    ]
    return [[name if place == 0 else "", *cells] for place, cells in enumerate(told)]


def _label(line: TableRow, model: Model | None) -> str:
    """A row's label; SPOT-E's says whose eye our figures were made with, and that the paper's were with CLIP's."""
    search = parse_arm(line.arm, model.family if model else EMBEDDED).config.search if line.arm else None
    if not isinstance(search, SpotEConfig):
        return line.label
    eyes = [f"eye: {search.eye}"] * (model is not None) + ["paper's eye: clip"] * bool(line.figures)
    return f"{line.label} ({'; '.join(eyes)})" if eyes else line.label


def _cells(line: TableRow, found: Sequence[_Measured | None]) -> list[str]:
    figures = [*line.figures, *([None] * (len(found) - len(line.figures)))]
    counts = sorted({one.count for one in found if one})
    cells = [_cell(figure, one.text if one else "") for figure, one in zip(figures, found, strict=True)]
    return [*cells, " ".join(map(str, counts))]


def _cell(figure: float | None, ours: str) -> str:
    if figure is None:
        return ours
    return f"{figure:g} / {ours}" if ours else f"{figure:g}"


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
