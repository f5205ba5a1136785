"""The curriculum: what each stage of training shows and asks, and when it is over."""

from dataclasses import dataclass, replace
from typing import Literal

from ops.train.compose import FULL, Difficulty
from ops.train.views import PAGE_ROWS


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        name: what the log and the state call it.
        trains: "reader" (pictures to characters), "tower" (what is between reader and language model, on pages put in by
            their text), "match" (that and what the language model makes of questions alone), "language" (that and the
            language model) or "joint" (the same on pictures, through the reader, which stays as it is).
        minutes: time on two CPU cores after which the stage ends; `--scale` multiplies it.
        gate: share of characters right, on the moving average, at which it ends earlier.
        difficulty: how rich its pages are.
        pages: pages in a batch.
        questions: questions a page.
        views: weights of what is shown: "page", "crop", "page+crops".
        cards: share of the batches whose pages are small: reading is local, and they cost a third.
        sheets: share of the others whose pages are A3 sheets, twice as much to look through as A4.
        tasks: weights of kinds of questions; None is the whole mix.
        max_rows: rows of cells of a page view; what is below is not shown (None: whole pages).
        largest_scale: to which small pages are enlarged, half of the time; a whole page is shown at
            `processing.PAGE_SCALE`.
        blanks: share of the cells without a character that are shown where there are no pictures: lines, boxes, dirt.
        corrupt: share of characters that perfect eyes misread.
        learning_rate: at its height.
        cool_down: whether the rate falls to zero at the end.
        beside: a "match" stage whose batches are asked in the same steps: questions that are not answered cost little, and
            finding is what whole pages are needed for.
    """

    name: str
    trains: Literal["reader", "tower", "match", "language", "joint"]
    minutes: float
    gate: float = 1.01
    difficulty: Difficulty = FULL
    pages: int = 12
    questions: int = 5
    views: tuple[tuple[str, float], ...] = (("page", 1.0),)
    cards: float = 0.0
    sheets: float = 0.0
    tasks: tuple[tuple[str, float], ...] | None = None
    max_rows: int | None = None
    largest_scale: float = 1.2
    blanks: float = 0.15
    corrupt: float = 0.0
    learning_rate: float = 4e-4
    cool_down: bool = False
    beside: "Stage | None" = None


ANSWERED = (
    ("field", 3.0), ("cell", 1.5), ("continue", 0.2), ("fact", 0.5), ("reverse", 0.2), ("choice", 0.3), ("check", 0.5),
    ("compare", 0.4), ("presence", 0.3),
)  # fmt: skip
"""Tasks whose answer is on the page."""

CARD = Difficulty(blocks=(2, 6), width_px=(420, 1200))
CARD_ROWS = 30
# Which cell a question asks for: a question costs some forty tokens, since no page goes through the language model.
ASK = Stage(
    "ask", "match", 30, gate=0.97, difficulty=Difficulty(recurring=0.05, blocks=(2, 8), width_px=(420, 1654)), pages=3,
    questions=24, max_rows=PAGE_ROWS, corrupt=0.02, learning_rate=6e-4,
)  # fmt: skip
FINDING = replace(ASK, name="finding", difficulty=Difficulty(blocks=(2, 9), width_px=(500, 1654)))
"""Never a stage of its own."""

STAGES = (
    Stage("reader", "reader", 22, pages=2, learning_rate=2e-3, cool_down=True),
    # What belongs to what: hundreds of examples a page, and no language model to run.
    Stage(
        "links", "tower", 10, gate=0.98, difficulty=Difficulty(blocks=(2, 6), width_px=(300, 1654)), pages=3, questions=1,
        max_rows=PAGE_ROWS, corrupt=0.02,
    ),
    ASK,
    # The first weights copy already (`wiring`): what is learned is to go on and to end. Small pages first.
    Stage(
        "find", "language", 15, gate=0.95, difficulty=Difficulty(recurring=0.05, blocks=(1, 3), width_px=(280, 700)),
        pages=6, questions=8, max_rows=16, corrupt=0.01, tasks=ANSWERED,
    ),
    # Refusals only now: while values are not yet found, to refuse is the best guess for every question.
    Stage(
        "page", "language", 40, gate=0.97, difficulty=Difficulty(recurring=0.03, blocks=(2, 8), width_px=(500, 1654)),
        pages=3, questions=16, max_rows=PAGE_ROWS, corrupt=0.02, learning_rate=3e-4,
    ),
    Stage(
        "join", "joint", 25, difficulty=CARD, pages=3, questions=12, max_rows=CARD_ROWS,
        views=(("page", 0.6), ("crop", 0.2), ("page+crops", 0.2)), learning_rate=2e-4, cool_down=True,
    ),
    Stage(
        "views", "joint", 40, pages=3, questions=16, learning_rate=2e-4, cool_down=True,
        views=(("page", 0.4), ("crop", 0.2), ("page+crops", 0.4)), cards=0.5, sheets=0.25, beside=FINDING,
    ),
)  # fmt: skip
