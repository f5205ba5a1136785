"""One engine for all families: batches, the shared beginning of a page's prompts, leaves, early exit, decoding, counters.

A family says how an image becomes visual tokens and where they lie (`look`, `project`), how a prompt is written
(`render`), and, where it is not simply counted, which positions its tokens have (`positions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer

from pipeline.errors import DeviceLost, InternalError, ModelUnavailable, OutOfMemory, PromptTooLong
from pipeline.records import ModelIdentity, Usage
from pipeline.vlms.attention import Watch, visual_positions
from pipeline.vlms.base import Generation, Prompt, Reading, Score, TokenLayer, VisualTokens
from pipeline.vlms.decoder import Decoder, Past, Piece, Plan, Row, Run
from pipeline.vlms.device import device_errors


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """An image made ready for the vision tower.

    Attributes:
        pixels: What the tower takes for this image; looks of one shape are projected together.
        count: How many tokens it will become; checked, because tokens in other places than thought would go unnoticed.
        layers: Where they will lie.
        extra: Kept with the tokens, see `VisualTokens.extra`.
    """

    pixels: Tensor
    count: int
    layers: tuple[TokenLayer, ...]
    extra: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class _Beginning:
    """The states of a page's shared beginning: everything up to the end of its global view."""

    row: Row
    plan: Plan
    leaves: tuple[Tensor, ...]
    past: Past

    def serves(self, row: Row, plan: Plan) -> bool:
        """Whether a reading of `row` by `plan` can go on from here."""
        graph = not plan.graph or (self.plan.graph and self.plan.leaf == plan.leaf)
        return graph and self.plan.depth >= plan.depth and _same(self.row.pieces, row.pieces)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What `generate` goes on from: everything run, cut from the graph, the rows' next positions [axes, B] and lengths."""

    past: Past
    positions: Tensor
    lengths: tuple[int, ...]


@dataclass(slots=True)
class _Draft:
    """An answer being decoded; `ids` includes the end token once it is there."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    ended: bool = False

    def finish(self, decode: Callable[[Sequence[int]], str]) -> Generation:
        """Decode it."""
        ids = tuple(self.ids[:-1] if self.ended else self.ids)
        return Generation(decode(ids).strip(), ids, tuple(self.logprobs), tuple(self.entropies))


class FrozenVlm(ABC):
    """A frozen vision-language model of transformers; implements `pipeline.vlms.base.Vlm`.

    Args:
        model: The family's ``…ForConditionalGeneration``; it is put into evaluation mode and frozen, and nothing else of it
            is ever changed.
        tokenizer: Its tokenizer.
        images: Its PIL image processor; None for a family that draws its own pixels.
        identity: Which weights these are.
    """

    family: ClassVar[str]
    placeholder: ClassVar[str]
    """Stands for one view in a rendered prompt; a special token of the tokenizer."""
    model_class: ClassVar[Any]
    images_class: ClassVar[Any] = None
    """The image processor's PIL class, which does without torchvision."""

    def __init__(self, model: Any, tokenizer: Any, images: Any, identity: ModelIdentity) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.images = images
        self.identity = identity
        self.decoder = Decoder(model.model.language_model, model.lm_head)
        self.blocks = self.decoder.blocks
        self._image_id = tokenizer.convert_tokens_to_ids(self.placeholder)
        if self._image_id != model.config.image_token_id:
            raise ModelUnavailable(
                f"{identity.name}: the tokenizer's {self.placeholder} is {self._image_id}, the model's image token "
                f"{model.config.image_token_id}; they do not belong together"
            )
        self._special = tuple(t.content for t in tokenizer.added_tokens_decoder.values() if t.special)
        self._end_ids = _end_ids(model, tokenizer)
        self._usage = Usage()
        self._kept: list[_Beginning] = []

    @classmethod
    def load(cls, folder: Path, identity: ModelIdentity, device: torch.device, dtype: torch.dtype) -> Self:
        """Load a local folder; safetensors only, offline, without anybody's code.

        Raises:
            ModelUnavailable: The weights do not cover the model.
        """
        model, found = cls.model_class.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        if missing := sorted(found["missing_keys"]):
            # transformers would go on with random numbers in their place.
            raise ModelUnavailable(f"{folder} lacks {len(missing)} of the model's weights, {missing[0]} among them")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        images = cls.images_class and cls.images_class.from_pretrained(folder, local_files_only=True)
        return cls(model.to(device), tokenizer, images, identity)

    @abstractmethod
    def look(self, image: Image.Image, *, crop: bool) -> Look:
        """Make one RGB image ready for the vision tower and say where its tokens will lie."""

    @abstractmethod
    def project(self, looks: Sequence[Look]) -> Sequence[Tensor]:
        """Run vision tower and projector on images of one input shape; [N, D] each."""

    @abstractmethod
    def picture(self, look: Look, pixels: Tensor) -> Tensor:
        """Lay values shaped as the look's pixels out as the picture [C, H, W] that its finest layer's grid covers."""

    @abstractmethod
    def render(self, views: int, text: str) -> str:
        """Write the whole prompt, one `placeholder` per view and everything the answer is preceded by."""

    def chat(self, views: int, text: str) -> str | None:
        """The prompt by the tokenizer's own chat template; None if it has none that places every view."""
        if not self.tokenizer.chat_template:
            return None
        content = [*({"type": "image"} for _ in range(views)), {"type": "text", "text": text}]
        rendered: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return rendered if rendered.count(self.placeholder) == views and text in rendered else None

    def around_view(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids put before and after each view, in the place of its image token."""
        return (), ()

    def positions(self, pieces: Sequence[Piece]) -> Tensor:
        """Rotary positions of a whole sequence, int64 [axes, length]."""
        return torch.arange(sum(piece.length for piece in pieces))[None]

    @property
    def usage(self) -> Usage:
        """See `Vlm.usage`."""
        return self._usage

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        """See `Vlm.encode`."""
        looks = [self.look(image.convert("RGB"), crop=crops) for image in images]
        tokens: dict[int, VisualTokens] = {}
        with self._memory(), torch.no_grad():
            for shape in dict.fromkeys(look.pixels.shape for look in looks):
                group = [index for index, look in enumerate(looks) if look.pixels.shape == shape]
                projected = self.project([looks[index] for index in group])
                for index, embeddings in zip(group, projected, strict=True):
                    tokens[index] = _placed(embeddings, looks[index], crops)
        self._usage += Usage(vision_encodes=len(images))
        return [tokens[index] for index in range(len(images))]

    def pixel_gradients(self, image: Image.Image, gradients: Sequence[Tensor], *, crop: bool = False) -> list[Tensor]:
        """See `Vlm.pixel_gradients`."""
        look = self.look(image.convert("RGB"), crop=crop)
        with self._memory(), torch.enable_grad():
            pixels = look.pixels.to(self.decoder.device, self.decoder.dtype).requires_grad_()
            (tokens,) = self.project([replace(look, pixels=pixels)])
            found = [torch.autograd.grad(tokens, pixels, at.to(tokens), retain_graph=True)[0] for at in gradients]
        self._usage += Usage(vision_encodes=1)
        return [self.picture(look, gradient) for gradient in found]

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
        depth = self.blocks if layer is None else layer
        if not (0 <= leaf < depth <= self.blocks and all(0 <= block < depth for block in attentions)):
            raise ValueError(
                f"leaf {leaf}, layer {layer} and attentions {tuple(attentions)} of a model of {self.blocks} blocks"
            )
        plan = Plan(graph, leaf, depth)
        tails = [tuple(tail) for tail in forced] if forced is not None else [()] * len(prompts)
        rows = [self._row(prompt, tail) for prompt, tail in zip(prompts, tails, strict=True)]
        with self._memory(), torch.set_grad_enabled(graph):
            forced_counts = [len(tail) for tail in tails]
            watch = _watch(rows, tails, attentions) if attentions else None
            run, leaves = self._run(rows, plan, watch, _wanted(rows, forced_counts))
            logits = self._last_logits(run, rows, forced_counts, normed=layer is None)
        self._usage += Usage(forward_passes=len(rows))
        if graph:
            logits.register_hook(self._count_backward)
        resumable = layer is None and len(set(forced_counts)) == 1
        return Reading(logits, leaves, _state(run.past, rows) if resumable else None, run.attentions)

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        """See `Vlm.generate`."""
        state = reading.state
        if not isinstance(state, _State):
            raise ValueError("only a reading of the whole model, as much forced on each, can be continued")  # noqa: TRY004
        room = min(max_new_tokens, self.decoder.context - max(state.lengths))
        past = replace(state.past, cache=state.past.cache.copy())
        positions, logits = state.positions, reading.logits[:, -1].detach()
        drafts = [_Draft() for _ in state.lengths]
        with self._memory():
            while True:
                tokens = _append_greedily(drafts, logits, self._end_ids)
                going = sum(not draft.ended for draft in drafts)
                if not going or max(len(draft.ids) for draft in drafts) >= room:
                    break
                logits, past = self.decoder.step(tokens, positions, past)
                positions = positions + 1
                self._usage += Usage(decoded_tokens=going)
        return [draft.finish(self.decode) for draft in drafts]

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `Vlm.decode`."""
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def forget(self) -> None:
        """See `Vlm.forget`."""
        self._kept = []

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        """See `Vlm.score`."""
        tails = [self.continuation_ids(text) for text in continuations]
        with torch.no_grad():
            logits = self.read(prompts, forced=[tail[:-1] for tail in tails]).logits
            logprobs = logits.log_softmax(-1)
            entropies = -(logprobs.exp() * logprobs).sum(-1)
        scores = []
        for row, tail in enumerate(tails):
            taken = logprobs[row, torch.arange(len(tail)), torch.tensor(tail)]
            scores.append(Score(tuple(taken.tolist()), tuple(entropies[row, : len(tail)].tolist())))
        return scores

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        """See `Vlm.continuation_ids`."""
        ids = self.tokenizer(self._plain(text), add_special_tokens=False)["input_ids"]
        return (*ids, self._end_ids[0])

    def _plain(self, text: str) -> str:
        """Break control tokens inside the user's words, so that a question can never be taken for an image or an end."""
        for token in self._special:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _row(self, prompt: Prompt, tail: tuple[int, ...]) -> Row:
        pieces = (*self._pieces(prompt), Piece(tail)) if tail else self._pieces(prompt)
        row = Row(pieces, self.positions(pieces))
        if row.length > self.decoder.context:
            raise PromptTooLong(
                f"the prompt has {row.length} tokens ({row.visual} of them visual, {len(prompt.views)} views), "
                f"{self.identity.name} takes {self.decoder.context}; fewer or smaller views help"
            )
        return row

    def _pieces(self, prompt: Prompt) -> tuple[Piece, ...]:
        rendered = self.render(len(prompt.views), self._plain(prompt.text))
        # A template that writes the beginning-of-text token itself must not get a second one.
        bos = self.tokenizer.bos_token
        ids = self.tokenizer(rendered, add_special_tokens=not (bos and rendered.startswith(bos)))["input_ids"]
        before, after = self.around_view()
        pieces: list[Piece] = []
        text: list[int] = []
        views = iter(prompt.views)
        for token in ids:
            if token == self._image_id:
                pieces += [Piece((*text, *before)), Piece(view=next(views))]
                text = list(after)
            else:
                text.append(token)
        pieces.append(Piece(tuple(text)))
        return tuple(piece for piece in pieces if piece.length)

    def _run(
        self, rows: Sequence[Row], plan: Plan, watch: Watch | None, wanted: int
    ) -> tuple[Run, tuple[tuple[Tensor, ...], ...]]:
        """Run rows, from behind their shared beginning where there is one; the leaves are those of the whole rows."""
        cut = _shared_pieces(rows)
        if cut == 0 or (plan.graph and len(rows) > 1):
            run = self._count_visual(rows, self.decoder.run(rows, plan, watch=watch, wanted=wanted))
            return run, run.leaves
        start = self._read_beginning(rows[0].split(cut)[0], plan)
        cache = start.past.cache.copy(len(rows), detach=not plan.graph)
        past = replace(start.past, cache=cache, filled=start.past.filled.expand(len(rows), -1))
        tails = [row.split(cut)[1] for row in rows]
        run = self._count_visual(tails, self.decoder.run(tails, plan, past, watch, wanted=wanted))
        return run, tuple(start.leaves + own for own in run.leaves)

    def _read_beginning(self, row: Row, plan: Plan) -> _Beginning:
        """A kept beginning that serves, otherwise read one and keep it.

        Of one page, one with a graph and one without are kept: an early exit's graph is too shallow to answer from, and
        reading the page for each in turn would undo the saving.
        """
        for kept in self._kept:
            if kept.serves(row, plan):
                return kept
        # What the new one replaces goes first: its memory may be needed.
        self._kept = [old for old in self._kept if old.plan.graph != plan.graph and _same(old.row.pieces, row.pieces)]
        run = self._count_visual([row], self.decoder.run([row], plan, wanted=0))
        new = _Beginning(row, plan, run.leaves[0] if run.leaves else (), run.past)
        self._kept = [*(old for old in self._kept if not new.serves(old.row, old.plan)), new]
        return new

    def _last_logits(self, run: Run, rows: Sequence[Row], forced: Sequence[int], *, normed: bool) -> Tensor:
        """Logits [B, T, V] behind each prompt and each of its forced tokens; zeros behind a shorter row's end."""
        device = run.hidden.device
        before = run.past.length - run.hidden.shape[1]
        first = torch.tensor(
            [row.length - count - 1 - before for row, count in zip(rows, forced, strict=True)], device=device
        )
        steps = torch.arange(max(forced) + 1, device=device)
        read = steps[None] <= torch.tensor(forced, device=device)[:, None]
        at = torch.where(read, first[:, None] + steps[None], first[:, None])
        hidden = run.hidden[torch.arange(len(rows), device=device)[:, None], at]
        return self.decoder.logits(hidden, normed=normed).masked_fill(~read[..., None], 0.0)

    def _count_visual(self, rows: Sequence[Row], run: Run) -> Run:
        self._usage += Usage(visual_tokens=sum(row.visual for row in rows))
        return run

    def _count_backward(self, gradient: Tensor) -> None:
        """Count the rows that a gradient at a reading's logits [B, T, V] comes from."""
        self._usage += Usage(backward_passes=int(gradient.flatten(1).any(dim=1).sum()))

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Turn the device's errors into ours, keeping nothing."""
        try:
            with device_errors(f"{self.identity.device}, running {self.identity.name},"):
                yield
        except (OutOfMemory, DeviceLost):
            self.forget()
            raise


def _placed(embeddings: Tensor, look: Look, crop: bool) -> VisualTokens:
    if len(embeddings) != look.count:
        raise InternalError(f"a view became {len(embeddings)} visual tokens, {look.count} were expected")
    return VisualTokens(embeddings.detach(), look.layers, look.extra, crop)


def _shared_pieces(rows: Sequence[Row]) -> int:
    """How many pieces, up to the end of the global view, all rows share; 0 if they begin with other views, crops or none."""
    pieces = rows[0].pieces
    cut = next((index + 1 for index, piece in enumerate(pieces) if piece.view is not None and not piece.view.crop), 0)
    if cut == 0 or any(piece.view is not None for piece in pieces[: cut - 1]):
        return 0
    return cut if all(_same(pieces[:cut], row.pieces[:cut]) for row in rows[1:]) else 0


def _same(pieces: Sequence[Piece], others: Sequence[Piece]) -> bool:
    """Whether two stretches hold the same words and the very same views."""
    return len(pieces) == len(others) and all(
        mine.view is other.view and mine.ids == other.ids for mine, other in zip(pieces, others, strict=True)
    )


def _wanted(rows: Sequence[Row], forced: Sequence[int]) -> int:
    """How many positions, from the end, hold all that logits are read at: each prompt's last and the forced ones."""
    return max(row.length for row in rows) - min(row.length - count - 1 for row, count in zip(rows, forced, strict=True))


def _watch(rows: Sequence[Row], tails: Sequence[Sequence[int]], blocks: Sequence[int]) -> Watch:
    """The attention of each prompt's last position, before anything forced."""
    return Watch(
        tuple(blocks),
        tuple(row.length - len(tail) - 1 for row, tail in zip(rows, tails, strict=True)),
        tuple(visual_positions([(piece.length, piece.view is not None) for piece in row.pieces]) for row in rows),
    )


def _state(past: Past, rows: Sequence[Row]) -> _State:
    following = torch.stack([row.positions.amax() + 1 for row in rows]).to(past.filled.device)
    axes = rows[0].positions.shape[0]
    return _State(
        replace(past, cache=past.cache.copy(detach=True)), following.expand(axes, -1), tuple(row.length for row in rows)
    )


def _append_greedily(drafts: Sequence[_Draft], logits: Tensor, end_ids: Sequence[int]) -> Tensor:
    """Append each draft's most probable next token; [B, V] logits in, [B] tokens out."""
    logprobs = logits.log_softmax(-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    tokens = logits.argmax(-1)
    taken = logprobs.gather(-1, tokens[:, None])[:, 0]
    for draft, token, logprob, entropy in zip(drafts, tokens.tolist(), taken.tolist(), entropies.tolist(), strict=True):
        if not draft.ended:
            draft.ids.append(token)
            draft.logprobs.append(logprob)
            draft.entropies.append(entropy)
            draft.ended = token in end_ids
    return tokens


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end an answer, the tokenizer's own first (the one `score` appends)."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    several = configured if isinstance(configured, list) else [configured]
    known = [tokenizer.eos_token_id, *several]
    return tuple(dict.fromkeys(int(token) for token in known if token is not None))
