"""The training run: stages in turn, resumable, stopped by its own clock."""

import itertools
import json
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ops.train.batches import ENDINGS, Batch, Group, ReaderBatch, stream
from ops.train.checkpoint import HEADS, LOG, State, load_into, new_model, restore, save
from ops.train.losses import Heads, Outcome, answer_loss, is_mixed, match_loss, mixed_precision, reader_loss, tower_loss
from ops.train.muon import FloatMuon
from ops.train.stages import STAGES, Stage
from ops.train.wiring import signing_parts, wire_heads, wire_match

WARM_UP_STEPS = 25
SAVE_EVERY_S = 120
LOG_EVERY_STEPS = 25
SMOOTHING = 0.98
COOL_DOWN_SHARE = 0.3
CLIP = 1.0
BESIDE_WEIGHT = 0.5
"""Of questions that are only found, beside those that are answered."""
WEIGHT_DECAY = 0.02
QUICK = 2.5
"""How much faster what starts at random learns than the circuit that does not."""

QUICKLY = tuple(f"model.vision_tower.{part}." for part in ("layers", "links", "edges", "signature"))

TOWER = "model.vision_tower."
READER = "model.vision_tower.reader."


@dataclass(frozen=True)
class Run:
    """What the command line decides.

    Attributes:
        folder: of the checkpoint and the log.
        minutes: after which the run saves and stops.
        workers: processes that draw documents.
        scale: factor of the stages' time, 1 for two CPU cores.
        stages: the curriculum.
        device: "cpu" or "cuda".
        max_steps: stop after so many steps; tests use it.
    """

    folder: Path
    minutes: float
    workers: int = 1
    scale: float = 1.0
    stages: tuple[Stage, ...] = STAGES
    device: str = "cpu"
    max_steps: int | None = None


class Trainer:
    """Trains from the folder's checkpoint on, or from the start.

    Args:
        run: what to do.
        fresh: the state of a run that starts from nothing.
    """

    def __init__(self, run: Run, fresh: State) -> None:
        self.run = run
        found = restore(run.folder)
        self.state = found or fresh
        self.model, self.tokenizer = new_model(self.state)
        self.heads = Heads(self.model.config.text_config.hidden_size)
        wire_heads(self.model, self.heads.asked, self.heads.signed)
        if found:
            load_into(run.folder, self.model)
            load_into(run.folder, self.heads, HEADS)
        self.device = torch.device(run.device)
        self.model.to(self.device)
        self.heads.to(self.device)
        self.deadline = time.monotonic() + run.minutes * 60
        self.steps_left = run.max_steps

    def stop(self, *_: object) -> None:
        """End after the step that is under way, and save."""
        self.deadline = 0.0

    def train(self) -> None:
        """Run the stages that are not over, until the clock, SIGTERM or SIGINT stops them."""
        for ending in ENDINGS:
            signal.signal(ending, self.stop)
        for stage in self.run.stages:
            if stage.name not in self.state.passed and time.monotonic() < self.deadline and self.steps_left != 0:
                with _in_part(self.model, signing_parts(self.model) if stage.trains == "match" else {}):
                    self._stage(stage)
                if stage.trains == "match":
                    wire_match(self.model, self.heads.asked, self.heads.signed)
        self._save()

    def _save(self) -> None:
        save(self.run.folder, self.state, self.model, self.heads)

    def _write(self, record: dict[str, object]) -> None:
        with (self.run.folder / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _optimizers(self, stage: Stage) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the transformer layers, AdamW for convolutions, embeddings, heads and norms."""
        named = [*self.model.named_parameters(), *((f"heads.{n}", p) for n, p in self.heads.named_parameters())]
        trained = {n: p for n, p in named if p.requires_grad and _trains(stage, n)}
        by_muon = {n for n, p in trained.items() if p.dim() == 2 and (".layers." in n or "projector" in n)}
        # The circuit of `wiring` is refined, everything else starts at random: slow and fast.
        quick = {n for n in trained if n.startswith(QUICKLY)}

        def groups(names: Iterable[str], weight_decay: float) -> list[dict[str, object]]:
            return [
                {"params": chosen, "weight_decay": weight_decay, "factor": factor}
                for factor, part in ((1.0, set(names) - quick), (QUICK, set(names) & quick))
                if (chosen := [trained[n] for n in sorted(part)])
            ]

        rest = trained.keys() - by_muon
        matrices = {n for n in rest if trained[n].dim() >= 2}
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([*groups(matrices, WEIGHT_DECAY), *groups(rest - matrices, 0.0)], betas=(0.9, 0.95))
        ]
        if by_muon:
            muon = torch.optim.Muon if is_mixed(self.device) else FloatMuon
            optimizers.append(muon(groups(by_muon, WEIGHT_DECAY), momentum=0.95, adjust_lr_fn="match_rms_adamw", ns_steps=4))
        return optimizers

    def _stage(self, stage: Stage) -> None:
        state, run = self.state, self.run
        run.folder.mkdir(parents=True, exist_ok=True)
        length_s = stage.minutes * 60 * run.scale
        optimizers = self._optimizers(stage)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        self.model.eval()
        if stage.trains == "reader":
            self.model.model.vision_tower.reader.train()
        first = state.steps.get(stage.name, 0)
        mean: dict[str, float] = {}
        tasks: dict[str, tuple[int, int]] = {}
        saved = time.monotonic()
        torch.manual_seed(state.seed + first)
        batches = stream(state.seed, stage, "train", first, run.workers)
        beside = stream(state.seed, stage.beside, "train", first, run.workers) if stage.beside else itertools.repeat(None)
        for number, (batch, other) in enumerate(zip(batches, beside, strict=False)):
            begun = time.monotonic()
            share = state.share(stage.name, length_s)
            rate = stage.learning_rate * min(1.0, (number + 1) / WARM_UP_STEPS)
            if stage.cool_down:
                # To zero by 1 - sqrt over the last part of the stage, or of this run if that ends sooner.
                left = min(length_s * (1 - share), self.deadline - begun) / length_s
                rate *= 1 - (1 - min(1.0, max(0.0, left) / COOL_DOWN_SHARE)) ** 0.5
            for group in groups:
                group["lr"] = rate * group["factor"]
            for optimizer in optimizers:
                optimizer.zero_grad()
            outcome = self._step(stage, self._to_device(batch), 1 - share)
            outcome.loss.backward()
            if stage.beside and other:
                found = self._step(stage.beside, self._to_device(other), 1.0)
                (found.loss * BESIDE_WEIGHT).backward()
                outcome.parts["beside"] = found.parts["accuracy"]
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            for optimizer in optimizers:
                optimizer.step()
            mean = {k: SMOOTHING * mean.get(k, v) + (1 - SMOOTHING) * v for k, v in outcome.parts.items()}
            for task, (right, n) in outcome.right.items():
                before = tasks.get(task, (0, 0))
                tasks[task] = (before[0] + right, before[1] + n)
            now = time.monotonic()
            state.steps[stage.name] = first + number + 1
            state.seconds[stage.name] = state.seconds.get(stage.name, 0.0) + now - begun
            if number % LOG_EVERY_STEPS == LOG_EVERY_STEPS - 1:
                exact = {task: round(right / n, 3) for task, (right, n) in sorted(tasks.items())}
                record = {
                    "stage": stage.name,
                    "step": state.steps[stage.name],
                    "minutes": round(sum(state.seconds.values()) / 60, 2),
                    "rate": round(rate, 6),
                    **{k: round(v, 4) for k, v in mean.items()},
                    "exact": exact,
                }
                self._write(record)
                tasks = {}
            if now - saved > SAVE_EVERY_S:
                self._save()
                saved = now
            if self.steps_left is not None:
                self.steps_left -= 1
            passed = number > 2 * WARM_UP_STEPS and mean["accuracy"] >= stage.gate
            if share >= 1 or passed:
                state.passed.append(stage.name)
            if share >= 1 or passed or now > self.deadline or self.steps_left == 0:
                break
        self._save()

    def _step(self, stage: Stage, batch: ReaderBatch | Batch, strength: float) -> Outcome:
        with mixed_precision(self.device), _attention(self.device):
            if isinstance(batch, ReaderBatch):
                return reader_loss(self.model, batch)
            if stage.trains == "tower":
                return tower_loss(self.model, batch, stage)
            if stage.trains == "match":
                return match_loss(self.model, self.heads, batch, stage)
            return answer_loss(self.model, self.heads, batch, stage, strength)

    def _to_device(self, batch: ReaderBatch | Batch) -> ReaderBatch | Batch:
        if self.device.type == "cpu":
            return batch

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(self.device, non_blocking=True)
            if isinstance(value, tuple):
                return tuple(move(v) for v in value)
            return Group(**{k: move(v) for k, v in vars(value).items()}) if isinstance(value, Group) else value  # type: ignore[arg-type]

        return type(batch)(**{k: move(v) for k, v in vars(batch).items()})  # type: ignore[arg-type]


@contextmanager
def _in_part(model: nn.Module, masks: dict[str, Tensor]) -> Iterator[None]:
    """Train only what is masked of the parameters that have a mask."""
    hooks = [
        weight.register_hook(lambda gradient, mask=masks[name]: gradient * mask)
        for name, weight in model.named_parameters()
        if name in masks
    ]
    yield
    for hook in hooks:
        hook.remove()


def _attention(device: torch.device) -> AbstractContextManager[object]:
    """On a CPU plain products of matrices, which take two thirds of the time of its fused kernel for bf16."""
    if device.type != "cpu":
        return nullcontext()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # type: ignore[no-untyped-call]
    return sdpa_kernel(SDPBackend.MATH)


def _trains(stage: Stage, name: str) -> bool:
    """Whether a stage trains the parameter of that name."""
    if name.startswith(READER) or stage.trains == "reader":
        return name.startswith(READER) and stage.trains == "reader"
    return stage.trains != "tower" or name.startswith(TOWER)
