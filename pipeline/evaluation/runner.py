"""Runs arms over a dataset and keeps every answer as a line of a file, so that a run goes on where it was stopped.

Methods go the way of all questions, through a store and its workers (`pipeline.evaluation.jobs`), so that what is measured
is what production does, long documents' sweeps and merging included. Controls, which know the truth, the scoring of options
and disturbed pages are computed here. In this process questions are the outer loop: what arms have in common is computed
once (`pipeline.evaluation.memory`), and an interrupted run has the same questions of each arm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DocumentError, ExhibitError, EyeUnavailable, MethodError, UsageError
from pipeline.evaluation.arms import MEASURED_BY_REFERENCE, REFERENCE, Arm, Shown, answer_examples, parse_arm
from pipeline.evaluation.datasets import Example, PromptHint
from pipeline.evaluation.disruption import anchor_disruption
from pipeline.evaluation.jobs import Jobs
from pipeline.evaluation.likelihood import answer_by_likelihood
from pipeline.evaluation.metrics import pointing_hit, saliency_inside
from pipeline.evaluation.results import DIGITS, Result, ResultFile
from pipeline.evaluation.selection import Selection, document_bytes
from pipeline.geometry import Box, PatchGrid
from pipeline.merge import PageVerdict, best_pages, merge_pages
from pipeline.pages import PageSource
from pipeline.questions import parse_answer
from pipeline.records import Answer, AnswerStatus, Failure, Page, Signals, Usage
from pipeline.store import AnswerTrace, PageTrace, Stage
from pipeline.vlms.prompts import REFUSAL
from pipeline.work import crash_of, failure_of

if TYPE_CHECKING:
    import numpy as np

    from pipeline.vlms.base import Vlm

GROUNDED_PAGES = 3
"""As in production: a longer document is swept first, and so many of its pages are looked at closely."""

Progress = Callable[[Result], None]

_log = logging.getLogger("exhibit")


def run(
    jobs: Jobs,
    selection: Selection,
    arms: Sequence[Arm],
    results: ResultFile,
    progress: Progress = lambda result: None,
) -> None:
    """Answer every question with every arm, unless the file has it.

    Args:
        jobs: With a worker, all is computed here; without one, methods are left to others' workers.
        selection: The questions wanted.
        arms: A control that shows the reference arm's crops elsewhere needs that arm before it.
        results: Read and appended to.
        progress: Called with each new result.

    Raises:
        UsageError: A control is wanted of others' workers, or before what it needs.
    """
    runner = _Run(jobs, selection, arms, results, progress)
    if jobs.worker is None:
        runner.elsewhere()
    else:
        runner.here(jobs.worker.vlm)


class _Run:
    def __init__(
        self, jobs: Jobs, selection: Selection, arms: Sequence[Arm], results: ResultFile, progress: Progress
    ) -> None:
        self.jobs, self.selection, self.arms, self.results, self.progress = jobs, selection, arms, results, progress

    def here(self, vlm: Vlm) -> None:
        """Answer everything in this process, question by question; an answer is on disk before the next is begun."""
        for name, examples in self.selection.documents():
            controls = _Controls(vlm, self)
            for example in examples:
                for arm in self.arms:
                    if self._missing(arm, [example], vlm.identity.dtype):
                        for said in self._question(arm, name, example, controls):
                            self._keep(arm, example, said)

    def _question(self, arm: Arm, name: str, example: Example, controls: _Controls) -> list[Said]:
        """An arm's answer; what nobody foresaw is its failure on this question, since nobody knows that it is more."""
        try:
            if self._is_job(arm, example):
                batches = self._submit(arm, {name: [example]})
                return [_told(trace) for batch in batches for trace in self.jobs.traces(batch)]
            return [said for _, said in controls.answers(arm, [example])]
        except ExhibitError:
            raise  # the run's: a wrong arm, a lost device, no store; a question's own are in its answer
        except Exception as error:  # noqa: BLE001
            _log.exception("%s failed on %s", arm.name, example.example_id)
            return [controls.failed(crash_of(error))]

    def elsewhere(self) -> None:
        """Submit everything, then wait for it arm by arm."""
        batches = []
        for arm in self.arms:
            documents = {name: self._missing(arm, examples, None) for name, examples in self.selection.documents()}
            documents = {name: examples for name, examples in documents.items() if examples}
            asked = [example for examples in documents.values() for example in examples]
            refused = [example for example in asked if not self._is_job(arm, example)]
            if refused:
                raise UsageError(
                    f"arm {arm.name}: controls, the scoring of options and disturbed pages are computed here, not by a "
                    "deployment's workers; run it without --db"
                )
            batches += [(arm, batch, asked) for batch in self._submit(arm, documents)]
        for arm, batch, asked in batches:
            self._collect(arm, batch, asked)

    def _is_job(self, arm: Arm, example: Example) -> bool:
        """Whether production could be asked so; disturbed pages, megabytes of noise each, are kept out of the store."""
        asked_alike = example.prompt is not PromptHint.OPTION_LIKELIHOOD and not self.selection.disturbance
        return arm.is_method and asked_alike

    def _submit(self, arm: Arm, documents: Mapping[str, Sequence[Example]]) -> Iterator[str]:
        """One batch for the questions that are put in the arm's words, one for those that hold their own."""
        for verbatim in (False, True):
            wanted = {
                name: [example for example in examples if (example.prompt is PromptHint.VERBATIM) is verbatim]
                for name, examples in documents.items()
            }
            wanted = {name: examples for name, examples in wanted.items() if examples}
            if wanted:
                yield self.jobs.submit(wanted, (arm.asked("verbatim") if verbatim else arm).config)

    def _collect(self, arm: Arm, batch: str, asked: Sequence[Example]) -> None:
        by_id = {example.example_id: example for example in asked}
        for trace in self.jobs.traces(batch):
            self._keep(arm, by_id[trace.record["question_id"]], _told(trace))

    def _keep(self, arm: Arm, example: Example, said: Said) -> None:
        result = self._result(arm, example, said)
        self.results.append(result)
        self.progress(result)

    def _key(self, arm: Arm, example: Example, dtype: str) -> tuple[str, str, str, str, str, str]:
        benchmark, weights = self.selection.sha256[:DIGITS], self.jobs.model.weights_sha256[:DIGITS]
        return benchmark, self.selection.disturbance, weights, dtype, arm.sha256[:DIGITS], example.example_id

    def _missing(self, arm: Arm, examples: Sequence[Example], dtype: str | None) -> list[Example]:
        """Questions without a result; whoever works elsewhere chooses the dtype, so there any will do."""
        dtypes = [dtype] if dtype is not None else list({result.dtype for result in self.results.known.values()})
        return [
            example
            for example in examples
            if not any(self._key(arm, example, known) in self.results.known for known in dtypes)
        ]

    def shown(self, example: Example, dtype: str) -> Shown:
        """The crops that the reference arm showed for a question, in whichever words it was asked here."""
        usual = parse_arm(REFERENCE, self.jobs.model.family, self.arms[0].config.answer.prompt)
        asked = [arm for arm in self.arms if arm.is_method and arm.config.search == usual.config.search]
        for arm in (*asked, usual):
            found = self.results.known.get(self._key(arm, example, dtype))
            if found is not None:
                return Shown(found.regions)
        controls = " and ".join(sorted(MEASURED_BY_REFERENCE))
        raise UsageError(f"{controls} show as much as {REFERENCE} did; add --arm {REFERENCE} before them")

    def _result(self, arm: Arm, example: Example, said: Said) -> Result:
        page, dataset, model = said.page, self.selection.dataset, self.jobs.model
        truths = _truths(example, page)
        inside, area, pointed = _inside(page, truths)
        words = None if said.failure else REFUSAL if said.not_found else said.text
        signals = page.signals if page else Signals()
        return Result(
            dataset=dataset.name,
            split=dataset.split,
            benchmark=self.selection.sha256[:DIGITS],
            disturbance=self.selection.disturbance,
            example=example.example_id,
            group=example.group,
            unit=example.unit,
            quality=str(example.metadata.get("quality", "")),
            answerable=bool(example.references),
            model=model.name,
            family=model.family,
            weights=model.weights_sha256[:DIGITS],
            dtype=said.dtype,
            arm=arm.name,
            config=arm.sha256[:DIGITS],
            text=said.text,
            not_found=said.not_found,
            failure=said.failure,
            page=page.number if page else None,
            page_wh=page.size if page else None,
            truths=tuple(truths),
            places=len(example.evidence),
            regions=page.regions if page else (),
            first_regions=page.first_regions if page else (),
            inside=inside,
            inside_area=area,
            pointed=pointed,
            rounds=page.rounds if page else 0,
            stop=page.stop if page else None,
            margin=signals.refusal_margin,
            certainty=signals.mean_logprob,
            entropy=signals.token_entropy,
            spatial_entropy=signals.spatial_entropy,
            gradient_norm=signals.gradient_norm,
            disruption=said.disruption,
            usage=said.usage,
            scores={} if arm.control == "disruption" else dataset.score(example, words),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SaidPage:
    """The page that an answer stands on, and what was shown of it.

    Attributes:
        first_map: The first round's map of the whole page; None without one.
    """

    number: int
    size: tuple[int, int]
    signals: Signals
    regions: tuple[Box, ...]
    first_regions: tuple[Box, ...]
    first_map: tuple[PatchGrid, np.ndarray] | None
    rounds: int
    stop: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A document's answer to one question, wherever it was computed."""

    text: str | None
    not_found: bool
    failure: str | None
    page: SaidPage | None
    usage: Usage
    dtype: str
    disruption: float | None = None


def _told(trace: AnswerTrace) -> Said:
    """From a stored answer."""
    record = trace.record
    failure = record["error"]["code"] if record["status"] in {AnswerStatus.FAILED, AnswerStatus.SKIPPED} else None
    page = None if failure else _spoken(trace)
    return Said(
        text=record["answer"]["text"] if record["answer"] else None,
        not_found=record["status"] == AnswerStatus.NOT_FOUND,
        failure=failure,
        page=_stored_page(page) if page else None,
        usage=sum((page.usage for page in trace.pages), Usage()),
        dtype=record["provenance"]["dtype"] or "",
    )


def _spoken(trace: AnswerTrace) -> PageTrace | None:
    """The answer's page; of a refusal, the page of the most certain one, a closely looked at page if there is any."""
    told = [page for page in trace.pages if trace.record["page"] in {None, page.number}]
    near = [page for page in told if page.stage is Stage.GROUND] or told
    return max(near, key=lambda page: (page.signals.mean_logprob or 0.0, -page.number), default=None)


def _stored_page(page: PageTrace) -> SaidPage:
    first = page.steps[0] if page.steps else None
    whole = first.maps[0] if first and first.maps else None
    return SaidPage(
        number=page.number,
        size=(page.width, page.height),
        signals=page.signals,
        regions=tuple(piece.box_px for piece in sorted(page.evidence, key=lambda piece: piece.rank)),
        first_regions=tuple(region.box for region in first.regions) if first else (),
        first_map=(whole.grid, whole.values) if whole else None,
        rounds=len(page.steps),
        stop=page.steps[-1].stop_reason if page.steps else None,
    )


def _answered_page(answer: Answer, page: Page) -> SaidPage:
    first = answer.steps[0] if answer.steps else None
    whole = first.maps[0] if first and first.maps else None
    return SaidPage(
        number=page.number,
        size=(page.width, page.height),
        signals=answer.signals,
        regions=tuple(piece.box for piece in answer.evidence),
        first_regions=tuple(region.box for region in first.regions) if first else (),
        first_map=(whole.grid, whole.values) if whole else None,
        rounds=len(answer.steps),
        stop=answer.steps[-1].stop_reason if answer.steps else None,
    )


class _Controls:
    """What is computed in this process about one document: its pages are drawn once, its sweep is made once."""

    def __init__(self, vlm: Vlm, run: _Run) -> None:
        self.vlm, self.run = vlm, run
        self.pages: list[Page] = []
        self.sweeps: dict[tuple[str, str], dict[int, Answer]] = {}

    def answers(self, arm: Arm, examples: Sequence[Example]) -> Iterator[tuple[Example, Said]]:
        """Answer questions about the document: its pages, or, of a long one, the pages that a sweep finds best."""
        if not examples:
            return
        try:
            self._draw(examples[0])
        except DocumentError as error:
            for example in examples:
                yield example, self.failed(failure_of(error))
            return
        if arm.control == "disruption":
            yield from ((example, self._disrupted(arm, example)) for example in examples)
            return
        sweeps = self._sweep(arm, examples) if len(self.pages) > GROUNDED_PAGES and arm.control != "oracle-crop" else {}
        closely = {example.example_id: self._closely(arm, example, sweeps) for example in examples}
        grounded: dict[str, dict[int, Answer]] = {example.example_id: {} for example in examples}
        for page in self.pages:
            chosen = [example for example in examples if page.number in closely[example.example_id]]
            for example, answer in zip(chosen, self._page(arm, page, chosen), strict=True):
                grounded[example.example_id][page.number] = answer
        for example in examples:
            yield example, self._said(example, sweeps.get(example.example_id, {}), grounded[example.example_id])

    def _draw(self, example: Example) -> None:
        if not self.pages:
            name = example.media[0].name
            with PageSource(document_bytes(example), name, settings=self.run.jobs.raster) as source:
                self.pages = list(source.pages())

    def failed(self, failure: Failure) -> Said:
        """What is said of a question that failed."""
        return Said(None, False, failure.code, None, Usage(), self.vlm.identity.dtype)

    def _disrupted(self, arm: Arm, example: Example) -> Said:
        """What SPOT-E's mask does to the anchors on the answer's page, or the first."""
        page = self.pages[example.evidence[0].page - 1 if example.evidence else 0]
        before = self.vlm.usage
        try:
            found = anchor_disruption(self.vlm, page, example, arm)
        except (MethodError, EyeUnavailable) as error:
            return self.failed(failure_of(error))
        return Said(None, False, None, None, self.vlm.usage - before, self.vlm.identity.dtype, found)

    def _sweep(self, arm: Arm, examples: Sequence[Example]) -> dict[str, dict[int, Answer]]:
        """Plain answers of all pages; made once for all arms that ask alike."""
        plain = Arm("plain", arm.config.plain(), None, arm.long_side_px)
        missing = [example for example in examples if (plain.sha256, example.example_id) not in self.sweeps]
        for page in self.pages if missing else ():
            for example, answer in zip(missing, self._page(plain, page, missing), strict=True):
                self.sweeps.setdefault((plain.sha256, example.example_id), {})[page.number] = answer
        return {example.example_id: self.sweeps[plain.sha256, example.example_id] for example in examples}

    def _closely(self, arm: Arm, example: Example, sweeps: Mapping[str, Mapping[int, Answer]]) -> set[int]:
        """The pages looked at closely; an oracle knows them."""
        if arm.control == "oracle-crop" and example.evidence:
            return {truth.page for truth in example.evidence}
        sweep = sweeps.get(example.example_id)
        if not sweep:
            return {page.number for page in self.pages}
        # As the store ranks them: by the margin over a refusal, unless a page has none.
        margins = {number: answer.signals.refusal_margin for number, answer in sweep.items()}
        if None in margins.values():
            margins = {number: answer.signals.mean_logprob for number, answer in sweep.items()}
        return set(best_pages(list(margins.items()), GROUNDED_PAGES))

    def _page(self, arm: Arm, page: Page, examples: Sequence[Example]) -> list[Answer]:
        """One page's answers, in order."""
        verbatim = [example for example in examples if example.prompt is PromptHint.VERBATIM]
        options = [example for example in examples if example.prompt is PromptHint.OPTION_LIKELIHOOD]
        others = [example for example in examples if example not in verbatim and example not in options]
        told = [
            *self._told(page, others, lambda: answer_examples(self.vlm, page, others, arm, self._shown)),
            *self._told(
                page, verbatim, lambda: answer_examples(self.vlm, page, verbatim, arm.asked("verbatim"), self._shown)
            ),
            *self._told(
                page,
                options,
                lambda: (answer_by_likelihood(self.vlm, page, example, arm, self._shown) for example in options),
            ),
        ]
        by_id = {answer.question.question_id: answer for answer in told}
        return [by_id[example.question.question_id] for example in examples]

    def _told(self, page: Page, examples: Sequence[Example], answers: Callable[[], Iterator[Answer]]) -> Iterator[Answer]:
        """Answers in order; a page that cannot be encoded fails those that are left."""
        answered = 0
        try:
            for answer in answers() if examples else ():
                answered += 1
                yield answer
        except (MethodError, EyeUnavailable) as error:
            for example in examples[answered:]:
                yield Answer(example.question, page.number, None, failure=failure_of(error))

    def _shown(self, example: Example) -> Shown:
        return self.run.shown(example, self.vlm.identity.dtype)

    def _said(self, example: Example, sweep: Mapping[int, Answer], grounded: Mapping[int, Answer]) -> Said:
        """The document's answer, merged as in production, and the page it stands on."""
        answers = {**sweep, **grounded}
        verdicts = [
            PageVerdict(
                number,
                answer.text,
                answer.not_found,
                answer.signals.mean_logprob,
                not sweep or number in grounded,
                answer.failure,
            )
            for number, answer in answers.items()
        ]
        merged = merge_pages(verdicts, lambda text: parse_answer(example.question, text))
        number = merged.page or _refusing_page(answers, grounded)
        return Said(
            text=merged.answer.text if merged.answer else None,
            not_found=merged.status is AnswerStatus.NOT_FOUND,
            failure=merged.failure.code if merged.failure else None,
            page=_answered_page(answers[number], self.pages[number - 1]) if number else None,
            usage=sum((answer.usage for answer in (*sweep.values(), *grounded.values())), Usage()),
            dtype=self.vlm.identity.dtype,
        )


def _refusing_page(answers: Mapping[int, Answer], grounded: Mapping[int, Answer]) -> int | None:
    """The page of the most certain refusal, a closely looked at one if there is any."""
    told = [number for number, answer in answers.items() if answer.text is not None]
    near = [number for number in told if number in grounded] or told
    return max(near, key=lambda number: (answers[number].signals.mean_logprob or 0.0, -number), default=None)


def _truths(example: Example, page: SaidPage | None) -> list[Box]:
    """The true boxes on the answer's page, in its pixels."""
    return example.boxes_on(page.number, page.size) if page else []


def _inside(page: SaidPage | None, truths: Sequence[Box]) -> tuple[float | None, float | None, bool | None]:
    """Of the first round's map: shares of saliency and area in the true boxes, and whether it peaks there."""
    if page is None or page.first_map is None or not truths:
        return None, None, None
    grid, values = page.first_map
    return *saliency_inside(values, grid, truths), pointing_hit(values, grid, truths)
