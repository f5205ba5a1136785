"""Batches: pages with their views and questions as tensors. A batch is decided by seed, stage and number alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from ops.train.compose import compose
from ops.train.document import Box, Page, Span
from ops.train.faces import Split
from ops.train.questions import NOT_FOUND, Asker, Question
from ops.train.stages import Stage
from ops.train.views import PAGE_SCALE, View, crop_view, page_view, picture, reader_window, view_of
from pipeline.vlms.embedded.alphabet import ANSWER, END, IMAGE, PAD, VIEW
from pipeline.vlms.embedded.tokenizer import build_tokenizer

READER_WINDOW_PX = (128, 384)
WINDOWS_PER_PAGE = 12
MAX_ANSWER = 48
"""Longest answer in tokens."""
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
        links: [m, 4] view of the group, relation, cell, cell that it belongs to.
        edges: [m, 4] view of the group, 0 for the beginning of a value or 1 for what follows its end, cell, slot.
    """

    classes: Tensor
    pixels: Tensor | None
    links: Tensor
    edges: Tensor


@dataclass(frozen=True)
class Batch:
    """Pages with their questions, one sequence a page: its views, then all questions, which do not see each other.

    Attributes:
        groups: the views by size.
        order: for each view of each sequence, in order, its group and its number there.
        ids: [B, T] tokens.
        targets: [B, T] the token that follows, inside answers; `IGNORE` elsewhere.
        weights: [B, T] weight of each target.
        segment: [B, T] 0 for views, k for the k-th question, -1 for padding.
        positions: [B, T] where each token stands if its question were the only one.
        labels: [m, 3] sequence, position of the token that opens the answer, number among the visual tokens of the
            sequence of the cell where the label ends that is asked for.
        task: [B, T] number of the question at its answer's first target, -1 elsewhere; indexes `questions`.
        questions: task and answer of each question.
    """

    groups: tuple[Group, ...]
    order: tuple[tuple[int, int], ...]
    ids: Tensor
    targets: Tensor
    weights: Tensor
    segment: Tensor
    positions: Tensor
    labels: Tensor
    task: Tensor
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
        if difficulty.width_px:
            # One width a batch, so that its views are of one size and go through the tower at once; wide ones in smaller
            # batches. Larger print on a narrower page keeps the cells few.
            scale = PAGE_SCALE if rng.random() < 0.5 else rng.uniform(PAGE_SCALE, stage.largest_scale)
            low, high = (round(width * (PAGE_SCALE / scale) ** 0.5) for width in difficulty.width_px)
            width = rng.randint(low, high)
            n_pages = max(2, round(stage.pages * (low + high) / 2 / width))
            difficulty = replace(difficulty, width_px=(width, width))
        sequences = []
        number = 0
        while len(sequences) < n_pages:
            page = compose(f"{seed}/{number}", self.split, difficulty)
            number += 1
            sequence = self._sequence(page, rng, kind, scale)
            if sequence.questions:
                sequences.append(sequence)
        return self._pack(sequences)

    # -- views
    # ----------------------------------------------------------------------------------------------------------------

    def _sequence(self, page: Page, rng: random.Random, kind: str, scale: float | None) -> _Sequence:
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
            views.append(_cut_rows(page, whole, stage.max_rows) if stage.max_rows else whole)
        if kind != "page":
            n_crops = 1 if kind == "crop" else rng.choice((1, 1, 2, 2, 3, 4))
            views += [crop_view(page, self._crop(page, rng, asked)) for _ in range(n_crops)]
        questions: list[tuple[str, Question]] = []
        for q in asked:
            shown = self._shown(q, views, page, alone=kind == "crop")
            if shown is None or len(questions) == stage.questions:
                continue
            if not any(shown.text == other.text for _, other in questions):
                questions.append((shown.prompt(rng), shown))
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
        token = self.tokenizer.convert_tokens_to_ids
        image, view_end, answer_start, end, pad = (int(token(t)) for t in (IMAGE, VIEW, ANSWER, END, PAD))
        if len({view.grid[1] for s in sequences for view in s.views}) == 1 and all(len(s.views) == 1 for s in sequences):
            self._level(sequences)
        sizes: dict[tuple[int, int], int] = {}
        members: list[list[tuple[_Sequence, int]]] = []
        order = []
        rows: list[dict[str, list[int]]] = []
        described: list[tuple[str, str]] = []
        labels: list[tuple[int, int, int]] = []
        for b, s in enumerate(sequences):
            row: dict[str, list[int]] = {k: [] for k in ("ids", "segment", "positions", "targets", "weights", "task")}
            for index, view in enumerate(s.views):
                group = sizes.setdefault(view.grid, len(sizes))
                if group == len(members):
                    members.append([])
                order.append((group, len(members[group])))
                members[group].append((s, index))
                row["ids"] += [image] * (view.grid[0] * view.grid[1]) + [view_end]
            prefix = len(row["ids"])
            row["segment"] += [0] * prefix
            row["positions"] += range(prefix)
            row["targets"] += [IGNORE] * prefix
            row["task"] += [-1] * prefix
            row["weights"] += [0] * prefix
            for number, (prompt, q) in enumerate(s.questions):
                ask = [*self.tokenizer.encode(prompt), answer_start]
                answer = self.tokenizer.encode(q.answer)[:MAX_ANSWER]
                said = [*answer, end] if len(answer) < MAX_ANSWER else answer
                if q.label and (cell := int(s.views[0].cell_of[q.label[-1][1] - 1])) >= 0:
                    labels.append((b, len(row["ids"]) + len(ask) - 1, cell))
                whole = ask + said[:-1]
                row["ids"] += whole
                row["segment"] += [number + 1] * len(whole)
                row["positions"] += range(prefix, prefix + len(whole))
                row["targets"] += [IGNORE] * (len(ask) - 1) + said
                weight = REFUSAL_WEIGHT if q.answer == NOT_FOUND else 1 / len(said) ** 0.5
                row["weights"] += [0] * (len(ask) - 1) + [weight] * len(said)  # type: ignore[list-item]
                row["task"] += [-1] * (len(ask) - 1) + [len(described)] + [-1] * (len(said) - 1)
                described.append((q.task, q.answer))
            rows.append(row)
        length = max(len(row["ids"]) for row in rows)

        def stack(key: str, fill: float, dtype: torch.dtype) -> Tensor:
            return torch.tensor([row[key] + [fill] * (length - len(row[key])) for row in rows], dtype=dtype)

        return Batch(
            groups=tuple(self._group(group) for group in members),
            order=tuple(order),
            ids=stack("ids", pad, torch.long),
            targets=stack("targets", IGNORE, torch.long),
            weights=stack("weights", 0, torch.float32),
            segment=stack("segment", -1, torch.long),
            positions=stack("positions", 0, torch.long),
            labels=torch.tensor(labels, dtype=torch.long).view(-1, 3),
            task=stack("task", -1, torch.long),
            questions=tuple(described),
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

    @staticmethod
    def _group(members: list[tuple[_Sequence, int]]) -> Group:
        classes = torch.from_numpy(np.stack([s.views[i].classes for s, i in members])).long()
        pixels = _pixels([s.pictures[i] for s, i in members]) if members[0][0].pictures else None
        links = [(n, *link) for n, (s, i) in enumerate(members) for link in _links(s.page, s.views[i])]
        edges = [(n, *edge) for n, (s, i) in enumerate(members) for edge in _edges(s.page, s.views[i])]
        return Group(classes, pixels, _fours(links), _fours(edges))


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


def _links(page: Page, view: View) -> list[tuple[int, int, int]]:
    """Relations between cells: 0 value to label, or table cell to column title; 1 table cell to row name.

    All cells of a value belong to the one where its label ends. Cells that are no values belong to nothing, which is -1.
    """
    found = set()
    values = set()
    for f in page.fields:
        cells = {int(cell) for a, z in f.value_spans for cell in view.cell_of[a:z] if cell >= 0}
        values |= cells
        for index, (_, label_end) in enumerate(f.label_spans):
            label = int(view.cell_of[label_end - 1])
            relation = 1 if f.row and index == 0 else 0
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
    for f in page.fields:
        first, last = f.value_spans[0][0], f.value_spans[-1][1] - 1
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


def stream(seed: int, stage: Stage, split: Split, first: int, workers: int) -> Iterator[ReaderBatch | Batch]:
    """A stage's batches from number `first` on, drawn by worker processes; the same whatever their number."""
    data = Batches(seed, stage, split, first)
    if workers == 0:
        return (data[number] for number in range(len(data)))
    return iter(DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=6, sampler=range(len(data))))
