"""The tasks: which of the generator's questions belongs to each, and where its evidence lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ops.train.document import Page, Span
from ops.train.questions import Asker, Question

PaperBox = tuple[float, float, float, float]
DRAWS = 40
"""How often a page is asked for a question of a task before the next page's turn."""

TINY_X_HEIGHT_PX, TINY_LONG_SIDE_PX = 4.0, 992
"""Lower case letters this high in a view of the whole page that is this long cannot be told apart there. Whatever view a
model takes, the questions stay the same."""
LEGIBLE_X_HEIGHT_PX = 6.0
"""And on the raster they can."""
APART_PX = 300
"""Two fields lie apart when no crop of a few lines holds both (an inch and a half of the page)."""
LONGEST_ANSWER = 48


@dataclass(frozen=True)
class Asked:
    """A question of a task.

    Attributes:
        question: As the generator asks it.
        boxes: The evidence on the paper, one box per place; empty if nothing on the page decides.
    """

    question: Question
    boxes: tuple[PaperBox, ...]


def _ask(
    page: Page, draw: Callable[[], Question | None], keep: Callable[[Asked], bool] = lambda asked: True
) -> Asked | None:
    for _ in range(DRAWS):
        question = draw()
        if question is None or not 0 < len(question.answer.strip()) <= LONGEST_ANSWER:
            continue
        asked = Asked(question, tuple(page.box(spans) for spans in places(page, question)))
        if keep(asked):
            return asked
    return None


def places(page: Page, question: Question) -> list[tuple[Span, ...]]:
    """The spans of each place that the answer depends on: of both values, where two are compared."""
    if question.task != "compare":
        return [question.evidence] if question.evidence else []
    named = {*question.evidence, *question.label}
    return [field.value_spans for field in page.fields if named.issuperset(field.value_spans)]


def _is_tiny(page: Page, asked: Asked) -> bool:
    x_height = min(float(page.x_height[start:end].min()) for start, end in asked.question.evidence)
    scale = round(page.width * TINY_LONG_SIDE_PX / max(page.width, page.height)) / page.width
    return x_height * scale <= TINY_X_HEIGHT_PX and x_height >= LEGIBLE_X_HEIGHT_PX


def _lies_apart(asked: Asked) -> bool:
    if len(asked.boxes) != 2:
        return False
    (ax0, ay0, *_), (bx0, by0, *_) = asked.boxes
    return max(abs(ax0 - bx0), abs(ay0 - by0)) >= APART_PX


TASKS: dict[str, Callable[[Page, Asker], Asked | None]] = {
    "field": lambda page, asker: _ask(page, asker.field),
    "cell": lambda page, asker: _ask(page, asker.cell),
    "tiny": lambda page, asker: _ask(page, asker.field, lambda asked: _is_tiny(page, asked)),
    "compare": lambda page, asker: _ask(page, asker.compare, _lies_apart),
    "presence": lambda page, asker: _ask(page, asker.presence),
    "check": lambda page, asker: _ask(page, asker.check),
    "not-found": lambda page, asker: _ask(page, asker.not_found),
}
"""What one page can be asked; the eighth task, many pages, asks for a field that only one of a document's pages has."""
MANY_PAGES = "pages"


def ask_among(pages: Sequence[Page], number: int, asker: Asker) -> Asked | None:
    """A field of page `number` (0-based) that no other page has, under any of its names."""
    others = [field for page in pages if page is not pages[number] for field in page.fields]
    taken = {field.label.lower().rstrip(" :.") for field in others} | {field.name for field in others if field.name}

    def is_the_only_one(asked: Asked) -> bool:
        (field,) = [f for f in pages[number].fields if f.value_spans == asked.question.evidence]
        return field.label.lower().rstrip(" :.") not in taken and field.name not in taken

    return _ask(pages[number], asker.field, is_the_only_one)
