"""A model that is asked the same thing once: arms of an evaluation have much in common, and each is charged as if alone.

Sixty arms look at the same page; those that differ in when they stop begin alike, and a tuned mask's first group is every
tuning's. What a model says is a function of what it is shown and asked, so all of it is kept: views by their pixels,
distributions, gradients, answers. Whoever asks again gets the same, and its usage grows by what it cost when it was
computed, seconds included, so that costs compare as if each arm had run by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from pipeline.records import Usage
from pipeline.vlms.base import Generation, Prompt, Reading, Score, VisualTokens, Vlm

CAPACITY = 2**30
"""Bytes of tensors kept; what was not asked for longest goes first."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    value: Any
    cost: Usage
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """One row of a reading: logits [T, V], and what it attends to, per block."""

    logits: Tensor
    attentions: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _How:
    """The arguments of a reading, but for its rows."""

    graph: bool
    leaf: int
    layer: int | None
    attentions: tuple[int, ...]


@dataclass(slots=True, eq=False)
class _Asked:
    """A reading's rows, its state: what is not known of them is computed from `inner`, which is read when it is needed.

    Attributes:
        names: Of the rows.
        inner: The model's own reading of all of them, if there is one.
    """

    names: tuple[Hashable, ...]
    prompts: tuple[Prompt, ...]
    forced: tuple[tuple[int, ...], ...] | None
    how: _How
    inner: Reading | None = None


class RememberingVlm:
    """Implements `pipeline.vlms.base.Vlm` around another, which it alone may use.

    A reading with both a graph and attentions is not kept, since its gradients are taken at the attentions.
    """

    def __init__(self, vlm: Vlm, capacity: int = CAPACITY) -> None:
        self.vlm, self.identity, self.blocks = vlm, vlm.identity, vlm.blocks
        self.decode, self.continuation_ids = vlm.decode, vlm.continuation_ids
        self._capacity, self._size = capacity, 0
        self._known: OrderedDict[Hashable, _Known] = OrderedDict()
        self._views: dict[int, Hashable] = {}
        """Names of the views kept, by the identity of their embeddings."""
        self._spared = Usage()
        self._begun: dict[_How, Prompt] = {}
        """Pages that the model alone would have read since it last forgot, and whose states it lacks."""

    @property
    def usage(self) -> Usage:
        """See `Vlm.usage`; here, seconds are those that were spared."""
        return self.vlm.usage + self._spared

    def forget(self) -> None:
        """See `Vlm.forget`."""
        self._begun.clear()
        self.vlm.forget()

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        """See `Vlm.encode`."""
        names = [("view", crops, *_pixels(image)) for image in images]
        return self._each(names, lambda missing: self.vlm.encode([images[at] for at in missing], crops=crops))

    def pixel_gradients(self, image: Image.Image, gradients: Sequence[Tensor], *, crop: bool = False) -> list[Tensor]:
        """See `Vlm.pixel_gradients`."""
        names = [("pixels", crop, *_pixels(image), _digest(gradient)) for gradient in gradients]
        return self._each(
            names, lambda missing: self.vlm.pixel_gradients(image, [gradients[at] for at in missing], crop=crop)
        )

    def read(
        self,
        prompts: Sequence[Prompt],
        *,
        graph: bool = False,
        leaf: int = 0,
        layer: int | None = None,
        forced: Sequence[Sequence[int]] | None = None,
        attentions: Sequence[int] = (),
    ) -> Reading:
        """See `Vlm.read`."""
        how = _How(graph, leaf if graph else 0, layer, tuple(attentions))
        tails = tuple(map(tuple, forced)) if forced is not None else None
        names = tuple(("read", self._name(prompt), tails and tails[row], how) for row, prompt in enumerate(prompts))
        asked = _Asked(names, tuple(prompts), tails, how)
        if (graph and attentions) or not all(name[1] for name in names):
            self._restore(prompts)
            return self._read(asked, range(len(prompts)))
        rows = self._each(names, lambda missing: self._rows(asked, missing))
        if asked.inner is None:
            self._begin(prompts[0], how)
        logits = torch.nn.utils.rnn.pad_sequence([row.logits for row in rows], batch_first=True)
        watched = tuple(tuple(row.attentions[block] for row in rows) for block in range(len(attentions)))
        leaves: tuple[tuple[Tensor, ...], ...] = ()
        if graph:
            leaves = tuple(tuple(view.embeddings.detach().requires_grad_() for view in prompt.views) for prompt in prompts)
            logits = _Logits.apply(logits, self, asked, *itertools.chain(*leaves))  # type: ignore[no-untyped-call]
        resumable = layer is None and len(set(map(len, tails or ((),)))) == 1
        return Reading(logits, leaves, asked if resumable else None, watched)

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        """See `Vlm.generate`."""
        asked = reading.state
        if not isinstance(asked, _Asked):
            return self.vlm.generate(reading, max_new_tokens)
        names = [("generate", name, max_new_tokens) for name in asked.names]
        return self._each(names, lambda missing: self._generated(asked, missing, max_new_tokens))

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        """See `Vlm.score`."""
        names = [
            ("score", self._name(prompt), continuation) for prompt, continuation in zip(prompts, continuations, strict=True)
        ]

        def compute(missing: Sequence[int]) -> list[Score]:
            self._restore([prompts[at] for at in missing])
            return self.vlm.score([prompts[at] for at in missing], [continuations[at] for at in missing])

        return self._each(names, compute) if all(name[1] for name in names) else compute(range(len(prompts)))

    def gradients(self, asked: _Asked, at_logits: Tensor) -> list[tuple[Tensor, ...]]:
        """Per row, the gradients at its leaves."""
        names = [("gradient", name, _digest(row)) for name, row in zip(asked.names, at_logits, strict=True)]
        return self._each(names, lambda missing: self._differentiated(asked, at_logits, missing))

    def _each(self, names: Sequence[Hashable], compute: Callable[[Sequence[int]], Sequence[Value]]) -> list[Value]:
        """What is known by these names; of what is not, `compute` is given the places, and each costs an equal share."""
        missing = list({name: at for at, name in reversed(list(enumerate(names))) if name not in self._known}.values())[::-1]
        found: dict[Hashable, _Known] = {name: self._known[name] for name in names if name in self._known}
        fresh = {names[at] for at in missing}
        if missing:
            started, before, spared = time.perf_counter(), self.vlm.usage, self._spared
            values = compute(missing)
            # What was spared while computing, negative, is time that an arm alone would not have needed.
            spent = self.vlm.usage - before + Usage(seconds=time.perf_counter() - started) + (self._spared - spared)
            for at, value, cost in zip(missing, values, spent.split(len(missing)), strict=True):
                found[names[at]] = self._keep(names[at], value, cost)
        for name in names:
            if name in fresh:
                fresh.remove(name)
            else:
                self._spared += found[name].cost
                if name in self._known:
                    self._known.move_to_end(name)
        return [found[name].value for name in names]

    def _keep(self, name: Hashable, value: Any, cost: Usage) -> _Known:
        known = _Known(value, cost, _bytes(value))
        self._known[name] = known
        self._size += known.size
        if isinstance(value, VisualTokens):
            self._views[id(value.embeddings)] = name
        while self._size > self._capacity:
            _, old = self._known.popitem(last=False)
            self._size -= old.size
            if isinstance(old.value, VisualTokens):
                del self._views[id(old.value.embeddings)]
        return known

    def _name(self, prompt: Prompt) -> Hashable:
        """What a prompt shows and says; None if one of its views is not kept any more."""
        views = tuple((self._views.get(id(view.embeddings)), view.crop) for view in prompt.views)
        return None if any(name is None for name, _ in views) else (views, prompt.text)

    def _rows(self, asked: _Asked, missing: Sequence[int]) -> list[_Row]:
        self._restore([asked.prompts[at] for at in missing])
        reading = self._read(asked, missing)
        if len(missing) == len(asked.prompts):
            asked.inner = reading
        logits, lengths = reading.logits.detach(), [len(asked.forced[at]) + 1 if asked.forced else 1 for at in missing]
        return [
            _Row(logits[row, :length].clone(), tuple(block[row].detach() for block in reading.attentions))
            for row, length in enumerate(lengths)
        ]

    def _read(self, asked: _Asked, rows: Sequence[int]) -> Reading:
        how, forced = asked.how, asked.forced
        return self.vlm.read(
            [asked.prompts[at] for at in rows],
            graph=how.graph,
            leaf=how.leaf,
            layer=how.layer,
            forced=forced and [forced[at] for at in rows],
            attentions=how.attentions,
        )

    def _again(self, asked: _Asked, missing: Sequence[int]) -> tuple[Reading, Sequence[int]]:
        """The model's own reading that holds these rows, and where; read again, at nobody's charge, if there is none."""
        if asked.inner is not None:
            return asked.inner, missing
        with self._uncharged():
            reading = self._read(asked, missing)
        if len(missing) == len(asked.prompts):
            asked.inner = reading
        return reading, range(len(missing))

    def _generated(self, asked: _Asked, missing: Sequence[int], max_new_tokens: int) -> list[Generation]:
        reading, rows = self._again(asked, missing)
        generations = self.vlm.generate(reading, max_new_tokens)
        return [generations[row] for row in rows]

    def _differentiated(self, asked: _Asked, at_logits: Tensor, missing: Sequence[int]) -> list[tuple[Tensor, ...]]:
        reading, rows = self._again(asked, missing)
        wanted = torch.zeros_like(reading.logits)
        for row, at in zip(rows, missing, strict=True):
            wanted[row, : at_logits.shape[1]] = at_logits[at, : wanted.shape[1]]
        targets = [leaf for row in rows for leaf in reading.leaves[row]]
        # The beginning's graph is shared by all questions of a page.
        found = iter(torch.autograd.grad(reading.logits, targets, wanted, retain_graph=True))
        return [tuple(next(found) for _ in reading.leaves[row]) for row in rows]

    def _begin(self, prompt: Prompt, how: _How) -> None:
        """Note that a reading was spared whose page's states the model alone would hold now."""
        if prompt.views and not prompt.views[0].crop:
            self._begun.setdefault(replace(how, attentions=()), Prompt(prompt.views[:1], prompt.text))

    def _restore(self, prompts: Sequence[Prompt]) -> None:
        """Let the model read, at nobody's charge, what it would hold by now, before it is asked to go on from there."""
        shown = [prompt.views[0] for prompt in prompts if prompt.views]
        if self._begun and any(not view.crop for view in shown):
            with self._uncharged():
                for how, prompt in self._begun.items():
                    self.vlm.read([prompt], graph=how.graph, leaf=how.leaf, layer=how.layer)
            self._begun.clear()

    @contextmanager
    def _uncharged(self) -> Iterator[None]:
        started, before = time.perf_counter(), self.vlm.usage
        yield
        self._spared -= self.vlm.usage - before + Usage(seconds=time.perf_counter() - started)


class _Logits(torch.autograd.Function):
    """A reading's logits as a function of its leaves: known as they are, differentiated by whoever knows the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, vlm: RememberingVlm, asked: _Asked, *_leaves: Tensor) -> Tensor:
        ctx.vlm, ctx.asked = vlm, asked
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, *at_logits: Tensor) -> tuple[Tensor | None, ...]:
        rows = ctx.vlm.gradients(ctx.asked, at_logits[0])
        return None, None, None, *itertools.chain(*rows)


def _pixels(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, hashlib.sha256(image.tobytes()).digest()


def _digest(values: Tensor) -> bytes:
    return hashlib.sha256(values.detach().float().contiguous().cpu().numpy().tobytes()).digest()


def _bytes(value: Any) -> int:
    """About the memory of what is kept."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, VisualTokens):
        return value.embeddings.nbytes
    if isinstance(value, _Row):
        return _bytes((value.logits, *value.attentions))
    return sum(map(_bytes, value)) if isinstance(value, tuple) else 1000
