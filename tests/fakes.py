"""Models for the method's tests: a tiny transformer (`ToyVlm`), and one that plays back a script (`ScriptedVlm`)."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.errors import PromptTooLong
from pipeline.geometry import Box, PatchGrid
from pipeline.records import ModelIdentity, Page, Usage, View
from pipeline.vlms.base import Generation, Prompt, Reading, Score, TokenLayer, VisualTokens
from pipeline.zoom import EncodedPage

Layout = Literal["cells", "square", "layers"]

END, NOT, FOUND, BEGIN, VIEW_END, FIRST_WORD = range(6)
VOCABULARY = 24


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: tensors as small as these only lose time on more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def make_page(image: Image.Image, number: int = 1) -> Page:
    """A page record around an image."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()
    return Page("0" * 64, number, image, 72.0, digest, "drawn by a test")


def coordinate_page(width: int, height: int) -> Page:
    """A page whose pixels tell where they are, so that `ScriptedVlm` knows where a view was cut; up to 4096 px.

    Pixel (x, y) is coloured (x, y, 0) up to 256 px; beyond, blue holds the multiples of 256 of both.
    """
    y, x = np.mgrid[:height, :width]
    return make_page(Image.fromarray(np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=2).astype(np.uint8)))


def coordinates(image: Image.Image, at: tuple[int, int]) -> tuple[int, int]:
    """Where on a `coordinate_page` a view's pixel comes from."""
    red, green, blue = image.getpixel(at)
    return red + blue // 16 * 256, green + blue % 16 * 256


def random_page(width: int, height: int, seed: int) -> Page:
    """A page of grey noise with a few rectangles of other colours on it."""
    chance = np.random.default_rng(seed)
    pixels = chance.integers(90, 160, (height, width, 3)).astype(np.uint8)
    for _ in range(4):
        x, y = int(chance.integers(0, width)), int(chance.integers(0, height))
        pixels[y : y + height // 5 + 1, x : x + width // 4 + 1] = chance.integers(0, 256, 3)
    return make_page(Image.fromarray(pixels))


def encoded(vlm: Any, page: Page) -> EncodedPage:
    """The page's global view, encoded."""
    (tokens,) = vlm.encode([page.image])
    return EncodedPage(View.whole(page), tokens)


def word_ids(text: str) -> tuple[int, ...]:
    """Token ids of a text: one a word, known ones first."""
    known = {"not": NOT, "found": FOUND}
    words = range(FIRST_WORD, VOCABULARY)
    return tuple(known.get(word, words[zlib.crc32(word.encode()) % len(words)]) for word in text.split())


class _Watch:
    """Hands out what one position attends to at some places, so that what follows depends on it."""

    def __init__(self, position: int, places: Tensor) -> None:
        self.position, self.places = position, places
        self.seen: Tensor | None = None
        """[1, places], after the block was run."""

    def __call__(self, weights: Tensor) -> Tensor:
        row = weights[self.position]
        self.seen = row[self.places][None]
        row = row.index_copy(0, self.places, self.seen[0])
        return weights.index_copy(0, torch.tensor([self.position]), row[None])


class _Block(nn.Module):
    """Causal attention with one head, then a two-layer perceptron, both on normalised states."""

    def __init__(self, width: int, draw: Callable[..., nn.Parameter]) -> None:
        super().__init__()
        self.query, self.key, self.value = draw(width, width), draw(width, width), draw(width, width)
        self.up, self.down = draw(width, 2 * width), draw(2 * width, width)

    def forward(self, states: Tensor, watch: _Watch | None = None) -> Tensor:
        normal = _normalised(states)
        scores = (normal @ self.query) @ (normal @ self.key).T / math.sqrt(states.shape[-1])
        causal = torch.ones_like(scores, dtype=torch.bool).tril()
        weights = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        if watch is not None:
            weights = watch(weights)
        states = states + weights @ (normal @ self.value)
        return states + torch.tanh(_normalised(states) @ self.up) @ self.down


def _normalised(states: Tensor) -> Tensor:
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-3)


class ToyVlm(nn.Module):
    """A frozen transformer of a few hundred weights that implements the Vlm protocol without any cache or batch.

    Args:
        seed: Of the weights.
        dtype: Of weights and states; logits are float64 for float64 and float32 otherwise.
        layout: ``cells``: non-square cells, the last row and column filled up beyond the view, finer for crops.
            ``square``: the view in the middle of a padded square, as LLaVA-1.5. ``layers``: a base grid over the whole view
            and finer tiles with a newline token a row, as LLaVA-1.6.
        blocks: Number of blocks.
        confidence: Nats added, in the logits' own precision, to the first answer token's logit for word 7.
        context: Longest sequence.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        dtype: torch.dtype = torch.float64,
        layout: Layout = "cells",
        cell: tuple[int, int] = (11, 8),
        blocks: int = 2,
        confidence: float = 0.0,
        context: int = 4096,
    ) -> None:
        super().__init__()
        self.layout, self.cell, self.blocks, self.confidence, self.context = layout, cell, blocks, confidence, context
        self.width, self.dtype = 12, dtype
        chance = torch.Generator().manual_seed(seed)

        def draw(*shape: int, scale: float = 1.0) -> nn.Parameter:
            values = torch.randn(*shape, generator=chance, dtype=torch.float64) * scale / math.sqrt(shape[0])
            return nn.Parameter(values.to(dtype), requires_grad=False)

        self.projector = draw(6, self.width, scale=3.0)
        self.words = draw(VOCABULARY, self.width, scale=math.sqrt(VOCABULARY))
        self.layers = nn.ModuleList(_Block(self.width, draw) for _ in range(blocks))
        self.head = draw(self.width, VOCABULARY, scale=2.0)
        self.forgotten = 0
        self.identity = ModelIdentity("toy", "toy", None, f"{seed:064x}", "cpu", str(dtype).removeprefix("torch."))
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        return self._usage

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        self._usage += Usage(vision_encodes=len(images))
        return [self._look(image, crops) for image in images]

    def _look(self, image: Image.Image, crop: bool) -> VisualTokens:
        width, height = image.size
        # At most 8 cells a side, so that no test is slow.
        scale = 0.5 if crop else 1.0
        cell_width, cell_height = (max(scale * cell, side / 8) for cell, side in zip(self.cell, image.size, strict=True))
        cols, rows = math.ceil(width / cell_width - 1e-9), math.ceil(height / cell_height - 1e-9)
        fine = PatchGrid(rows, cols, 0.0, 0.0, cols * cell_width, rows * cell_height)
        if self.layout == "square":
            side, cells = max(width, height), 9 if crop else 7
            x0, y0 = -(side - width) / 2, -(side - height) / 2
            fine = PatchGrid(cells, cells, x0, y0, x0 + side, y0 + side)
        if self.layout != "layers":
            index = np.arange(fine.rows * fine.cols).reshape(fine.rows, fine.cols)
            return VisualTokens(self._project(image, fine), (TokenLayer(fine, index),), crop=crop)
        base = PatchGrid(4, 4, 0.0, 0.0, float(width), float(height))
        tiles = self._project(image, fine).reshape(rows, cols, -1)
        newline = self.words[VIEW_END].expand(rows, 1, -1)
        tokens = torch.cat([self._project(image, base), torch.cat([tiles, newline], dim=1).flatten(0, 1)])
        index = 16 + np.arange(rows * (cols + 1)).reshape(rows, cols + 1)[:, :-1]
        return VisualTokens(tokens, (TokenLayer(base, np.arange(16).reshape(4, 4)), TokenLayer(fine, index)), crop=crop)

    def _project(self, image: Image.Image, grid: PatchGrid) -> Tensor:
        """One token per cell from the mean and spread of its colours; padding is black."""
        pixels = np.asarray(image.convert("RGB")) / 255
        features = np.zeros((grid.rows * grid.cols, 6))
        for row in range(grid.rows):
            for col in range(grid.cols):
                x, y = grid.x0 + col * grid.cell_width, grid.y0 + row * grid.cell_height
                patch = pixels[
                    max(math.floor(y), 0) : max(math.ceil(y + grid.cell_height), 0),
                    max(math.floor(x), 0) : max(math.ceil(x + grid.cell_width), 0),
                ].reshape(-1, 3)
                if len(patch):
                    features[row * grid.cols + col] = [*patch.mean(0), *patch.std(0)]
        return torch.tanh(torch.from_numpy(features).to(self.dtype) @ self.projector)

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
        tails = [tuple(tail) for tail in forced] if forced is not None else [()] * len(prompts)
        watches = [self._watches(prompt, attentions) for prompt in prompts]
        rows, leaves = [], []
        for prompt, tail, watched in zip(prompts, tails, watches, strict=True):
            visual = [state.requires_grad_(graph) for state in self.states(prompt, leaf, tail)]
            with torch.set_grad_enabled(graph):
                rows.append(self.distribution(prompt, visual, leaf=leaf, layer=layer, forced=tail, watches=watched))
            leaves.append(tuple(visual) if graph else ())
        with torch.set_grad_enabled(graph):
            logits = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        self._usage += Usage(
            forward_passes=len(rows),
            visual_tokens=sum(view.count for prompt in prompts for view in prompt.views),
        )
        if graph:
            logits.register_hook(lambda _: self._count_backward(len(rows)))
        resumable = layer is None and len(set(map(len, tails))) == 1
        seen = tuple(tuple(watched[block].seen for watched in watches) for block in attentions)
        state = tuple(zip(prompts, tails, strict=True)) if resumable else None
        return Reading(logits, tuple(leaves), state, seen)

    def _watches(self, prompt: Prompt, blocks: Sequence[int]) -> dict[int, _Watch]:
        places = [torch.arange(start, end) for start, end in _spans(prompt)]
        position = 1 + sum(view.count + 1 for view in prompt.views) + len(word_ids(prompt.text)) - 1
        return {block: _Watch(position, torch.cat(places)) for block in blocks}

    def _count_backward(self, rows: int) -> None:
        self._usage += Usage(backward_passes=rows)

    def states(self, prompt: Prompt, leaf: int, forced: Sequence[int] = ()) -> list[Tensor]:
        """The visual tokens' states entering block `leaf`, outside any graph."""
        if leaf == 0:
            return [view.embeddings.clone() for view in prompt.views]
        with torch.no_grad():
            hidden = self._enter(prompt, [view.embeddings for view in prompt.views], forced)
            for block in self.layers[:leaf]:
                hidden = block(hidden)
        return [hidden[start:end].clone() for start, end in _spans(prompt)]

    def distribution(
        self,
        prompt: Prompt,
        visual: Sequence[Tensor],
        *,
        leaf: int = 0,
        layer: int | None = None,
        forced: Sequence[int] = (),
        watches: Mapping[int, _Watch] = MappingProxyType({}),
    ) -> Tensor:
        """Logits [T, V] of the next token and each forced token's successor, for given states entering block `leaf`."""
        embeddings = visual if leaf == 0 else [view.embeddings for view in prompt.views]
        hidden = self._enter(prompt, embeddings, forced)
        if len(hidden) > self.context:
            raise PromptTooLong(f"prompt of {len(hidden)} positions, context of {self.context}")
        for number, block in enumerate(self.layers[:layer]):
            if number == leaf != 0:
                pieces, at = [], 0
                for (start, end), states in zip(_spans(prompt), visual, strict=True):
                    pieces += [hidden[at:start], states]
                    at = end
                hidden = torch.cat([*pieces, hidden[at:]])
            hidden = block(hidden, watches.get(number))
        last = hidden[-1 - len(forced) :]
        logits = (last if layer is not None else _normalised(last)) @ self.head
        logits = logits if self.dtype == torch.float64 else logits.float()
        favour = torch.zeros_like(logits)
        favour[0, 7] = self.confidence
        # Answers end after a few tokens.
        favour[:, END] = 2.0 * torch.arange(len(logits))
        return logits + favour

    def _enter(self, prompt: Prompt, visual: Sequence[Tensor], forced: Sequence[int]) -> Tensor:
        pieces = [self.words[[BEGIN]]]
        for tokens in visual:
            pieces += [tokens, self.words[[VIEW_END]]]
        hidden = torch.cat([*pieces, self.words[[*word_ids(prompt.text), *forced]]])
        position = torch.arange(len(hidden), dtype=torch.float64)[:, None]
        frequency = 0.02 * 1.6 ** torch.arange(self.width, dtype=torch.float64)[None]
        return hidden + (0.5 * torch.sin(position * frequency)).to(self.dtype)

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        if reading.state is None:
            raise ValueError("only a reading of the whole model, as much forced on each, can be continued")
        return [self._decode(prompt, forced, max_new_tokens) for prompt, forced in reading.state]

    def forget(self) -> None:
        self.forgotten += 1

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join({NOT: "not", FOUND: "found"}.get(token, f"w{token}") for token in token_ids)

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        return (*word_ids(text), END)

    def _decode(self, prompt: Prompt, forced: Sequence[int], budget: int) -> Generation:
        ids: list[int] = []
        logprobs, entropies = [], []
        visual = [view.embeddings for view in prompt.views]
        while True:
            logp = self.distribution(prompt, visual, forced=[*forced, *ids])[-1].log_softmax(-1)
            chosen = int(logp.argmax())
            logprobs.append(float(logp[chosen]))
            entropies.append(float(-(logp.exp() * logp).sum()))
            if chosen == END:
                break
            ids.append(chosen)
            if len(ids) == budget:
                break
            self._usage += Usage(decoded_tokens=1)
        return Generation(self.decode(ids), tuple(ids), tuple(logprobs), tuple(entropies))

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        tails = [(*word_ids(text), END) for text in continuations]
        logp = self.read(prompts, forced=[tail[:-1] for tail in tails]).logits.log_softmax(-1)
        return [
            Score(
                tuple(float(logp[row, at, token]) for at, token in enumerate(tail)),
                tuple(float(-(logp[row, at].exp() * logp[row, at]).sum()) for at in range(len(tail))),
            )
            for row, tail in enumerate(tails)
        ]


def _spans(prompt: Prompt) -> list[tuple[int, int]]:
    """Where each view's tokens lie in the sequence: after the begin token, each followed by one end token."""
    spans, at = [], 1
    for view in prompt.views:
        spans.append((at, at + view.count))
        at += view.count + 1
    return spans


def _box_of(image: Image.Image) -> Box:
    """Where a view was cut from a `coordinate_page`."""
    x, y = coordinates(image, (0, 0))
    return Box(x, y, x + image.width, y + image.height)


class PlayedVlm:
    """What models that play back a script have in common: who they are, and their counters."""

    def __init__(self, name: str, blocks: int, family: str | None = None) -> None:
        self.identity = ModelIdentity(name, family or name, None, "0" * 64, "cpu", "float64")
        self.blocks = blocks
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        return self._usage

    def forget(self) -> None:
        """Nothing is kept."""

    def _count(self, prompts: Sequence[Prompt]) -> None:
        visual = sum(view.count for prompt in prompts for view in prompt.views)
        self._usage += Usage(forward_passes=len(prompts), visual_tokens=visual)

    def _count_backward(self, rows: int) -> None:
        self._usage += Usage(backward_passes=rows)


def one_layer(image: Image.Image, rows: int, cols: int) -> TokenLayer:
    """A grid over a whole picture, its tokens row by row."""
    grid = PatchGrid(rows, cols, 0.0, 0.0, float(image.width), float(image.height))
    return TokenLayer(grid, np.arange(rows * cols).reshape(rows, cols))


class ScriptedVlm(PlayedVlm):
    """Plays back saliency maps, probabilities and answers without a model; knows views by `coordinate_page`.

    Args:
        maps: (number of the grounding read, from 0; the view's box on the page) -> (rows, cols) values; the view's grid.
        certainty: Number of the grounding read -> largest probability of the first token (of four).
        answers: Prompt text -> answer; ``yes`` where it is missing.
        refusal_logprob: Log-probability of each token of "not found"; an answer's tokens have -0.25.
        fails: (prompts, graph) -> an error to raise instead of reading, or None.
        attends: Prompt text, the view's box on the page -> what the last position attends to, in every block; the certainty
            of the first token rises with all of it. The view's map of read 0 where it is missing.
    """

    def __init__(
        self,
        maps: Callable[[int, Box], np.ndarray],
        *,
        certainty: Callable[[int], float] = lambda read: 0.7,
        answers: Callable[[str], str] = lambda text: "yes",
        refusal_logprob: float = -3.0,
        fails: Callable[[Sequence[Prompt], bool], Exception | None] = lambda prompts, graph: None,
        attends: Callable[[str, Box], np.ndarray] | None = None,
    ) -> None:
        self.maps, self.certainty, self.answers = maps, certainty, answers
        self.refusal_logprob, self.fails = refusal_logprob, fails
        self.attends = attends or (lambda text, box: maps(0, box))
        super().__init__("scripted", blocks=4)
        self.encoded: list[tuple[Box, bool]] = []
        """Every view encoded, in order, and whether as a crop."""
        self.grounded: list[list[tuple[Box, ...]]] = []
        """Per grounding read, per prompt: the views shown."""
        self.answered: list[tuple[Box, ...]] = []
        """Per answer generated: the views shown."""

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        tokens = []
        for image in images:
            box = _box_of(image)
            self.encoded.append((box, crops))
            layer = one_layer(image, *self.maps(0, box).shape)
            embeddings = torch.zeros(layer.index.size, 1, dtype=torch.float64)
            tokens.append(VisualTokens(embeddings, (layer,), extra=box, crop=crops))
        self._usage += Usage(vision_encodes=len(images))
        return tokens

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
        error = self.fails(prompts, graph)
        if error is not None:
            raise error
        number = len(self.grounded)
        rows, leaves, seen = [], [], []
        for prompt in prompts:
            visual = tuple(view.embeddings.clone().requires_grad_(graph) for view in prompt.views)
            seen.append(self._seen(prompt).requires_grad_(graph) if attentions else None)
            rows.append(self._logits(number, prompt, visual, seen[-1])[None])
            leaves.append(visual if graph else ())
        logits = torch.stack(rows)
        self._count(prompts)
        if graph:
            self.grounded.append([tuple(view.extra for view in prompt.views) for prompt in prompts])
            logits.register_hook(lambda _: self._count_backward(len(prompts)))
        return Reading(logits, tuple(leaves), tuple(prompts), tuple(tuple(seen) for _ in attentions))

    def pixel_gradients(self, image: Image.Image, gradients: Sequence[Tensor], *, crop: bool = False) -> list[Tensor]:
        """Every cell is two pixels wide and high, all with the cell's gradient."""
        self._usage += Usage(vision_encodes=1)
        rows, cols = self.maps(0, _box_of(image)).shape
        cells = [gradient.view(1, rows, cols) for gradient in gradients]
        return [values.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) for values in cells]

    def _seen(self, prompt: Prompt) -> Tensor:
        """What the prompt's last position attends to, [1, N]."""
        return torch.cat([torch.from_numpy(self.attends(prompt.text, view.extra)).flatten() for view in prompt.views])[None]

    def _logits(self, number: int, prompt: Prompt, visual: Sequence[Tensor], seen: Tensor | None) -> Tensor:
        """Logits [V] whose entropy has, at each token, a gradient of the scripted map's value."""
        top = self.certainty(number)
        logp = torch.tensor([math.log(top)] + [math.log((1 - top) / 3)] * 3, dtype=torch.float64)
        entropy = -float((logp.exp() * logp).sum())
        slope = top * abs(math.log(top) + entropy)
        for view, leaf in zip(prompt.views, visual, strict=True):
            values = torch.from_numpy(self.maps(number, view.extra)).flatten()
            logp = logp + torch.tensor([1.0, 0, 0, 0], dtype=torch.float64) * (values @ leaf[:, 0]) / slope
        if seen is not None:
            logp = logp + torch.tensor([1.0, 0, 0, 0], dtype=torch.float64) * (seen - seen.detach()).sum()
        return logp

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        generations = []
        for prompt in reading.state:
            text = self.answers(prompt.text)
            ids = word_ids(text)
            self._usage += Usage(decoded_tokens=len(ids))
            self.answered.append(tuple(view.extra for view in prompt.views))
            generations.append(Generation(text, ids, (-0.25,) * (len(ids) + 1), (0.5,) * (len(ids) + 1)))
        return generations

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        self._count(prompts)
        length = len(word_ids("not found")) + 1
        return [Score((self.refusal_logprob,) * length, (0.5,) * length) for _ in prompts]
