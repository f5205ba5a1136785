"""A model for SPOT-E's tests whose certainty depends, by a script, on how brightly a place of its page is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from pipeline.geometry import Box
from pipeline.records import Page, Usage
from pipeline.vlms.base import Generation, Prompt, Reading, Score, VisualTokens
from tests.fakes import PlayedVlm, make_page, one_layer

CELLS = 8
"""Visual tokens a side, of the page and of its windows."""
WORDS = 4
"""Size of the vocabulary that distributions are over."""


def grey_page(width: int = 112, height: int = 112, value: int = 200) -> Page:
    """A page of one grey, so that a picture's brightness is its mask."""
    return make_page(Image.new("RGB", (width, height), (value, value, value)))


def entropy(top: float) -> float:
    """Of a distribution whose other words share what `top` leaves."""
    rest = (1 - top) / (WORDS - 1)
    return -top * math.log(top) - (WORDS - 1) * rest * math.log(rest)


class LitVlm(PlayedVlm):
    """Plays back outputs and certainties without a model.

    Args:
        page: The page, grey; windows are told from it by their size.
        target: The place whose brightness, as a share of the page's own, the script is given.
        certainty: (token's number, target's brightness, mean brightness elsewhere) -> largest probability at that token.
        saliency: (rows, cols) -> the gradient's norm per visual token of the page, and of a window.
        pieces: The output's tokens, given the target's brightness; decoded by joining them.
        after: The tokens behind an output that was forced, marker included.
        ended: Whether the output ends by itself.
        fails: (prompts, graph, forced) -> an error to raise instead of reading, or None.
    """

    def __init__(
        self,
        page: Page,
        target: Box,
        certainty: Callable[[int, float, float], float],
        *,
        saliency: np.ndarray | None = None,
        pieces: Callable[[float], Sequence[str]] = lambda lit: ("12", ".", "50"),
        after: Sequence[str] = (),
        ended: bool = True,
        fails: Callable[[Sequence[Prompt], bool, bool], Exception | None] = lambda prompts, graph, forced: None,
    ) -> None:
        self.page, self.target, self.certainty, self.fails = page, target, certainty, fails
        self.saliency = np.ones((CELLS, CELLS)) if saliency is None else saliency
        self.pieces, self.after, self.ended = pieces, after, ended
        super().__init__("lit", blocks=2)
        self.table: list[str] = []
        self.batches: list[int] = []
        """Prompts of every teacher-forced reading."""
        self.shown: list[Image.Image] = []
        """Every page-sized picture encoded, in order."""

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        self._usage += Usage(vision_encodes=len(images))
        return [self._look(image, crops) for image in images]

    def _look(self, image: Image.Image, crop: bool) -> VisualTokens:
        light = None
        if not crop:
            self.shown.append(image)
            shares = np.asarray(image, dtype=np.float64)[..., 0] / np.asarray(self.page.image)[0, 0, 0]
            inside = np.zeros(shares.shape, bool)
            inside[self.target.y0 : self.target.y1, self.target.x0 : self.target.x1] = True
            light = float(shares[inside].mean()), float(shares[~inside].mean())
        embeddings = torch.zeros(CELLS * CELLS, 1, dtype=torch.float64)
        return VisualTokens(embeddings, (one_layer(image, CELLS, CELLS),), extra=light, crop=crop)

    def read(
        self,
        prompts: Sequence[Prompt],
        *,
        graph: bool = False,
        leaf: int = 0,
        layer: int | None = None,
        forced: Sequence[Sequence[int]] | None = None,
    ) -> Reading:
        error = self.fails(prompts, graph, forced is not None)
        if error is not None:
            raise error
        count = len(forced[0]) + 1 if forced is not None else 1
        leaves = [tuple(view.embeddings.clone().requires_grad_(graph) for view in prompt.views) for prompt in prompts]
        with torch.set_grad_enabled(graph):
            logits = torch.stack([self._logits(prompt, own, count) for prompt, own in zip(prompts, leaves, strict=True)])
        self._count(prompts)
        if forced is not None:
            self.batches.append(len(prompts))
        if graph:
            logits.register_hook(lambda _: self._count_backward(len(prompts)))
        state = tuple(zip(prompts, forced or [()] * len(prompts), strict=True))
        return Reading(logits, tuple(leaves) if graph else (), state)

    def _logits(self, prompt: Prompt, leaves: Sequence[torch.Tensor], count: int) -> torch.Tensor:
        (view,) = prompt.views
        tops = [0.7 if view.extra is None else self.certainty(number, *view.extra) for number in range(count)]
        rows = [[math.log(top)] + [math.log((1 - top) / (WORDS - 1))] * (WORDS - 1) for top in tops]
        logits = torch.tensor(rows, dtype=torch.float64)
        slope = tops[0] * abs(math.log(tops[0]) + entropy(tops[0]))
        push = (torch.from_numpy(self.saliency).flatten() * leaves[0][:, 0]).sum() / max(slope, 1e-12)
        return logits + push * torch.eye(WORDS, dtype=torch.float64)[0]

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        found = []
        for prompt, forced in reading.state:
            pieces = self.after if forced else self.pieces(prompt.views[0].extra[0])
            ids = self._ids(pieces[:max_new_tokens])
            self._usage += Usage(decoded_tokens=len(ids))
            scores = len(ids) + self.ended
            found.append(Generation(self.decode(ids).strip(), ids, (-0.25,) * scores, (0.5,) * scores))
        return found

    def _ids(self, pieces: Sequence[str]) -> tuple[int, ...]:
        self.table += [piece for piece in pieces if piece not in self.table]
        return tuple(self.table.index(piece) for piece in pieces)

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        return self._ids((text, "</s>"))

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self.table[token] for token in token_ids)

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        self._count(prompts)
        self.scored = list(continuations)
        # "not found" is two tokens of -3 wherever it stands, and what stands before it is as likely as not.
        counts = [len(text.split()) for text in continuations]
        return [Score((-0.7,) * (count - 2) + (-3.0,) * 2, (0.5,) * count) for count in counts]
