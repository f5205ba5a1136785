"""Batches: pages with their views and questions as tensors. A batch is decided by seed, stage and number alone."""

import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from ops.train.compose import SHEET, compose
from ops.train.document import Box, Page, Span
from ops.train.faces import Split
from ops.train.questions import NOT_FOUND, Asker, Question
from ops.train.stages import CARD, CARD_ROWS, Stage
from ops.train.views import View, crop_view, page_view, picture, reader_window, view_of
from pipeline.vlms.embedded.alphabet import ANSWER, END, IMAGE, PAD, VIEW
from pipeline.vlms.embedded.processing import PAGE_SCALE, inked_cells
from pipeline.vlms.embedded.tokenizer import build_tokenizer

READER_WINDOW_PX = (128, 384)
WINDOWS_PER_PAGE = 12
MAX_ANSWER = 48
"""Longest answer in tokens."""
MAX_QUESTION = (48, 48, 60, 120)
"""Longest question with its answer, in tokens: all are padded to the longest of a batch, so long ones have batches of their
own, one in four."""
REFUSAL_WEIGHT = 0.2
"""Of each token of a refusal. An answer's tokens weigh one over the root of their number; a refusal is one token and its
end, so by that rule to answer where nothing is there would cost twice what it costs to refuse where something is."""
IGNORE = -100


@dataclass(frozen=True)
class ReaderBatch:
    """Windows [B, 1, H, W] as the tower takes them, and the class of each place [B, R, C, J]."""

    pixels: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Group:
    """Views of one size.

    Attributes:
        classes: [n, R, C, J].
        pixels: [n, 1, H, W], or None where eyes are perfect.
        cells: [n, M] the cells that are kept, in order: all, or those that hold something and some of the others.
        links: [m, 4] view of the group, relation, kept cell, kept cell that it belongs to (-1: none).
        edges: [m, 4] view of the group, 0 for the beginning of a value or 1 for what follows its end, kept cell, slot.
    """

    classes: Tensor
    pixels: Tensor | None
    cells: Tensor
    links: Tensor
    edges: Tensor


@dataclass(frozen=True)
class Batch:
    """Pages with their questions: `B` sequences of views, each with up to `Q` questions that do not see each other.

    Attributes:
        groups: the views by size.
        order: for each view of each sequence, in order, its group and its number there.
        shown: [B, P] tokens of the views.
        shown_at: [B, P] their positions, -1 where there is none.
        ids: [B, Q, L] tokens of the questions and their answers.
        asked_at: [B, Q, L] their positions, each question's behind the views.
        targets: [B, Q, L] the token that follows, inside answers; `IGNORE` elsewhere.
        weights: [B, Q, L] weight of each target.
        openings: [B, Q] where in L the token stands that opens the answer.
        starts: [k, 3] sequence, question and place in P of a cell where its answer begins, or of the end of a view for an
            answer that is not on the page. A question may have several (a page and a crop show the same), or none.
        questions: task and answer of each question, sequence by sequence.
    """

    groups: tuple[Group, ...]
    order: tuple[tuple[int, int], ...]
    shown: Tensor
    shown_at: Tensor
    ids: Tensor
    asked_at: Tensor
    targets: Tensor
    weights: Tensor
    openings: Tensor
    starts: Tensor
    questions: tuple[tuple[str, str], ...]


def reader_batch(seed: str, stage: Stage, split: Split) -> ReaderBatch:
    """Draw windows of a few pages."""
    rng = random.Random(f"reader/{split}/{seed}")
    pixels, classes = [], []
    for number in range(stage.pages):
        page = compose(f"{seed}/{number}", split, stage.difficulty)
        for _ in range(WINDOWS_PER_PAGE):
            view = reader_window(page, rng, *READER_WINDOW_PX)
            pixels.append(picture(page, view, rng, effects=True))
            classes.append(view.classes)
    return ReaderBatch(_pixels(pixels), torch.from_numpy(np.stack(classes)).long())


def _pixels(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    return 1 - torch.from_numpy(np.stack(pictures))[:, None].float() / 127.5


@dataclass
class _Sequence:
    views: list[View]
    pictures: list[NDArray[np.uint8]]
    questions: list[tuple[str, Question]]
    page: Page


class Batches(Dataset[ReaderBatch | Batch]):
    """The stream of a stage's batches.

    Args:
        seed: of the stream.
        stage: what to show and ask.
        split: which faces, words and templates.
        first: number of the first batch.
    """

    def __init__(self, seed: int, stage: Stage, split: Split, first: int = 0) -> None:
        self.seed, self.stage, self.split, self.first = seed, stage, split, first
        self.tokenizer: PreTrainedTokenizerFast = build_tokenizer()
        token = self.tokenizer.convert_tokens_to_ids
        self.image, self.view_end, self.answer_start, self.end, self.pad = (
            int(token(t))
            for t in (IMAGE, VIEW, ANSWER, END, PAD)  # type: ignore[arg-type]
        )

    def __len__(self) -> int:
        return 1_000_000_000

    def __getitem__(self, number: int) -> ReaderBatch | Batch:
        torch.set_num_threads(1)
        seed = f"{self.seed}/{self.stage.name}/{self.first + number}"
        if self.stage.trains == "reader":
            return reader_batch(seed, self.stage, self.split)
        return self._batch(seed)

    def _batch(self, seed: str) -> Batch:
        rng = random.Random(f"{self.split}/batch/{seed}")
        stage = self.stage
        difficulty = stage.difficulty
        kind = rng.choices([v for v, _ in stage.views], [w for _, w in stage.views])[0]
        n_pages = stage.pages
        scale = None
        cards = rng.random() < stage.cards
        if cards:
            difficulty = CARD
        if not cards and rng.random() < stage.sheets:
            difficulty, n_pages = SHEET, 2
        elif difficulty.width_px:
            # One width a batch, so that its views are of one size and go through the tower at once; wide ones in smaller
            # batches. Larger print on a narrower page keeps the cells few.
            scale = PAGE_SCALE if rng.random() < 0.5 else rng.uniform(PAGE_SCALE, stage.largest_scale)
            low, high = (round(width * (PAGE_SCALE / scale) ** 0.5) for width in difficulty.width_px)
            width = rng.randint(low, high)
            n_pages = max(2, round(stage.pages * (low + high) / 2 / width))
            difficulty = replace(difficulty, width_px=(width, width))
        longest, max_rows = rng.choice(MAX_QUESTION), CARD_ROWS if cards else stage.max_rows
        sequences = []
        number = 0
        while len(sequences) < n_pages:
            page = compose(f"{seed}/{number}", self.split, difficulty)
            number += 1
            sequence = self._sequence(page, rng, kind, scale, max_rows, longest)
            if sequence.questions:
                sequences.append(sequence)
        return self._pack(sequences)

    # -- views
    # ----------------------------------------------------------------------------------------------------------------

    def _sequence(
        self, page: Page, rng: random.Random, kind: str, scale: float | None, max_rows: int | None, longest: int
    ) -> _Sequence:
        stage = self.stage
        asker = Asker(page, rng, self.split)
        tasks = dict(stage.tasks) if stage.tasks else None
        asked = [q for _ in range(stage.questions * 2) if (q := asker.ask(tasks))]
        if rng.random() < 0.15 and page.fields and stage.tasks is None:
            f = rng.choice(page.fields)
            page.blank(f.value_spans)
            asked = [q for q in asked if not _overlap(q.evidence + q.label, f.value_spans)]
            name = f"{f.label} of {f.row}" if f.row else f.label
            if sum(o.label.lower() == f.label.lower() and o.row == f.row for o in page.fields) == 1:
                asked.insert(0, Question("blanked", f"What is the {name}?", NOT_FOUND, copied=False))
        views: list[View] = []
        if kind != "crop":
            whole = page_view(page, scale)
            views.append(_cut_rows(page, whole, max_rows) if max_rows else whole)
        if kind != "page":
            n_crops = 1 if kind == "crop" else rng.choice((1, 1, 2, 2, 3, 4))
            views += [crop_view(page, self._crop(page, rng, asked)) for _ in range(n_crops)]
        questions: list[tuple[str, Question]] = []
        for q in asked:
            shown = self._shown(q, views, page, alone=kind == "crop")
            if shown is None or len(questions) == stage.questions:
                continue
            prompt = shown.prompt(rng)
            length = len(self.tokenizer.encode(prompt)) + len(self.tokenizer.encode(shown.answer))
            if length > longest or any(shown.text == other.text for _, other in questions):
                continue
            questions.append((prompt, shown))
        pictures = []
        if stage.trains == "joint":
            effects = rng.random() < 0.7
            pictures = [picture(page, view, rng, effects=effects) for view in views]
            if rng.random() < 0.05:
                pictures[0] = _dim(pictures[0], rng)
        return _Sequence(views, pictures, questions, page)

    def _crop(self, page: Page, rng: random.Random, asked: list[Question]) -> Box:
        """A crop's box: around an answer, partly off it, or anywhere."""
        found = [q for q in asked if q.evidence]
        draw = rng.random()
        if found and draw < 0.75:
            q = rng.choice(found)
            spans = q.evidence + (q.label if rng.random() < 0.7 else ())
            x0, y0, x1, y1 = page.box(spans)
        else:
            at = page.centre[rng.randrange(len(page.centre))]
            x0 = x1 = float(at[0])
            y0 = y1 = float(at[1])
        # The grounding method adds a cell of the page view (75 x 38 raster pixels) on each side.
        x0, x1 = x0 - rng.uniform(10, 260), x1 + rng.uniform(10, 260)
        y0, y1 = y0 - rng.uniform(8, 130), y1 + rng.uniform(8, 130)
        if 0.6 < draw < 0.75:
            shift = rng.uniform(-0.6, 0.6) * (x1 - x0)
            x0, x1 = x0 + shift, x1 + shift
        width, height = min(x1 - x0, 1300), min(y1 - y0, 700)
        x0, y0 = min(max(0.0, x0), page.width - 40), min(max(0.0, y0), page.height - 30)
        return x0, y0, min(page.width, x0 + width), min(page.height, y0 + height)

    def _shown(self, q: Question, views: list[View], page: Page, *, alone: bool) -> Question | None:
        """The question as these views can answer it; None if it is unclear what the answer should be."""
        if not q.evidence or (q.task == "count" and alone):
            return None if q.task in ("presence", "count") and alone else q

        def all_seen(spans: tuple[Span, ...]) -> bool:
            return any(all((view.cell_of[a:b] >= 0).all() for a, b in spans) for view in views)

        def none_seen(spans: tuple[Span, ...]) -> bool:
            return all((view.cell_of[a:b] < 0).all() for a, b in spans for view in views)

        if all_seen(q.evidence + (q.label if alone else ())):
            return q
        if alone and none_seen(q.evidence + q.label) and q.task in ("field", "cell", "fact"):
            return replace(q, answer=NOT_FOUND, evidence=(), label=(), copied=False)
        return None

    # -- tensors
    # --------------------------------------------------------------------------------------------------------------

    def _pack(self, sequences: list[_Sequence]) -> Batch:
        if len({view.grid[1] for s in sequences for view in s.views}) == 1 and all(len(s.views) == 1 for s in sequences):
            self._level(sequences)
        sizes: dict[tuple[int, int], int] = {}
        members: list[list[tuple[_Sequence, int]]] = []
        order = []
        for s in sequences:
            for index, view in enumerate(s.views):
                group = sizes.setdefault(view.grid, len(sizes))
                if group == len(members):
                    members.append([])
                order.append((group, len(members[group])))
                members[group].append((s, index))
        groups = tuple(self._group(group) for group in members)
        places = iter(order)
        kept = [
            [groups[group].cells[number].tolist() for _, (group, number) in zip(s.views, places, strict=False)]
            for s in sequences
        ]
        shown = [_shown_tokens(cells, self.image, self.view_end) for cells in kept]
        asked: list[_Asked] = []
        for b, (s, cells) in enumerate(zip(sequences, kept, strict=True)):
            length = sum(len(view) + 1 for view in cells)
            asked += [
                self._ask(b, number, prompt, q, length, _starts(q, s.views, cells))
                for number, (prompt, q) in enumerate(s.questions)
            ]
        shape = len(sequences), max(len(s.questions) for s in sequences)

        def stack(key: str, fill: float, dtype: torch.dtype) -> Tensor:
            longest = max(len(a.ids) for a in asked)
            table = torch.full((*shape, longest), fill, dtype=dtype)
            for a in asked:
                row: list[float] = getattr(a, key)
                table[a.sequence, a.number, : len(row)] = torch.tensor(row, dtype=dtype)
            return table

        openings = torch.zeros(shape, dtype=torch.long)
        for a in asked:
            openings[a.sequence, a.number] = a.opening
        starts = [(a.sequence, a.number, place) for a in asked for place in a.starts]
        return Batch(
            groups=groups,
            order=tuple(order),
            shown=nn.utils.rnn.pad_sequence(shown, batch_first=True, padding_value=self.pad),
            shown_at=nn.utils.rnn.pad_sequence(
                [torch.arange(len(ids)) for ids in shown], batch_first=True, padding_value=-1
            ),
            ids=stack("ids", self.pad, torch.long),
            asked_at=stack("positions", 0, torch.long),
            targets=stack("targets", IGNORE, torch.long),
            weights=stack("weights", 0, torch.float32),
            openings=openings,
            starts=torch.tensor(starts, dtype=torch.long).view(-1, 3),
            questions=tuple((q.task, q.answer) for s in sequences for _, q in s.questions),
        )

    def _ask(self, sequence: int, number: int, prompt: str, q: Question, at: int, starts: list[int]) -> "_Asked":
        ask = [*self.tokenizer.encode(prompt), self.answer_start]
        answer = self.tokenizer.encode(q.answer)[:MAX_ANSWER]
        said = [*answer, self.end] if len(answer) < MAX_ANSWER else answer
        weight = REFUSAL_WEIGHT if q.answer == NOT_FOUND else 1 / len(said) ** 0.5
        before = len(ask) - 1
        ids = ask + said[:-1]
        return _Asked(
            sequence,
            number,
            ids,
            list(range(at, at + len(ids))),
            [IGNORE] * before + said,
            [0.0] * before + [weight] * len(said),
            before,
            starts,
        )

    @staticmethod
    def _level(sequences: list[_Sequence]) -> None:
        """Pad single views of one width to one height."""
        most = max(s.views[0].grid[0] for s in sequences)
        for s in sequences:
            view = s.views[0]
            missing = most - view.grid[0]
            s.views[0] = replace(view, classes=np.pad(view.classes, ((0, missing), (0, 0), (0, 0))))
            if s.pictures:
                s.pictures[0] = np.pad(s.pictures[0], ((0, missing * 16), (0, 0)), constant_values=255)

    def _group(self, members: list[tuple[_Sequence, int]]) -> Group:
        classes = np.stack([s.views[i].classes for s, i in members])
        pixels = _pixels([s.pictures[i] for s, i in members]) if members[0][0].pictures else None
        cells = _kept(classes, pixels, self.stage.blanks)
        place = np.full((len(members), classes.shape[1] * classes.shape[2]), -1)
        np.put_along_axis(place, cells, np.arange(cells.shape[1])[None], axis=1)
        links, edges = [], []
        for n, (s, i) in enumerate(members):
            view = s.views[i]
            for relation, value, label in _links(s.page, view):
                # Print too faint to count as ink is not shown, and so belongs to nothing.
                if place[n, value] >= 0 and (label < 0 or place[n, label] >= 0):
                    links.append((n, relation, place[n, value], place[n, label] if label >= 0 else -1))
            edges += [(n, edge, place[n, cell], slot) for edge, cell, slot in _edges(s.page, view) if place[n, cell] >= 0]
        return Group(torch.from_numpy(classes).long(), pixels, torch.from_numpy(cells), _fours(links), _fours(edges))


@dataclass(frozen=True)
class _Asked:
    """A question of a sequence, as rows of the batch's tables; see `Batch`."""

    sequence: int
    number: int
    ids: list[int]
    positions: list[int]
    targets: list[int]
    weights: list[float]
    opening: int
    starts: list[int]


def _kept(classes: NDArray[np.int16], pixels: Tensor | None, blanks: float) -> NDArray[np.int64]:
    """Cells [n, M] of views [n, R, C, J] that show something, as far as is known, and a share of the others.

    Known is, without pictures, which hold a character, legible or not. M is the same for all, so views that show less keep
    more that show nothing.
    """
    shows = (classes != 0).any(-1) if pixels is None else inked_cells(pixels).numpy()
    empty = ~shows.reshape(len(classes), -1)
    rank = empty * (1 + np.random.default_rng(int(classes.sum()) & 0xFFFF).random(empty.shape))
    most = int(max((~row).sum() + round(blanks * row.sum() * (pixels is None)) for row in empty))
    return np.sort(rank.argsort(1)[:, : max(1, most)], axis=1)


def _shown_tokens(kept: list[list[int]], image: int, view_end: int) -> Tensor:
    """Tokens of a sequence's views."""
    return torch.tensor([token for cells in kept for token in [image] * len(cells) + [view_end]])


def _starts(q: Question, views: list[View], kept: list[list[int]]) -> list[int]:
    """Places among a sequence's shown tokens of the cells where an answer begins, in every view that shows it.

    The ends of the views where nothing on the page answers, be the answer a refusal or a "no"; none where that has no one
    place.
    """
    if q.task == "count" and not q.copied:
        return []
    spans = q.evidence if q.task == "compare" and not q.copied else q.evidence[:1]
    if q.task == "presence":
        # Either tells that it is there: the circuit that finds a field's value for other questions may do so here.
        spans += q.label[:1]
    found = []
    before = 0
    for view, cells in zip(views, kept, strict=True):
        shown = {int(view.cell_of[a]) for a, _ in spans} if q.evidence else set()
        found += [before + n for n, cell in enumerate(cells) if cell in shown]
        before += len(cells) + 1
        if not q.evidence:
            found.append(before - 1)
    return found


def _fours(rows: list[tuple[int, ...]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.long).view(-1, 4)


def _overlap(a: tuple[Span, ...], b: tuple[Span, ...]) -> bool:
    return any(x0 < y1 and y0 < x1 for x0, x1 in a for y0, y1 in b)


def _cut_rows(page: Page, view: View, rows: int) -> View:
    """The upper `rows` rows of a page view."""
    if view.grid[0] <= rows:
        return view
    share = rows * 16 / view.height_px
    x0, y0, x1, y1 = view.box
    return view_of(page, (x0, y0, x1, float(int(y0 + (y1 - y0) * share))), view.width_px, rows * 16)


def _values(page: Page) -> Iterator[tuple[tuple[Span, ...], tuple[Span, ...], bool]]:
    """Spans of each value and of its labels, and whether it stands in a row; the mark in a box is a value, too."""
    yield from ((f.value_spans, f.label_spans, bool(f.row)) for f in page.fields)
    yield from (((check.mark_span,), (check.label_span,), False) for check in page.checks)


def _links(page: Page, view: View) -> list[tuple[int, int, int]]:
    """Relations between cells: 0 value to label, or table cell to column title; 1 table cell to row name.

    All cells of a value belong to the one where its label ends. Cells that are no values belong to nothing, which is -1.
    """
    found = set()
    values = set()
    for value_spans, label_spans, in_row in _values(page):
        cells = {int(cell) for a, z in value_spans for cell in view.cell_of[a:z] if cell >= 0}
        values |= cells
        for index, (_, label_end) in enumerate(label_spans):
            label = int(view.cell_of[label_end - 1])
            relation = 1 if in_row and index == 0 else 0
            found |= {(relation, value, label) for value in cells if label >= 0}
    others = [int(cell) for cell in np.unique(view.cell_of) if cell >= 0 and cell not in values]
    found |= {(relation, cell, -1) for cell in others[:: max(1, len(others) // 40)] for relation in (0, 1)}
    return sorted(found)


def _edges(page: Page, view: View) -> list[tuple[int, int, int]]:
    """Where values begin, and the slots after their last characters: 0 or 1, cell, slot.

    After a cell's last character comes the next slot of the cell or the first one of its right neighbour; both are told.
    """
    columns = view.grid[1]
    filled = (view.classes > 0).sum(-1).flatten()
    found = set()
    for value_spans, _, _ in _values(page):
        first, last = value_spans[0][0], value_spans[-1][1] - 1
        if view.cell_of[first] >= 0:
            found.add((0, int(view.cell_of[first]), int(view.slot_of[first])))
        if (cell := int(view.cell_of[last])) >= 0:
            found.add((1, cell, int(view.slot_of[last]) + 1))
            if view.slot_of[last] + 1 == filled[cell] and cell % columns < columns - 1:
                found.add((1, cell + 1, 0))
    return sorted(found)


def _dim(picture: NDArray[np.uint8], rng: random.Random) -> NDArray[np.uint8]:
    """Dim a picture but for soft blobs, as a spotlight does."""
    height, width = picture.shape
    y, x = np.mgrid[0:height, 0:width]
    light = np.full(picture.shape, rng.uniform(0.3, 0.7))
    for _ in range(rng.randint(1, 3)):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.1, 0.4) * max(height, width)
        light = np.maximum(light, np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * radius**2)))
    return (picture * light).astype(np.uint8)


ENDINGS = signal.SIGTERM, signal.SIGINT
"""Signals that end a run."""


def stream(seed: int, stage: Stage, split: Split, first: int, workers: int) -> Iterator[ReaderBatch | Batch]:
    """A stage's batches from number `first` on, drawn by worker processes; the same whatever their number."""
    data = Batches(seed, stage, split, first)
    if workers == 0:
        return (data[number] for number in range(len(data)))
    return iter(
        DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=6,
            sampler=range(len(data)),
            worker_init_fn=_leave_ending_to_the_trainer,
        )
    )


def _leave_ending_to_the_trainer(_: int) -> None:
    """Ignore the signals that end a run.

    They reach every process of its group, and the death of one that draws would end the run before it is saved.
    """
    for ending in ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
