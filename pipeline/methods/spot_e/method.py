"""SPOT-E's loop: baseline, spotlights, rewards, the policy's updates, the choice; and the answer from the chosen page."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.config import MethodConfig, RegionConfig, SpotEConfig
from pipeline.errors import InternalError
from pipeline.geometry import PatchGrid
from pipeline.methods.base import assemble, one_by_one, prompt_text, refusal_margin
from pipeline.methods.spot_e.eye import Eye
from pipeline.methods.spot_e.policy import Tuner
from pipeline.methods.spot_e.reward import (
    MARKER,
    Baseline,
    Reward,
    advantages,
    answer_span,
    answer_text,
    is_marked,
    token_entropies,
)
from pipeline.methods.spot_e.spotlight import mask, page_mask, render
from pipeline.records import Answer, Evidence, Question, SaliencyMap, Signals, Step, StopReason
from pipeline.regions import find_components, top_regions
from pipeline.vlms.base import Generation, Prompt, VisualTokens, Vlm
from pipeline.vlms.device import halving
from pipeline.vlms.prompts import REFUSAL, is_refusal
from pipeline.zoom import EncodedPage

if TYPE_CHECKING:
    from torch import Tensor

BRIGHT = RegionConfig(sigma_rows=0.0, sigma_cols=0.0, threshold="half-maximum")
"""What counts as lit: connected cells with at least half of the mask's largest value, by their sum of mask."""

MARKED = f"Think briefly (one or two sentences), then write on a new line exactly: {MARKER} <answer>"
"""Asks for a short rationale before the answer; the paper prints no prompt."""

FINAL_TOKENS = 32
"""How much may follow a marker that had to be forced."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A lit page and what it is worth.

    Attributes:
        field: [G, G]; its sigmoid is the mask.
        tokens: The rendered page's visual tokens, as `_passing` ones.
        reward: Its reward.
        max_probability: Largest probability at the answer's first token.
    """

    field: Tensor
    tokens: VisualTokens
    reward: Reward
    max_probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """How a question's search ended.

    Attributes:
        baseline: What candidates were measured by.
        plain: The answer from the untouched page.
        chosen: The page to answer from; None for the untouched one.
        steps: The untouched page, one step an update, the choice.
        rewards: Per update, per sampled mask.
        drift: How far the policy went, in units of its noise.
        gradient_norm: Of the eye's gradient; None if it has none or was not asked.
    """

    baseline: Baseline
    plain: Generation
    chosen: Candidate | None
    steps: tuple[Step, ...]
    rewards: tuple[tuple[Reward, ...], ...] = ()
    drift: float = 0.0
    gradient_norm: float | None = None


class SpotE:
    """Answers from the page as a tuned spotlight shows it; the paper and our choices stand in `pipeline.methods.spot_e`.

    The rendered page takes the untouched one's place: same size, same number of visual tokens, nothing drawn or cropped.
    Passes for T updates of N masks, W windows (VLM eye) and E extra samples: 1 for the plain answer, 1 to score it,
    1 + W forward and backward for the eye, T N + 1 + E candidates, each also encoded, 1 for the answer and 1 for the
    refusal's score (2 where answers are marked), and 1 more for an output that lacks the marker it was asked for. A question
    left alone, or answered from the untouched page, needs no second answer.
    """

    def __init__(self, vlm: Vlm, config: MethodConfig) -> None:
        if not isinstance(config.search, SpotEConfig):
            raise InternalError("spot-e needs its own configuration")
        self.vlm, self.config, self.search = vlm, config.answer, config.search
        self.eye = _eye(vlm, config.search)

    def answer(
        self, page: EncodedPage, questions: Sequence[Question], pulse: Callable[[], None] = lambda: None
    ) -> Iterator[Answer]:
        """Answer question by question; see `Method.answer`."""
        return one_by_one(self.vlm, page, questions, lambda question: self.lit(page, question, pulse)[0])

    def find(self, page: EncodedPage, question: Question, pulse: Callable[[], None] = lambda: None) -> Found:
        """Search for the spotlight without answering from it; theta is reset and no global random state is touched."""
        return _Search(self, page, question, pulse).run()

    def prompt(self, question: Question) -> str:
        """The user's turn: the common one, or with a rationale and a marked answer."""
        text = prompt_text(question, self.config)
        return text if self.search.answer_format == "bare" else f"{text}\n{MARKED}"

    def lit(
        self, page: EncodedPage, question: Question, pulse: Callable[[], None] = lambda: None
    ) -> tuple[Answer, VisualTokens]:
        """The answer to a question, but for what it cost, and the page it was answered from, lit or untouched."""
        found = self.find(page, question, pulse)
        pulse()
        tokens, generation = page.tokens, found.plain
        if found.chosen is not None:
            tokens = found.chosen.tokens
            generation = self.decode(Prompt((tokens,), self.prompt(question)))
        prompt = Prompt((tokens,), self.prompt(question))
        spoken, before = self._spoken(generation)
        margin = self._margin(prompt, spoken, before)
        last = found.steps[-1]
        answer = assemble(
            question,
            page,
            spoken,
            margin,
            self.config,
            evidence=_evidence(last) if found.chosen is not None else (),
            steps=found.steps,
            signals=Signals(
                entropy_drop=found.baseline.answer_entropy - last.token_entropy,
                spatial_entropy=last.spatial_entropy,
                gradient_norm=found.gradient_norm,
            ),
        )
        return answer, tokens

    def decode(self, prompt: Prompt) -> Generation:
        """Decode greedily; a marker that was asked for and is not there is forced behind the output, and answered."""
        (output,) = self.vlm.generate(self.vlm.read([prompt]), self.config.max_new_tokens)
        if self.search.answer_format == "bare" or is_marked(output.text):
            return output
        ids = (*output.token_ids, *self.vlm.continuation_ids(f"\n{MARKER}")[:-1])
        with torch.no_grad():
            reading = self.vlm.read([prompt], forced=[ids])
            logits = reading.logits[:, :-1]
            logprobs = logits[0].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        (answer,) = self.vlm.generate(reading, FINAL_TOKENS)
        if not answer.text:
            return output
        return Generation(
            self.vlm.decode((*ids, *answer.token_ids)).strip(),
            (*ids, *answer.token_ids),
            (*logprobs.tolist(), *answer.logprobs),
            (*token_entropies(logits)[0].tolist(), *answer.entropies),
        )

    def _spoken(self, generation: Generation) -> tuple[Generation, str]:
        """The answer's part of an output, from its first token to the end, and the text before it."""
        if self.search.answer_format == "bare":
            return generation, ""
        start = min(answer_span(generation.token_ids, self.vlm.decode), default=0)
        before = self.vlm.decode(generation.token_ids[:start])
        spoken = Generation(
            answer_text(generation.text),
            generation.token_ids[start:],
            generation.logprobs[start:],
            generation.entropies[start:],
        )
        return spoken, before

    def _margin(self, prompt: Prompt, spoken: Generation, before: str) -> float:
        """As `refusal_margin`; behind a rationale, against a refusal in the answer's place (one forward pass more)."""
        if not before or is_refusal(spoken.text):
            return refusal_margin(self.vlm, prompt, spoken)
        # The second row only says how many tokens the refusal is.
        marked, bare = self.vlm.score([prompt] * 2, [f"{before} {REFUSAL}", REFUSAL])
        refusal = marked.logprobs[-len(bare.logprobs) :]
        return spoken.mean_logprob - sum(refusal) / len(refusal)


def _eye(vlm: Vlm, config: SpotEConfig) -> Eye:
    """The configured eye; only the paper's needs peft."""
    if config.eye == "clip":
        from pipeline.methods.spot_e.eye_clip import ClipEye

        return ClipEye(config)
    from pipeline.methods.spot_e.eye_vlm import VlmEye

    return VlmEye(vlm, config)


class _Search:
    """One question's search on one page."""

    def __init__(self, method: SpotE, page: EncodedPage, question: Question, pulse: Callable[[], None]) -> None:
        self.method, self.vlm, self.config = method, method.vlm, method.search
        self.page, self.question, self.pulse = page, question, pulse
        self.text = method.prompt(question)
        self.steps: list[Step] = []
        self.rewards: list[tuple[Reward, ...]] = []
        self.best: Candidate | None = None

    def run(self) -> Found:
        self.pulse()
        plain, sure = self._plain()
        skip = self.config.skip_entropy
        if skip is not None and self.baseline.answer_entropy < skip:
            step = self._step(None, self.baseline.answer_entropy, sure, None)
            return Found(self.baseline, plain, None, (step.stopped(StopReason.CERTAIN),))
        with self.method.eye.look(self.page, self.question, self.text, self.pulse) as relevance:
            tuner = Tuner(relevance.parameters, relevance.field, relevance.rate, self.config, self._seed())
            self.steps.append(self._step(tuner.field, self.baseline.answer_entropy, sure, relevance.gradient_norm))
            reason = self._tune(tuner)
            chosen, last = self._choose(tuner, reason)
            return Found(
                self.baseline,
                plain,
                chosen,
                (*self.steps, last),
                tuple(self.rewards),
                tuner.drift,
                relevance.gradient_norm,
            )

    def _plain(self) -> tuple[Generation, float]:
        """The answer from the untouched page, its score, and the largest probability of its first token."""
        plain = self.method.decode(Prompt((self.page.tokens,), self.text))
        ended = len(plain.logprobs) > len(plain.token_ids)
        # The distribution of token n is read after n - 1 tokens, so the last one need not be shown.
        self.forced = plain.token_ids if ended else plain.token_ids[:-1]
        span = answer_span(plain.token_ids, self.vlm.decode)
        (entropies,), (top,) = self._entropies([_passing(self.page.tokens)])
        self.baseline = Baseline.of(entropies, span, self.config)
        return plain, float(top[self.baseline.span[0]])

    def _tune(self, tuner: Tuner) -> StopReason:
        """Sample, score, update; the best mask of each group is kept as a step."""
        stale = 0
        for _ in range(self.config.steps):
            before = self.best
            offsets = tuner.sample(self.config.group)
            group = self._score([tuner.shown(offset) for offset in offsets])
            earned = [candidate.reward.total for candidate in group]
            norm = tuner.update(offsets, advantages(earned, self.config.noise_floor)) if self.config.update else None
            self.rewards.append(tuple(candidate.reward for candidate in group))
            leader = max(group, key=lambda candidate: candidate.reward.total)
            self.steps.append(self._step(leader.field, leader.reward.answer_entropy, leader.max_probability, norm))
            stale = 0 if self.best is not before else stale + 1
            if self._hopeless(stale):
                return StopReason.NO_GAIN
        return StopReason.ROUNDS

    def _hopeless(self, stale: int) -> bool:
        """Whether an early stop applies after `stale` steps without a better mask."""
        patience, below = self.config.patience, self.config.stop_below
        worthless = below is not None and (self.best is None or self.best.reward.total < below)
        return worthless or (patience is not None and stale >= patience)

    def _choose(self, tuner: Tuner, reason: StopReason) -> tuple[Candidate | None, Step]:
        """Best of N: all masks so far, the tuned policy's mean and a few samples of it."""
        extra = tuner.sample(self.config.extra_samples)
        fields = [tuner.field, *(tuner.shown(offset) for offset in extra)]
        mean, *_ = self._score(fields)
        chosen = mean if self.config.choose == "mean" or self.best is None else self.best
        if self.config.do_no_harm and chosen.reward.total <= self.config.noise_floor:
            step = self._step(chosen.field, self.baseline.answer_entropy, chosen.max_probability, None)
            return None, step.stopped(StopReason.NO_GAIN)
        step = self._step(chosen.field, chosen.reward.answer_entropy, chosen.max_probability, None)
        return chosen, step.stopped(reason)

    def _score(self, fields: Sequence[Tensor]) -> list[Candidate]:
        """Render, encode and score masks in one batch, or in halves of it; the best of all stays in `best`."""
        self.pulse()
        scored = halving(self._score_batch, fields)
        for candidate in scored:
            if self.best is None or candidate.reward.total > self.best.reward.total:
                self.best = candidate
        return scored

    def _score_batch(self, fields: Sequence[Tensor]) -> list[Candidate]:
        image = self.page.view.image
        lit = [render(image, page_mask(field, self.config.tau, image.size), self.config.dim) for field in fields]
        tokens = [_passing(seen) for seen in self.vlm.encode(lit)]
        entropies, tops = self._entropies(tokens)
        return [
            Candidate(field.cpu(), seen, self.baseline.reward(along, self.config), float(top[self.baseline.span[0]]))
            for field, seen, along, top in zip(fields, tokens, entropies, tops, strict=True)
        ]

    def _entropies(self, pages: Sequence[VisualTokens]) -> tuple[np.ndarray, np.ndarray]:
        """Entropies and largest probabilities [n, T] along the plain answer's tokens, teacher-forced, in one batch."""
        prompts = [Prompt((tokens,), self.text) for tokens in pages]
        with torch.no_grad():
            logits = self.vlm.read(prompts, forced=[self.forced] * len(prompts)).logits
            tops: np.ndarray = logits.softmax(-1).amax(-1).double().cpu().numpy()
        return token_entropies(logits), tops

    def _step(self, field: Tensor | None, answer_entropy: float, sure: float, gradient_norm: float | None) -> Step:
        """A step that shows a field's mask and where it is bright."""
        maps = () if field is None else (self._map(field),)
        masked = [find_components(drawn.values, BRIGHT) for drawn in maps]
        regions = top_regions(maps, masked, self.config.regions, BRIGHT)
        return Step(
            round=len(self.steps),
            views=(self.page.view.box,),
            maps=maps,
            regions=regions,
            token_entropy=answer_entropy,
            max_probability=sure,
            spatial_entropy=masked[0].spatial_entropy if regions else None,
            gradient_norm=gradient_norm,
        )

    def _map(self, field: Tensor) -> SaliencyMap:
        """The soft mask on the field's own grid."""
        rows, cols = field.shape
        grid = PatchGrid(rows, cols, 0.0, 0.0, float(self.page.view.box.width), float(self.page.view.box.height))
        return SaliencyMap(self.page.view, grid, mask(field.double().cpu(), self.config.tau).numpy())

    def _seed(self) -> int:
        """Of the sampled masks: the same for the same page, question and setting, on any machine."""
        parts = f"{self.config.seed}:{self.page.view.page.sha256}:{self.text}"
        return int.from_bytes(hashlib.sha256(parts.encode()).digest()[:7], "little")


def _passing(tokens: VisualTokens) -> VisualTokens:
    """A page that is read once; marked as a crop, so that its states do not push the page's own out of the model."""
    return replace(tokens, crop=True)


def _evidence(step: Step) -> tuple[Evidence, ...]:
    """The bright regions of the mask that the answer was given from."""
    (lit,) = step.maps
    cell = lit.grid.cell_width, lit.grid.cell_height
    return tuple(
        Evidence(rank, lit.view.page.number, region.box, region.score, region.saliency, cell)
        for rank, region in enumerate(step.regions, start=1)
    )
