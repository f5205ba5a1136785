"""A training checkpoint: bf16 weights, and where the run stands. Resuming restarts the optimizer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ops.train.wiring import wire
from pipeline.vlms.embedded.modeling import build_model
from pipeline.vlms.embedded.tokenizer import build_tokenizer

STATE, MODEL, HEADS, LOG = "state.json", "model.safetensors", "heads.safetensors", "training.jsonl"


@dataclass
class State:
    """Where a run stands.

    Attributes:
        seed: of the data stream and of the first weights.
        layers: of the language model.
        steps: steps done in each stage; a stage's batches are numbered by them, so a resumed run continues the stream.
        seconds: training time spent in each stage.
        passed: stages that are over.
        begun: seconds that a stage had when its present round began; 0 where it has had one round only.
    """

    seed: int = 1
    layers: int = 5
    steps: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    begun: dict[str, float] = field(default_factory=dict)

    def begin_again(self, stage: str) -> None:
        """Open another round of a stage: its time is counted from now on, its steps go on."""
        self.passed = [name for name in self.passed if name != stage]
        self.begun[stage] = self.seconds.get(stage, 0.0)

    def share(self, stage: str, length_s: float) -> float:
        """How much of a stage's present round is over, 0 to 1, if a round takes `length_s` seconds."""
        return min(1.0, (self.seconds.get(stage, 0.0) - self.begun.get(stage, 0.0)) / length_s)


def new_model(state: State) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """An untrained model, its first weights decided by the seed."""
    torch.manual_seed(state.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, layers=state.layers)
    wire(model, tokenizer)
    return model, tokenizer


def save(folder: Path, state: State, model: nn.Module, heads: nn.Module) -> None:
    """Write a checkpoint; each file is replaced as a whole, the state last, so that an interrupted save leaves the older
    one."""
    _write(folder, state, {MODEL: model.state_dict(), HEADS: heads.state_dict()})


def _write(folder: Path, state: State, files: dict[str, dict[str, Tensor]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in files.items():
        tensors = {k: v.to(torch.bfloat16 if v.is_floating_point() else v.dtype) for k, v in weights.items()}
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{name}.new")
        (folder / f"{name}.new").replace(folder / name)
    for part in [*folder.glob(f"{Path(MODEL).stem}-*.safetensors"), folder / f"{MODEL}.index.json"]:
        part.unlink(missing_ok=True)  # of a shipped folder, older than what has just been written
    (folder / f"{STATE}.new").write_text(json.dumps(asdict(state), indent=1) + "\n")
    (folder / f"{STATE}.new").replace(folder / STATE)


def restore(folder: Path) -> State | None:
    """The state of a checkpoint, or None if there is none."""
    path = folder / STATE
    return State(**json.loads(path.read_text())) if path.exists() else None


def state_of(folder: Path) -> State:
    """The state of a checkpoint.

    Raises:
        FileNotFoundError: `folder` holds none.
    """
    state = restore(folder)
    if state is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint ({STATE})")
    return state


def load_into(folder: Path, module: nn.Module, name: str = MODEL) -> None:
    """Copy the weights of a checkpoint into a module.

    Args:
        folder: of a run, or one that `ops.train.export` wrote, whose weights may lie in several files.
        module: what they belong to.
        name: of the weights' file.
    """
    tensors = _tensors(folder, name)
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    if unexpected or missing:
        raise ValueError(f"{folder / name} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")


def average(folders: Sequence[Path], target: Path) -> None:
    """Write a checkpoint whose weights are the mean of others', each taken at the end of a run's cool-down.

    Runs that went on from one another end at different sides of one basin; their mean lies deeper in it than any of them
    (Izmailov et al., arXiv:1803.05407). A folder named twice counts twice. The state and the log are the first one's.

    Raises:
        FileNotFoundError: a folder holds no checkpoint.
    """
    state, *_ = [state_of(folder) for folder in folders]
    files = {}
    for name in (MODEL, HEADS):
        first, *others = (_tensors(folder, name) for folder in folders)
        files[name] = {
            k: torch.stack([t, *(other[k] for other in others)]).mean(0) if t.is_floating_point() else t
            for k, t in first.items()
        }
    _write(target, state, files)
    log = folders[0] / LOG
    if log.exists():
        (target / LOG).write_bytes(log.read_bytes())  # not copied: the target may be one of the folders


def take_reader(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Put the reader of another checkpoint into a model."""
    prefix = "model.vision_tower.reader."
    other = {name.removeprefix(prefix): t for name, t in _tensors(folder, MODEL).items() if name.startswith(prefix)}
    model.model.vision_tower.reader.load_state_dict(other)


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    stem = name.removesuffix(".safetensors")
    parts = [load_file(path) for path in sorted([*folder.glob(name), *folder.glob(f"{stem}-*.safetensors")])]
    return {k: t.float() if t.is_floating_point() else t for part in parts for k, t in part.items()}
