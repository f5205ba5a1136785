"""The model as it is: one look at the whole page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pipeline.config import MethodConfig
from pipeline.errors import MethodError
from pipeline.methods.base import assemble, failed, prompt_text
from pipeline.records import Answer, Question, Usage
from pipeline.vlms.base import Prompt, Vlm
from pipeline.vlms.prompts import REFUSAL, is_refusal
from pipeline.zoom import EncodedPage


class Plain:
    """Reads the page once and answers; also the sweep that ranks the pages of a long document.

    All questions of a page share one batch: one forward pass a question for the answers, and one more, for the score
    against "not found", for each that is answered. Nothing is differentiated, so there is no evidence.
    """

    def __init__(self, vlm: Vlm, config: MethodConfig) -> None:
        self.vlm, self.config = vlm, config.answer

    def answer(
        self, page: EncodedPage, questions: Sequence[Question], pulse: Callable[[], None] = lambda: None
    ) -> Iterator[Answer]:
        """Answer all questions; see `Method.answer`. Each is charged an equal share of its batch."""
        return self._halving(page, questions, pulse, Usage())

    def _halving(
        self, page: EncodedPage, questions: Sequence[Question], pulse: Callable[[], None], owed: Usage
    ) -> Iterator[Answer]:
        """Answer in one batch, or in two when that fails; `owed` is what a failed attempt has cost already."""
        pulse()
        started, before = time.perf_counter(), self.vlm.usage

        def spent() -> Usage:
            return owed + (self.vlm.usage - before) + Usage(seconds=time.perf_counter() - started)

        answers: list[Answer] = []
        try:
            answers = self._batch(page, questions)
        except MethodError as error:
            error.with_traceback(None)  # its frames hold the batch, which must be gone before a smaller one can fit
            if len(questions) == 1:
                answers = [failed(questions[0], page, error, Usage())]
        if not answers:
            # One question too long, or too many for the device's memory: halves find out which.
            middle = len(questions) // 2
            yield from self._halving(page, questions[:middle], pulse, spent())
            yield from self._halving(page, questions[middle:], pulse, Usage())
            return
        for answer, share in zip(answers, spent().split(len(answers)), strict=True):
            yield replace(answer, usage=share)

    def _batch(self, page: EncodedPage, questions: Sequence[Question]) -> list[Answer]:
        prompts = [Prompt((page.tokens,), prompt_text(question, self.config)) for question in questions]
        generations = self.vlm.generate(self.vlm.read(prompts), self.config.max_new_tokens)
        margins = dict.fromkeys(range(len(questions)), 0.0)
        asked = [index for index, generation in enumerate(generations) if not is_refusal(generation.text)]
        if asked:
            scores = self.vlm.score([prompts[index] for index in asked], [REFUSAL] * len(asked))
            margins.update(
                (index, generations[index].mean_logprob - score.mean_logprob)
                for index, score in zip(asked, scores, strict=True)
            )
        return [
            assemble(question, page, generation, margins[index], self.config)
            for index, (question, generation) in enumerate(zip(questions, generations, strict=True))
        ]
