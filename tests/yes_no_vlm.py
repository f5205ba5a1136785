"""A model that answers ZoomEye's yes/no questions by a script, and keeps what it was shown; no weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from pipeline.geometry import Box
from pipeline.records import Usage
from pipeline.vlms.base import Generation, Prompt, Reading, Score, VisualTokens
from tests.fakes import PlayedVlm, coordinates, one_layer

WORD_IDS = {"end": 0, "Yes": 1, "yes": 2, "No": 3, "no": 4}
VOCABULARY = 6
TOKENS = 4
"""Visual tokens of every view."""

_FORMS = {
    "existence": r"(?:Is there a (.+) in the|show this: (.+)\? Answer)",
    "latent": r"(?:possible to find a (.+?) (?:in the image|by further)|small to read here: (.+)\? Answer)",
    "answering": r"Question: (.+)\n(?:Could you|Can the)()",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A yes/no question: which of the three, about what, of which crop (the page's box for the page alone)."""

    kind: str
    about: str
    box: Box
    views: int


class YesNoVlm(PlayedVlm):
    """Plays back confidences; knows crops by `coordinate_page`.

    Args:
        page: The page's box.
        confidence: What is asked -> 2 P(yes) - 1, strictly between -1 and 1.
        cues: The reply to the request for objects.
        answer: The answer to everything else.
        lower: Share of the probability that is on the words in lower case.
        fails: Prompts of a batch -> an error to raise, or None.
        family: As which family it is treated.
    """

    def __init__(
        self,
        page: Box,
        confidence: Callable[[Asked], float],
        *,
        cues: str = "I need nothing.",
        answer: str = "yes",
        lower: float = 0.0,
        fails: Callable[[Sequence[Prompt]], Exception | None] = lambda prompts: None,
        family: str = "scripted",
    ) -> None:
        self.page, self.confidence, self.cues, self.answer, self.lower, self.fails = (
            page,
            confidence,
            cues,
            answer,
            lower,
            fails,
        )
        super().__init__("scripted", blocks=4, family=family)
        self.batches: list[tuple[Asked, ...]] = []
        self.pictures: list[tuple[Image.Image, bool]] = []
        self.requests: list[str] = []
        self.answered: list[Prompt] = []

    @property
    def asked(self) -> list[Asked]:
        """All yes/no questions in order."""
        return [asked for batch in self.batches for asked in batch]

    def visits(self, question: str | None = None) -> list[Box]:
        """The nodes visited: those that were asked for an answer, to one question or to any."""
        return [item.box for item in self.asked if item.kind == "answering" and question in {None, item.about}]

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        self._usage += Usage(vision_encodes=len(images))
        tokens = []
        for image in images:
            self.pictures.append((image, crops))
            # The middle, since a rectangle may cover the rim.
            x, y = coordinates(image, (image.width // 2, image.height // 2))
            left, top = x - image.width // 2, y - image.height // 2
            box = Box(left, top, left + image.width, top + image.height) if crops else self.page
            tokens.append(VisualTokens(torch.zeros(TOKENS, 1), (one_layer(image, 2, 2),), extra=box, crop=crops))
        return tokens

    def read(
        self,
        prompts: Sequence[Prompt],
        *,
        graph: bool = False,
        leaf: int = 0,
        layer: int | None = None,
        forced: Sequence[Sequence[int]] | None = None,
    ) -> Reading:
        assert not graph, "nothing is differentiated"
        if error := self.fails(prompts):
            raise error
        self._count(prompts)
        asked = [self._parse(prompt) for prompt in prompts]
        if any(asked):
            self.batches.append(tuple(item for item in asked if item is not None))
        logits = torch.stack([self._logits(item) for item in asked])[:, None]
        return Reading(logits, (), tuple(prompts))

    def _parse(self, prompt: Prompt) -> Asked | None:
        for kind, form in _FORMS.items():
            if prompt.views and (found := re.search(form, prompt.text)):
                return Asked(kind, found[1] or found[2], prompt.views[-1].extra, len(prompt.views))
        return None

    def _logits(self, asked: Asked | None) -> torch.Tensor:
        yes = 0.5 if asked is None else (1 + self.confidence(asked)) / 2
        logits = torch.full((VOCABULARY,), -40.0, dtype=torch.float64)
        for word, probability in (("yes", yes), ("no", 1 - yes)):
            for spelling, share in ((word, self.lower), (word.capitalize(), 1 - self.lower)):
                if probability * share > 0:
                    logits[WORD_IDS[spelling]] = math.log(probability * share)
                elif math.isnan(probability):
                    logits[WORD_IDS[spelling]] = math.nan
        return logits.float() if asked is None else logits

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        generations = []
        for prompt in reading.state:
            if not prompt.views:
                self.requests.append(prompt.text)
            else:
                self.answered.append(prompt)
            text = self.answer if prompt.views else self.cues
            generations.append(Generation(text, (5,), (-0.25, -0.25), (0.5, 0.5)))
            self._usage += Usage(decoded_tokens=1)
        return generations

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.answer

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        return (WORD_IDS[text], WORD_IDS["end"])

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        self._count(prompts)
        return [Score((-3.0, -3.0), (0.5, 0.5)) for _ in prompts]
